"""Images that stay on the device: the same batches as without, and nothing is read that is there."""

from collections import deque

import datasets
import numpy as np
import pytest
import torch
from data.numbered import png

from vitft.data import train_batches
from vitft.data.device_store import DeviceStore, device_bytes
from vitft.data.images import ImageSplit
from vitft.data.row_numbers import RowNumbers
from vitft.data.train_batches import StepSlices, TrainBatches

N, BATCH, STEPS, STAGE = 22, 8, 14, 8  # five epochs and a bit, whose ends are inside of steps
BAD = 5


@pytest.fixture
def split():
    """Images of several sizes, one of them broken."""
    encoded = [png(10 * row, height=3 + row % 7, width=9 - row % 5) for row in range(N)]
    encoded[BAD] = b"broken"
    features = datasets.Features({"image": datasets.Image(decode=False)})
    rows = datasets.Dataset.from_dict({"image": [{"bytes": each, "path": None} for each in encoded]}, features=features)
    return ImageSplit("train", rows, ("image",), np.arange(N) % 3, source_name="train")


@pytest.fixture
def read(monkeypatch):
    """The sample indices that were read."""
    indices = []
    staging = train_batches._Staging
    plain = staging.__getitems__
    monkeypatch.setattr(staging, "__getitems__", lambda self, given: indices.extend(given) or plain(self, given))
    return indices


def steps(split, held=None, first=0, *, last=STEPS):
    slices = StepSlices(len(split), BATCH, 4, BATCH * STEPS)
    made = TrainBatches(split, slices, seed=3, stage_size=STAGE, skip_bad=True, workers=0, pin=False, held=held)
    return [batch for step in made.steps(first, last) for batch in step]


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        for name in ("images", "sizes", "originals", "labels", "sample_indices"):
            assert torch.equal(getattr(a, name), getattr(b, name)), name
        assert (a.skipped, a.notes) == (b.skipped, b.notes)


def store(split):
    return DeviceStore(len(split), STAGE, torch.device("cpu"))


@pytest.mark.parametrize("first", [0, 4])
def test_batches_are_those_that_reading_gives_and_a_bad_image_is_met_each_time(split, read, first):
    without = steps(split, first=first)
    skips = [batch for batch in without if batch.skipped]
    del read[:]
    assert_same(steps(split, store(split), first), without)
    assert {index for batch in skips for index in batch.sample_indices.tolist()} <= set(read)
    assert len(skips) >= 3
    assert len(read) < 0.7 * BATCH * (STEPS - first)


def test_reading_ahead_changes_nothing(split, read, monkeypatch):
    def ahead(staging, plan, *_, **__):
        waiting = deque()
        for part in plan:
            waiting.append(staging.__getitems__(part))
            if len(waiting) > 3:
                yield waiting.popleft()
        yield from waiting

    without = steps(split)
    monkeypatch.setattr(train_batches, "loader", ahead)
    del read[:]
    assert_same(steps(split, store(split)), without)
    assert len(read) < 0.6 * BATCH * STEPS


def test_once_all_are_there_nothing_is_read(split, read):
    good = split.part("train", RowNumbers.only(np.delete(np.arange(N), BAD)))
    held = store(good)
    steps(good, held, last=4)
    assert held.is_full
    del read[:]
    assert_same(steps(good, held, 4), steps(good, first=4))
    assert len(read) == BATCH * (STEPS - 4)  # all of them by the second


def test_the_bytes_are_those_of_the_images(split):
    assert device_bytes(N, STAGE) == store(split)._images.numel()

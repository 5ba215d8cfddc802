"""Images from a store: the same bits as decoded, and what does not fit is decoded again."""

import os
from copy import deepcopy  # takes the same state that is sent to another process

import datasets
import numpy as np
import pytest
import torch
from data.numbered import png
from PIL import Image

from vitft.data import batches, staging
from vitft.data.cache import Cache
from vitft.data.evaluation_batches import evaluation_batches
from vitft.data.images import ImageSplit
from vitft.data.row_numbers import RowNumbers
from vitft.data.staged_store import StagedStore, stamp_of
from vitft.data.store import Store
from vitft.data.train_batches import StepSlices, TrainBatches

N, STAGE = 12, 16


@pytest.fixture
def photos(tmp_path):
    """Noise of several shapes, larger and smaller than the stage."""
    generator = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.png" for number in range(N)]
    for number, path in enumerate(paths):
        shape = (10 + 2 * number, 30 - 2 * number, 3)
        Image.fromarray(generator.integers(0, 256, shape, dtype=np.uint8)).save(path)
    return paths


def split_of(images):
    rows = datasets.Dataset.from_dict({"image": images})
    return ImageSplit("train", rows, ("image",), np.arange(len(images)), source_name="train")


@pytest.fixture(params=["files", "bytes"])
def split(request, photos):
    return split_of([str(path) if request.param == "files" else path.read_bytes() for path in photos])


@pytest.fixture
def kept(tmp_path):
    opened = Cache(tmp_path / "cache", 10**9).open({"dataset": "photos", "what": "train"}, 3 * STAGE**2, 10**5)
    yield StagedStore(opened, RowNumbers.only(np.arange(N) * 2), "the cache")
    opened.close()


def epochs(split, kept, workers=0, skip_bad=False):
    """Return the batches of two epochs."""
    batches = TrainBatches(
        split, StepSlices(N, 4, 4, 2 * N), seed=0, stage_size=STAGE, skip_bad=skip_bad, workers=workers, pin=False,
        kept=kept,
    )  # fmt: skip
    return [batch for step in batches.steps(0, 2 * N // 4) for batch in step]


def assert_same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        for name in ("images", "sizes", "originals", "labels", "sample_indices"):
            assert torch.equal(getattr(a, name), getattr(b, name)), name
        assert (a.skipped, a.notes) == (b.skipped, b.notes)


@pytest.fixture
def decoded(monkeypatch):
    """Collect what is decoded in this process."""
    found = []

    def decode(*arguments):
        found.append(arguments[0])
        return staging.decode_to_stage(*arguments)

    monkeypatch.setattr(batches, "decode_to_stage", decode)
    return found


def test_the_second_epoch_decodes_nothing_and_has_the_same_bits(split, kept, decoded):
    expected = epochs(split, None)
    decoded.clear()
    assert_same(epochs(split, kept), expected)
    assert len(decoded) == N
    assert_same(epochs(split, kept), expected)
    assert len(decoded) == N


def test_worker_processes_fill_the_store_and_read_from_it(photos, kept, decoded):
    split = split_of(list(map(str, photos)))
    expected = epochs(split, None)
    assert_same(epochs(split, kept, workers=2), expected)
    decoded.clear()
    assert_same(epochs(split, kept), expected)
    assert not decoded


def test_two_processes_share_a_store(split, kept, decoded):
    def epoch(rank, kept):
        slices = StepSlices(N, 6, 3, N, rank, 2)
        batches = TrainBatches(
            split, slices, seed=0, stage_size=STAGE, skip_bad=False, workers=0, pin=False, kept=kept
        )  # fmt: skip
        return [batch for step in batches.steps(0, 2) for batch in step]

    expected = [epoch(rank, None) for rank in (0, 1)]
    assert_same(epoch(0, kept), expected[0])
    assert_same(epoch(1, deepcopy(kept)), expected[1])
    decoded.clear()
    assert_same(epoch(1, kept), expected[1])
    assert not decoded


def test_a_file_that_changed_is_decoded_again(photos, kept):
    split = split_of(list(map(str, photos)))
    epochs(split, kept)
    before = photos[3].stat()
    pixels = np.asarray(Image.open(photos[3]))
    photos[3].write_bytes(photos[4].read_bytes())
    assert_same(epochs(split, kept), epochs(split, None))
    Image.fromarray(255 - pixels).save(photos[3])
    os.utime(photos[3], ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert_same(epochs(split, kept), epochs(split, None))


def test_changed_bytes_of_the_same_number_are_decoded_again(kept):
    images = [png(number) for number in range(N)]
    epochs(split_of(images), kept)
    images[3] = png(200)
    assert len(images[3]) == len(png(3))
    assert_same(epochs(split_of(images), kept), epochs(split_of(images), None))


@pytest.mark.parametrize("name", ["slots", "index", "meta.json"])
def test_a_damaged_file_costs_only_time(split, kept, name, decoded):
    expected = epochs(split, kept)
    path = kept.store.folder / name
    path.write_bytes(np.random.default_rng(0).integers(0, 256, path.stat().st_size, dtype=np.uint8).tobytes())
    assert_same(epochs(split, kept), expected)
    decoded.clear()
    assert_same(epochs(split, kept), expected)
    assert not decoded  # what was damaged was written again


def test_bad_and_noted_images_are_met_anew_each_time(tmp_path, kept):
    images = [png(number) for number in range(N)]
    images[2], images[5] = b"no image", png(5)
    exif = tmp_path / "odd.jpg"
    Image.new("RGB", (9, 9)).save(exif, exif=b"Exif\0\0 broken")
    images[7] = exif.read_bytes()
    split = split_of(images)
    expected = epochs(split, None, skip_bad=True)
    assert sum(len(batch.skipped) for batch in expected) >= 2
    assert sum(len(batch.notes) for batch in expected) == 2
    for _ in range(2):
        assert_same(epochs(split, kept, skip_bad=True), expected)


def full(*_):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("pwrite", "nothing more is written to it: No space left on device"),
        ("pread", "not used any more, because it cannot be read: No space left on device"),
    ],
)
def test_an_error_of_the_disk_turns_it_off_with_one_note(split, kept, monkeypatch, call, said):
    expected = epochs(split, None)
    monkeypatch.setattr(os, call, full)
    found = epochs(split, kept)
    assert all(torch.equal(a.images, b.images) for a, b in zip(found, expected, strict=True))
    assert [str(note) for batch in found for note in batch.notes] == [f"the cache: {said}"]


def test_a_store_that_was_removed_is_noted(split, kept):
    copy = deepcopy(kept)
    kept.store.close()
    for name in ("slots", "index"):
        (kept.store.folder / name).unlink()
    notes = [str(note) for batch in epochs(split, copy) for note in batch.notes]
    assert notes == ["the cache: not used any more, because it cannot be read: No such file or directory"]


def in_miniature(image):
    return torch.from_numpy(np.array(image.resize((8, 8)))).permute(2, 0, 1)


def test_an_evaluation_of_kept_images_starts_no_processes(split, kept, monkeypatch):
    def evaluated(workers, kept=None):
        options = {"batch_size": 5, "skip_bad": False, "workers": workers, "kept": kept}
        return list(evaluation_batches(split, in_miniature, **options))

    assert not kept.has_nearly_all(range(N))
    expected = evaluated(0)
    assert_same(evaluated(0, kept), expected)
    assert kept.has_nearly_all(range(N))
    monkeypatch.setattr("vitft.data.workers._start_method", lambda: pytest.fail("a process was started"))
    assert_same(evaluated(1, kept), expected)


def test_a_stamp_is_that_of_the_file_or_of_the_bytes(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"12")
    stamps = [stamp_of(str(path)), stamp_of(b"12"), stamp_of(b"13"), stamp_of(b"")]
    os.utime(path, ns=(5, 5))
    stamps.append(stamp_of(str(path)))
    path.write_bytes(b"123")
    os.utime(path, ns=(5, 5))
    stamps.append(stamp_of(str(path)))
    path.rename(tmp_path / "b")
    stamps.append(stamp_of(str(tmp_path / "b")))
    assert len(set(stamps)) == 7 and all(len(each) == 16 for each in stamps)
    assert stamp_of(str(path)) is None
    assert stamp_of("\0") is None


def test_an_image_larger_than_its_slot_is_not_kept(tmp_path):
    for name in ("slots", "index"):
        (tmp_path / name).touch()
    kept = StagedStore(Store(tmp_path, 10, 10**6), RowNumbers.all_of(1), "the cache")
    kept.keep(0, bytes(16), torch.zeros(3, 2, 2, dtype=torch.uint8), (2, 2))
    assert kept.find(0, bytes(16)) is None
    assert kept.take_news() == ""

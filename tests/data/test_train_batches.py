"""Positions -> batches: which rows a step takes, and on which process."""

import datasets
import pytest
import torch
from data.numbered import N, rows_of, slices

from vitft.data import order
from vitft.data.train_batches import StepSlices, TrainBatches
from vitft.errors import DataError
from vitft.reading.source import open_source
from vitft.recipe.keys import DataRecipe


def batches(source, a_slice, workers=0):
    return TrainBatches(source.train, a_slice, seed=3, stage_size=8, skip_bad=False, workers=workers, pin=False)


def test_a_step_takes_the_samples_at_its_positions(source):
    taken = [row for step in batches(source, slices()).steps(0, 11) for batch in step for row in rows_of(batch)]
    assert taken == order.sample_at(3, torch.arange(2 * N), N).tolist()
    assert len(taken) == 106  # the last step is short; nothing is dropped or repeated


def test_labels_and_sizes_belong_to_their_images(source):
    for batch in next(iter(batches(source, slices()).steps(0, 1))):
        assert batch.labels.tolist() == [row % 2 for row in rows_of(batch)]
        assert batch.sizes.tolist() == [[6, 5]] * len(batch)
        assert batch.originals.tolist() == [[6, 5]] * len(batch)


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_a_step_without_overlap(source, world_size):
    alone = rows_of(next(iter(batches(source, slices(micro=10)).steps(2, 3)))[0])
    shared = [
        row
        for rank in range(world_size)
        for batch in next(iter(batches(source, slices(rank, world_size)).steps(2, 3)))
        for row in rows_of(batch)
    ]
    assert shared == alone


def test_starting_at_a_later_step_gives_the_same_batches(source):
    all_steps = list(batches(source, slices()).steps(0, 8))
    later = list(batches(source, slices()).steps(5, 8))
    assert [[rows_of(b) for b in step] for step in later] == [[rows_of(b) for b in step] for step in all_steps[5:]]


def test_worker_processes_change_nothing(source):
    here, there = (list(batches(source, slices(), workers).steps(0, 4)) for workers in (0, 2))
    for ours, theirs in zip(here, there, strict=True):
        assert all(
            torch.equal(a.images, b.images) and torch.equal(a.sample_indices, b.sample_indices)
            for a, b in zip(ours, theirs, strict=True)
        )


def test_reading_processes_start_anew_where_there_is_no_fork_server(source, monkeypatch):
    monkeypatch.setattr("multiprocessing.get_all_start_methods", lambda: ["spawn"])
    monkeypatch.setattr("multiprocessing.forkserver.ensure_running", lambda: pytest.fail("a fork server was started"))
    here, there = (list(batches(source, slices(), workers).steps(0, 1)) for workers in (0, 1))
    assert [rows_of(b) for step in here for b in step] == [rows_of(b) for step in there for b in step]


def test_a_short_step_may_leave_a_process_without_samples():
    last = slices(rank=0, world_size=3, total=41)  # step 4 has one sample
    assert last.step_size(4) == 1
    parts = [slices(rank, 3, total=41).micro_batches(4) for rank in range(3)]
    assert sum(len(p) for part in parts for p in part) == 1
    assert [] in parts


def test_a_bad_image_stops_by_default_and_is_named(broken):
    a_slice = StepSlices(20, 20, 20, 20)
    train = TrainBatches(broken.train, a_slice, seed=0, stage_size=8, skip_bad=False, workers=0, pin=False)
    with pytest.raises(DataError, match=r"row (3|11) of train") as error:
        list(train.steps(0, 1))
    assert "--bad-images skip" in str(error.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_next_good_image_of_the_order_takes_the_place_of_a_bad_one(broken, workers):
    train = TrainBatches(
        broken.train, StepSlices(20, 20, 6, 40), seed=0, stage_size=8, skip_bad=True, workers=workers, pin=False
    )
    for epoch, step in enumerate(train.steps(0, 2)):
        rows = [row for batch in step for row in rows_of(batch)]
        intended = order.sample_at(0, torch.arange(20 * epoch, 20 * epoch + 20), 20).tolist()
        expected = []
        for place in range(20):
            following = (intended[(place + k) % 20] for k in range(20))
            expected.append(next(row for row in following if row not in (3, 11)))
        assert rows == expected
        assert {bad.index for batch in step for bad in batch.skipped} == {3, 11}


def test_a_split_without_one_good_image_is_an_error(tmp_path):
    for split in ("train", "validation"):
        rows = {"image": [{"bytes": b"x", "path": None}] * 4, "label": [0, 1, 0, 1]}
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
        datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / f"{split}.parquet")
    source = open_source(DataRecipe(dataset=str(tmp_path), check_images="off", allow_overlap=True), seed=0)
    train = TrainBatches(
        source.train, StepSlices(4, 4, 4, 4), seed=0, stage_size=8, skip_bad=True, workers=0, pin=False
    )
    with pytest.raises(DataError, match="none of its images can be decoded"):
        list(train.steps(0, 1))

"""Positions -> batches: which rows a step takes, on which process, and what a canvas holds."""

import io
import os
import signal
import time

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from vitft.data import order
from vitft.data.batches import collate
from vitft.data.evaluation_batches import evaluation_batches
from vitft.data.stream_batches import StreamBatches
from vitft.data.train_batches import StepSlices, TrainBatches
from vitft.data.workers import ReaderLost, _leave_signals_to_the_training
from vitft.errors import DataError
from vitft.reading.source import open_source
from vitft.recipe.keys import DataRecipe

N = 53


def png(value: int, height: int = 6, width: int = 5) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (value, value, value)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def parquet(tmp_path_factory):
    """Rows whose pixels are their own number."""
    folder = tmp_path_factory.mktemp("numbered")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["even", "odd"])})
    for split, n in (("train", N), ("validation", 20)):
        # The images of both splits have the same pixels, and other bytes.
        rows = {
            "image": [{"bytes": png(i) + split.encode(), "path": None} for i in range(n)],
            "label": [i % 2 for i in range(n)],
        }
        shards = datasets.Dataset.from_dict(rows, features=features)
        for shard in range(2):
            shards.shard(2, shard, contiguous=True).to_parquet(folder / f"{split}-{shard:05d}-of-00002.parquet")
    return folder


@pytest.fixture(scope="module")
def source(parquet):
    return open_source(DataRecipe(dataset=str(parquet)), seed=0)


def slices(rank=0, world_size=1, micro=4, batch_size=10, total=2 * N):
    return StepSlices(N, batch_size, micro, total, rank, world_size)


def batches(source, a_slice, workers=0):
    return TrainBatches(source.train, a_slice, seed=3, stage_size=8, skip_bad=False, workers=workers, pin=False)


def rows_of(batch):
    return batch.images[:, 0, 0, 0].tolist()


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


def test_splitting_a_batch_keeps_pairs_together(source):
    batch = next(iter(batches(source, slices(micro=10)).steps(0, 1)))[0]
    parts = batch.split(4)
    assert [len(part) for part in parts] == [4, 4, 2]
    assert [row for part in parts for row in rows_of(part)] == rows_of(batch)


def test_images_of_several_sizes_lie_at_the_top_left_of_one_canvas():
    pixels = [torch.full((3, h, w), v, dtype=torch.uint8) for v, h, w in ((1, 4, 2), (2, 3, 5))]
    batch = collate(pixels, [(40, 20), (30, 50)], [0, 1], [7, 8])
    assert batch.images.shape == (2, 3, 4, 5)
    assert batch.images[0, :, :, 2:].eq(0).all() and batch.images[0, :, :4, :2].eq(1).all()
    assert batch.images[1, :, 3:].eq(0).all() and batch.images[1, :, :3, :5].eq(2).all()
    assert batch.originals.tolist() == [[40, 20], [30, 50]]


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_evaluation_takes_every_row_once_over_all_processes(source, world_size):
    seen = [
        row
        for rank in range(world_size)
        for batch in evaluation_batches(
            source.validation, first_pixel, batch_size=4, skip_bad=False, workers=0, rank=rank, world_size=world_size
        )
        for row in rows_of(batch)
    ]
    assert seen == list(range(20))


def first_pixel(image):
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)


# --- streams -----------------------------------------------------------------------------------------------


@pytest.fixture
def stream(parquet):
    return open_source(DataRecipe(dataset=str(parquet), streaming=True), seed=0)


def stream_batches(stream, a_slice, workers=0):
    return StreamBatches(
        stream.train, a_slice, seed=3, stage_size=8, skip_bad=False, buffer=4, workers=workers, pin=False
    )


def test_a_stream_gives_each_row_once_per_epoch(stream):
    taken = [row for step in stream_batches(stream, slices(total=N)).steps(0, 6) for b in step for row in rows_of(b)]
    assert sorted(taken) == list(range(N))
    assert taken != list(range(N))


def test_processes_share_a_stream(stream):
    taken = [
        row
        for rank in range(2)
        for step in stream_batches(stream, slices(rank, 2, total=40)).steps(0, 4)
        for b in step
        for row in rows_of(b)
    ]
    assert len(taken) == len(set(taken)) == 40


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stream_goes_on_where_it_stood(stream, workers):
    whole = [rows_of(b) for step in stream_batches(stream, slices(), workers).steps(0, 4) for b in step]
    first = stream_batches(stream, slices(), workers)
    begun = [rows_of(b) for step in first.steps(0, 2) for b in step]
    resumed = stream_batches(stream, slices(), workers)
    resumed.load_state_dict(first.state_dict())
    rest = [rows_of(b) for step in resumed.steps(2, 3) for b in step]
    assert begun == whole[: len(begun)]
    seen = {row for part in begun for row in part}
    assert len(seen) == 20
    # `datasets` does not keep the shuffle buffer: some rows of it are lost, and one or two may come again.
    assert len(seen & {row for part in rest for row in part}) <= 2


def test_a_stream_is_evaluated_once_over_all_processes(stream):
    seen = [
        row
        for rank in range(3)
        for b in evaluation_batches(
            stream.validation, first_pixel, batch_size=4, skip_bad=False, workers=0, rank=rank, world_size=3
        )
        for row in rows_of(b)
    ]
    assert sorted(seen) == list(range(20))


# --- bad images --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("broken")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    for split in ("train", "validation"):
        images = [{"bytes": b"no image" if i in (3, 11) else png(i), "path": None} for i in range(20)]
        rows = datasets.Dataset.from_dict({"image": images, "label": [i % 2 for i in range(20)]}, features=features)
        rows.to_parquet(folder / f"{split}.parquet")
    return open_source(DataRecipe(dataset=str(folder), check_images="off", allow_overlap=True), seed=0)


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


def test_evaluation_leaves_bad_images_out_and_counts_them(broken):
    scored = list(evaluation_batches(broken.validation, first_pixel, batch_size=6, skip_bad=True, workers=0))
    assert sum(len(batch) for batch in scored) == 18
    assert sorted(bad.index for batch in scored for bad in batch.skipped) == [3, 11]


def test_a_split_without_one_good_image_is_an_error(tmp_path):
    for split in ("train", "validation"):
        rows = {"image": [{"bytes": b"x", "path": None}] * 4, "label": [0, 1, 0, 1]}
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
        datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / f"{split}.parquet")
    source = open_source(DataRecipe(dataset=str(tmp_path), check_images="off", allow_overlap=True), seed=0)
    train = TrainBatches(
        source.train, StepSlices(4, 4, 4, 4), seed=0, stage_size=8, skip_bad=True, workers=0, pin=False
    )
    with pytest.raises(DataError, match="not one can be decoded"):
        list(train.steps(0, 1))


def test_a_worker_outlives_the_signal_that_its_whole_group_gets_but_not_a_second_one():
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        _leave_signals_to_the_training(0)
        for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM):
            os.kill(os.getpid(), number)
            time.sleep(0.01)
        os.write(writing, b"alive")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        os._exit(0)
    os.close(writing)
    assert os.read(reading, 5) == b"alive"
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    os.close(reading)


def test_a_lost_reader_says_how_it_ended():
    assert ReaderLost(7, -9).wrong == "a process that reads images (7) is gone: SIGKILL ended it"
    assert ReaderLost(7, 3).wrong == "a process that reads images (7) is gone: it ended with code 3"

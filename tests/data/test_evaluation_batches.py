"""Evaluation takes every row once, over all processes, and counts what it leaves out."""

import pytest
from data.numbered import first_pixel, rows_of

from vitft.data.evaluation_batches import evaluation_batches


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


def test_evaluation_leaves_bad_images_out_and_counts_them(broken):
    scored = list(evaluation_batches(broken.validation, first_pixel, batch_size=6, skip_bad=True, workers=0))
    assert sum(len(batch) for batch in scored) == 18
    assert sorted(bad.index for batch in scored for bad in batch.skipped) == [3, 11]

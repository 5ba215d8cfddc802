"""A batch: canvases of several sizes, and parts that keep pairs together."""

import torch
from data.numbered import rows_of

from vitft.data.batches import collate


def test_splitting_a_batch_keeps_pairs_together():
    pixels = [torch.full((3, 2, 2), row, dtype=torch.uint8) for row in range(10)]
    batch = collate(pixels, [(2, 2)] * 10, [row % 3 for row in range(10)], list(range(40, 50)))
    parts = batch.split(4)
    assert [len(part) for part in parts] == [4, 4, 2]
    assert [row for part in parts for row in rows_of(part)] == list(range(10))
    assert [index for part in parts for index in part.sample_indices.tolist()] == list(range(40, 50))


def test_images_of_several_sizes_lie_at_the_top_left_of_one_canvas():
    pixels = [torch.full((3, h, w), v, dtype=torch.uint8) for v, h, w in ((1, 4, 2), (2, 3, 5))]
    batch = collate(pixels, [(40, 20), (30, 50)], [0, 1], [7, 8])
    assert batch.images.shape == (2, 3, 4, 5)
    assert batch.images[0, :, :, 2:].eq(0).all() and batch.images[0, :, :4, :2].eq(1).all()
    assert batch.images[1, :, 3:].eq(0).all() and batch.images[1, :, :3, :5].eq(2).all()
    assert batch.originals.tolist() == [[40, 20], [30, 50]]

"""Staged images that stay on the device that trains, so that each is copied to it once."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from vitft.data.batches import StagedBatch


class DeviceStore:
    """The staged images of a split, in a tensor of the device, (n, 3, S, S); they come as they are first read.

    Batches from here are those that reading would give, bit for bit.

    Args:
        num_rows: n, rows of the split.
        stage_size: S, in pixels.
        device: where the images stay.
    """

    def __init__(self, num_rows: int, stage_size: int, device: torch.device) -> None:
        self._images = torch.zeros(num_rows, 3, stage_size, stage_size, dtype=torch.uint8, device=device)
        self._facts = torch.zeros(num_rows, 5, dtype=torch.int64)  # sizes, originals, label
        self._is_here = torch.zeros(num_rows, dtype=torch.bool)

    @property
    def is_full(self) -> bool:
        """Whether all rows are here."""
        return bool(self._is_here.all())

    def has(self, rows: Tensor) -> bool:
        """Whether some rows are all here; once they are, they stay."""
        return bool(self._is_here[rows].all())

    def keep(self, rows: Tensor, batch: StagedBatch) -> StagedBatch:
        """Keep a batch of the images of ``rows``; return it with its images on the device.

        A batch with a note, or in which one image stands in for another, is not kept, so that this is met each time.
        """
        batch = replace(batch, images=batch.images.to(self._images.device, non_blocking=True))
        if batch.skipped or batch.notes:
            return batch
        height, width = batch.images.shape[2:]
        places = rows.to(self._images.device, non_blocking=True)
        self._images[:, :, :height, :width].index_copy_(0, places, batch.images)
        self._facts[rows] = torch.cat((batch.sizes, batch.originals, batch.labels[:, None]), 1)
        self._is_here[rows] = True
        return batch

    def batch(self, rows: Tensor, sample_indices: Tensor) -> StagedBatch:
        """Return the batch of some rows that are here."""
        facts = self._facts[rows]
        sizes, originals, labels = facts[:, :2], facts[:, 2:4], facts[:, 4]
        height, width = sizes.amax(0).tolist()  # the canvas that these images have when they are read
        places = rows.to(self._images.device, non_blocking=True)
        images = self._images[:, :, :height, :width].index_select(0, places)
        return StagedBatch(images, sizes, originals, labels, sample_indices)


def device_bytes(num_rows: int, stage_size: int) -> int:
    """Return the bytes that a store takes up on its device."""
    return 3 * num_rows * stage_size**2

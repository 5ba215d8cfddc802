"""Batches of staged images, and the loop that decodes encoded images into them.

Training, evaluation and streams differ in which rows may fill a slot of a batch, and in how an image is staged.
Decoding, skipping bad images and collecting notes is the same for all.

Legend: B batch, S_h S_w canvas (the smallest that holds every staged image of the batch).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from vitft.data.images import EncodedRow
from vitft.data.staged_store import StagedStore, stamp_of
from vitft.data.staging import MAX_PIXELS, BadImage, decode, decode_to_stage
from vitft.errors import DataError


@dataclass(frozen=True)
class RowNote:
    """A message about one row: why its image cannot be used, or what is odd about it although it is used."""

    index: int
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


@dataclass(frozen=True)
class StagedBatch:
    """Decoded images, staged, before any random augmentation.

    A training batch begins at an even slot of its step, so that it splits no mixing pair.

    Attributes:
        images: uint8 (B, 3, S_h, S_w); image i fills the top left ``sizes[i]``, the rest is 0.
        sizes: int64 (B, 2), height and width within the canvas.
        originals: int64 (B, 2), height and width before staging.
        labels: int64 (B,).
        sample_indices: int64 (B,); in evaluation these are row numbers.
        skipped: bad rows that were skipped to make this batch.
        notes: oddities of images that are used nevertheless; with index -1, of where staged images are kept.
        failure: the bad row that must end the run, if there is one.
        stream_state: how far the worker that made this batch has read its stream.
    """

    images: Tensor
    sizes: Tensor
    originals: Tensor
    labels: Tensor
    sample_indices: Tensor
    skipped: tuple[RowNote, ...] = ()
    notes: tuple[RowNote, ...] = ()
    failure: RowNote | None = None
    stream_state: dict[str, Any] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> StagedBatch:
        """Return the batch on ``device``; the copy may still be running when this returns.

        Sample indices stay on the CPU, so that no draw waits for the device.
        """
        moved = self._map(lambda tensor: tensor.to(device, non_blocking=True))
        return replace(moved, sample_indices=self.sample_indices)

    def pin_memory(self) -> StagedBatch:
        """Return the batch in page-locked memory; the DataLoader calls this."""
        return self._map(lambda tensor: tensor.pin_memory())

    def split(self, size: int) -> list[StagedBatch]:
        """Cut the batch into parts of ``size`` images; ``size`` is even, so that mixing pairs stay together."""
        return [self._map(lambda tensor, s=start: tensor[s : s + size]) for start in range(0, len(self), size)]

    def _map(self, function: Callable[..., Tensor]) -> StagedBatch:
        images, sizes, originals = function(self.images), function(self.sizes), function(self.originals)
        labels, sample_indices = function(self.labels), function(self.sample_indices)
        return replace(
            self, images=images, sizes=sizes, originals=originals, labels=labels, sample_indices=sample_indices
        )

    def raise_failure(self) -> None:
        """Raise a DataError if this batch has a bad image that must end the run."""
        if self.failure is not None:
            raise DataError(
                f"{self.failure.where} cannot be used: {self.failure.text}",
                hint="fix or remove it, or skip such images with --bad-images skip",
            )


@dataclass(frozen=True)
class Decoder:
    """Decodes and stages images into batches.

    Attributes:
        shape: stages an image: upright RGB image -> uint8 (3, h, w).
        skip_bad: skip images that cannot be decoded; otherwise the first of them is the batch's ``failure``.
        max_pixels: the largest width times height of an image.
        stage_size: the size that ``shape`` shrinks to, if large JPEGs may be decoded at a half of theirs or less.
        kept: where staged images are kept, so that they are decoded once.
    """

    shape: Callable[[Image.Image], Tensor]
    skip_bad: bool
    max_pixels: int = MAX_PIXELS
    stage_size: int | None = None
    kept: StagedStore | None = None

    def batch(self, slots: Iterable[tuple[int, Iterable[EncodedRow]]]) -> StagedBatch:
        """Return a batch with the first good image for each sample index.

        Args:
            slots: (sample index, rows to try in this order); if none of the rows is good, the slot is left out.
        """
        used: list[int] = []
        labels: list[int] = []
        pixels: list[Tensor] = []
        originals: list[tuple[int, int]] = []
        skipped: list[RowNote] = []
        notes: list[RowNote] = []
        for sample_index, candidates in slots:
            for row in candidates:
                try:
                    made, original, found = self._staged(row)
                except BadImage as error:
                    bad = RowNote(row.index, row.where(), error.wrong)
                    if not self.skip_bad:
                        return failed(bad)
                    skipped.append(bad)
                    continue
                notes += [RowNote(row.index, row.where(), note) for note in found]
                pixels.append(made)
                originals.append(original)
                labels.append(row.label())
                used.append(sample_index)
                break
        if self.kept is not None and (news := self.kept.take_news()):
            notes.append(RowNote(-1, self.kept.name, news))
        return replace(collate(pixels, originals, labels, used), skipped=tuple(skipped), notes=tuple(notes))

    def _staged(self, row: EncodedRow) -> tuple[Tensor, tuple[int, int], tuple[str, ...]]:
        """Return the pixels of a row, the original's height and width, and notes; from the store if it has them."""
        encoded = row.encoded()
        stamp = stamp_of(encoded) if self.kept is not None else None
        if self.kept is not None and (found := self.kept.find(row.index, stamp)):
            return *found, ()
        if self.stage_size is None:
            image, notes = decode(encoded, self.max_pixels, row.white_level)
            original = (image.height, image.width)
        else:
            image, original, notes = decode_to_stage(encoded, self.stage_size, self.max_pixels, row.white_level)
        pixels = self.shape(image)
        if self.kept is not None and not notes:
            self.kept.keep(row.index, stamp, pixels, original)
        return pixels, original, notes


def collate(
    pixels: Sequence[Tensor], originals: Sequence[tuple[int, int]], labels: Sequence[int], sample_indices: Sequence[int]
) -> StagedBatch:
    """Lay staged images on one canvas."""
    sizes = torch.tensor([each.shape[-2:] for each in pixels], dtype=torch.int64).reshape(-1, 2)
    height, width = sizes.amax(0).tolist() if len(pixels) else (1, 1)
    if all(each.shape[-2:] == (height, width) for each in pixels) and pixels:
        images = torch.stack(list(pixels))
    else:
        images = torch.zeros(len(pixels), 3, height, width, dtype=torch.uint8)
        for canvas, each, (h, w) in zip(images, pixels, sizes.tolist(), strict=True):
            canvas[:, :h, :w] = each
    return StagedBatch(
        images,
        sizes,
        torch.tensor(originals, dtype=torch.int64).reshape(-1, 2),
        torch.tensor(labels, dtype=torch.int64),
        torch.tensor(sample_indices, dtype=torch.int64),
    )


def failed(bad: RowNote) -> StagedBatch:
    """Return an empty batch that reports a bad row to the main process, which stops."""
    return replace(collate([], [], [], []), failure=bad)

"""A batch of staged images, and the one loop that makes it of encoded ones.

Training, evaluation and streams differ in which rows they offer for a place of a batch, and in the shape that an image
is given; decoding, passing over what cannot be decoded, and noting what was odd is the same for all.

Shapes: B images of a batch, S_h x S_w canvas: the smallest rectangle that holds every staged image of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from vitft.data.images import EncodedRow
from vitft.data.staging import MAX_PIXELS, BadImage, decode
from vitft.errors import DataError


@dataclass(frozen=True)
class RowNote:
    """What is to be said of a row: why its image cannot be used, or what is odd about one that is used."""

    index: int
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


@dataclass(frozen=True)
class StagedBatch:
    """Images before anything random has happened to them.

    A training batch begins at an even slot of its step, so that it splits no pair that is mixed.

    Attributes:
        images: uint8 (B, 3, S_h, S_w); image i fills the top left ``sizes[i]``, the rest is 0.
        sizes: int64 (B, 2), height and width within the canvas.
        originals: int64 (B, 2), height and width before staging.
        labels: int64 (B,).
        sample_indices: int64 (B,), places in the order of samples, or row numbers in evaluation.
        skipped: bad rows that were passed over to make this batch.
        notes: what was noticed about images that are used all the same.
        failure: the bad row that must end the run, if one was met.
        stream_state: where the worker that made it stands in its stream.
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
        """Return the batch on ``device``; the copy may still be under way when this returns.

        Sample indices stay on the CPU, where no draw waits for the device.
        """
        moved = self._map(lambda tensor: tensor.to(device, non_blocking=True))
        return replace(moved, sample_indices=self.sample_indices)

    def pin_memory(self) -> StagedBatch:
        """Return the batch in page-locked memory (called by the DataLoader)."""
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
        """Raise DataError if this batch met an image that must end the run."""
        if self.failure is not None:
            raise DataError(
                f"{self.failure.where} cannot be used: {self.failure.text}",
                hint="mend or remove it, or pass over such images with --bad-images skip",
            )


@dataclass(frozen=True)
class Decoder:
    """Makes batches of encoded images.

    Attributes:
        shape: upright RGB image -> its pixels, uint8 (3, h, w).
        skip_bad: pass over images that cannot be decoded; otherwise the first of them is the batch's ``failure``.
        max_pixels: width times height that an image may have.
    """

    shape: Callable[[Image.Image], Tensor]
    skip_bad: bool
    max_pixels: int = MAX_PIXELS

    def batch(self, places: Iterable[tuple[int, Iterable[EncodedRow]]]) -> StagedBatch:
        """Return a batch of the first good image of each place.

        Args:
            places: (sample index, rows that may stand there, in this order); a place without a good one stays empty.
        """
        used: list[int] = []
        labels: list[int] = []
        pixels: list[Tensor] = []
        originals: list[tuple[int, int]] = []
        skipped: list[RowNote] = []
        notes: list[RowNote] = []
        for sample_index, candidates in places:
            for row in candidates:
                try:
                    image, found = decode(row.encoded(), self.max_pixels, row.white_level)
                    made = self.shape(image)
                except BadImage as error:
                    bad = RowNote(row.index, row.where(), error.wrong)
                    if not self.skip_bad:
                        return failed(bad)
                    skipped.append(bad)
                    continue
                notes += [RowNote(row.index, row.where(), note) for note in found]
                pixels.append(made)
                originals.append((image.height, image.width))
                labels.append(row.label())
                used.append(sample_index)
                break
        return replace(collate(pixels, originals, labels, used), skipped=tuple(skipped), notes=tuple(notes))


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
    """Return the empty batch that carries a bad row to the process that must stop."""
    return replace(collate([], [], [], []), failure=bad)

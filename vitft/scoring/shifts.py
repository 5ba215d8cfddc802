"""Images moved by a few pixels, to see whether a prediction depends on where its object stands."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from vitft.errors import UsageError
from vitft.recipe.sizes import show_size


def shifted(images: Tensor, pixels: int) -> Iterator[Tensor]:
    """Yield images (B, C, H, W) moved down, up, right and left; what moves in at a border repeats it.

    The part of predictions that stay is a consistency in the sense of Zhang (arXiv:1904.11486, section 4.1), there of
    random shifts by up to 8 pixels, here of these four against the image as it is.
    """
    for dim in (2, 3):
        places = torch.arange(images.shape[dim], device=images.device)
        for step in (-pixels, pixels):
            yield images.index_select(dim, (places + step).clamp(0, len(places) - 1))


def check_shift(pixels: int, size: tuple[int, int]) -> None:
    """Make sure that something of an image of ``size`` (height, width) stays in sight.

    Raises:
        UsageError: if nothing does, or if the shift is negative.
    """
    if not 0 <= pixels < min(size):
        raise UsageError(
            f"images of {show_size(size)} cannot be shifted by {pixels} pixels",
            allowed=f"0 (not at all) to {min(size) - 1}",
            hint="--shift 2",
        )

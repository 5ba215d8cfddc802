"""Shift images by a few pixels, to test whether predictions depend on where the object is."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from vitft.errors import UsageError
from vitft.recipe.sizes import show_size


def shifted(images: Tensor, pixels: int) -> Iterator[Tensor]:
    """Yield images (B, C, H, W) moved down, up, right and left, with border pixels repeated.

    The share of unchanged predictions is a shift consistency as in Zhang (arXiv:1904.11486, section 4.1), who compares
    random shifts of up to 8 pixels; here these four are compared with the original image.
    """
    for dim in (2, 3):
        places = torch.arange(images.shape[dim], device=images.device)
        for step in (-pixels, pixels):
            yield images.index_select(dim, (places + step).clamp(0, len(places) - 1))


def check_shift(pixels: int, size: tuple[int, int]) -> None:
    """Check that a shift leaves part of an image of ``size`` (height, width) visible.

    Raises:
        UsageError: if it does not, or is negative.
    """
    if not 0 <= pixels < min(size):
        raise UsageError(
            f"images of {show_size(size)} cannot be shifted by {pixels} pixels",
            allowed=f"0 (no shift) to {min(size) - 1}",
            hint="--shift 2",
        )

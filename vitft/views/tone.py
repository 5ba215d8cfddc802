"""Operations on the levels of single pixels, each equal to Pillow's.

Levels are whole numbers from 0 to 255 in float32, red, green and blue. Every operation takes them and returns them,
because what follows reads them as an image: rounding happens where Pillow rounds, and down, as there.

Legend: B batch, H W pixels; levels (B, 3, H, W), one number per image (B,).
"""

from __future__ import annotations

import torch
from torch import Tensor


def blend(levels: Tensor, towards: Tensor, factors: Tensor) -> Tensor:
    """Return ``towards`` at factor 0, the image at 1, and beyond it above 1, as ``PIL.Image.blend``."""
    mixed = towards + factors[:, None, None, None] * (levels - towards)
    return mixed.clamp_(0, 255).floor_()


def grey_levels(levels: Tensor) -> Tensor:
    """Return the luma of ITU-R 601, as Pillow's mode L, shape (B, 1, H, W)."""
    red, green, blue = levels.unbind(1)
    # In 1/65536; every sum is below 2^24, so float32 has it exactly.
    luma = (19595 * red + 38470 * green + 7471 * blue + 32768) / 65536
    return luma.floor_()[:, None]


def grayscale(levels: Tensor) -> Tensor:
    """Take the colour away."""
    return grey_levels(levels).expand_as(levels)


def brightness(levels: Tensor, factors: Tensor) -> Tensor:
    """Blend with black (``ImageEnhance.Brightness``)."""
    return blend(levels, torch.zeros_like(levels), factors)


def saturation(levels: Tensor, factors: Tensor) -> Tensor:
    """Blend with the grey image (``ImageEnhance.Color``)."""
    return blend(levels, grey_levels(levels), factors)


def contrast(levels: Tensor, factors: Tensor) -> Tensor:
    """Blend with the mean of the grey image (``ImageEnhance.Contrast``)."""
    grey = grey_levels(levels).flatten(1)
    total, count = grey.to(torch.int64).sum(1), grey.shape[1]  # whole numbers: the same sum in any order
    mean = torch.div(2 * total + count, 2 * count, rounding_mode="floor")  # rounded half up
    return blend(levels, mean.to(levels.dtype)[:, None, None, None], factors)


def invert(levels: Tensor) -> Tensor:
    """Return the negative (``ImageOps.invert``)."""
    return 255 - levels


def solarize(levels: Tensor, thresholds: Tensor) -> Tensor:
    """Invert the levels from the threshold on (``ImageOps.solarize``)."""
    return torch.where(levels < thresholds[:, None, None, None], levels, 255 - levels)


def solarize_add(levels: Tensor, additions: Tensor) -> Tensor:
    """Add to the levels below 128."""
    return torch.where(levels < 128, (levels + additions[:, None, None, None]).clamp_(max=255), levels)


def posterize(levels: Tensor, bits: Tensor) -> Tensor:
    """Keep the highest bits of each level (``ImageOps.posterize``)."""
    steps = torch.exp2(8 - bits)[:, None, None, None]
    return torch.floor(levels / steps) * steps


def autocontrast(levels: Tensor) -> Tensor:
    """Stretch each channel from its darkest to 0 and its brightest to 255 (``ImageOps.autocontrast``)."""
    low, high = levels.amin((2, 3), keepdim=True), levels.amax((2, 3), keepdim=True)
    stretched = torch.floor((levels - low) * 255 / (high - low).clamp(min=1))
    return torch.where(high > low, stretched, levels)


def equalize(levels: Tensor) -> Tensor:
    """Give each channel about as many pixels at every level (``ImageOps.equalize``)."""
    whole = levels.flatten(2).to(torch.int64)
    counts = torch.zeros(*whole.shape[:2], 256, dtype=torch.int64, device=levels.device)
    counts.scatter_add_(2, whole, torch.ones_like(whole))
    brightest = counts.gather(2, whole.amax(2, keepdim=True))
    step = (whole.shape[2] - brightest) // 255
    before = counts.cumsum(2) - counts  # pixels below each level
    table = ((step // 2 + before) // step.clamp(min=1)).clamp_(max=255)
    table = torch.where(step > 0, table, torch.arange(256, device=levels.device))
    return table.gather(2, whole).view_as(levels).to(levels.dtype)

"""Random erasing.

Legend: B batch, C channels, H W pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_ERASE_RATIO = 0.3  # smallest height / width of an erased rectangle; the largest is its inverse (arXiv:1708.04896)


def erase(pixel_values: Tensor, draws: Tensor, *, probability: float, area: tuple[float, float]) -> Tensor:
    """Set a random rectangle to 0, the mean colour of normalised images (Zhong et al., arXiv:1708.04896).

    Args:
        pixel_values: shape (B, C, H, W).
        draws: uniform in [0, 1), shape (B, 5): whether to erase, area, shape, top, left.
        probability: the chance that an image has a rectangle erased.
        area: smallest and largest erased fraction of the image.

    Returns:
        A tensor like ``pixel_values``. The aspect ratio is log-uniform, clamped so that the rectangle fits.
    """
    height, width = pixel_values.shape[-2:]
    areas = area[0] + (area[1] - area[0]) * draws[:, 1]
    relative = torch.exp(math.log(_ERASE_RATIO) * (1 - 2 * draws[:, 2])) * (width / height)
    relative = torch.minimum(torch.maximum(relative, areas), 1 / areas)
    rows = _interval((areas * relative).sqrt(), draws[:, 3], height)
    columns = _interval((areas / relative).sqrt(), draws[:, 4], width)
    erased = rows[:, :, None] & columns[:, None, :] & (draws[:, 0] < probability)[:, None, None]
    return pixel_values.masked_fill(erased[:, None], 0.0)


def _interval(extents: Tensor, places: Tensor, length: int) -> Tensor:
    """Return which of ``length`` pixels lie in each interval, bool (B, length); ``extents`` are fractions of it."""
    extents = torch.round(extents * length).clamp(max=length)
    starts = torch.floor(places * (length - extents + 1))
    pixels = torch.arange(length, device=extents.device)
    return (pixels >= starts[:, None]) & (pixels < (starts + extents)[:, None])

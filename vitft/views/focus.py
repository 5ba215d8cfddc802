"""Operations that mix a pixel with its neighbours: sharpness and blur. Levels are those of ``vitft.views.tone``.

Legend: B batch, H W pixels; levels (B, 3, H, W).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vitft.views.tone import blend


def sharpness(levels: Tensor, factors: Tensor) -> Tensor:
    """Blend with a smoothed image, whose border is the image's own (``ImageEnhance.Sharpness``).

    Args:
        levels: shape (B, 3, H, W).
        factors: 0 smooths, 1 leaves the image as it is, 2 sharpens; shape (B,).
    """
    if min(levels.shape[-2:]) < 3:
        return levels  # all of it is border
    inner = levels[..., 1:-1, 1:-1]
    smooth = levels.clone()  # the weights of a pixel and its eight neighbours: 5 and 1 each, over 13
    smooth[..., 1:-1, 1:-1] = ((9 * F.avg_pool2d(levels, 3, stride=1) + 4 * inner) / 13).round_()
    return blend(levels, smooth, factors)


def gaussian_blur(levels: Tensor, radii: Tensor) -> Tensor:
    """Blur each image by its own Gaussian; beyond the border the outermost pixels go on.

    Pillow's ``GaussianBlur`` approximates this by three box blurs. As in resampling, each image has one matrix for rows
    and one for columns.

    Args:
        levels: shape (B, 3, H, W).
        radii: standard deviations in pixels, above 0, shape (B,).
    """
    rows, columns = (_gaussian(radii, length) for length in levels.shape[-2:])
    with torch.autocast(levels.device.type, enabled=False):
        return (rows[:, None] @ levels @ columns.mT[:, None]).round_()


def _gaussian(radii: Tensor, length: int) -> Tensor:
    """Return the matrix that blurs one axis of each image, shape (B, length, length)."""
    reach = length  # beyond any kernel: radii are a few pixels
    places = torch.arange(length, device=radii.device, dtype=torch.float32)
    sources = torch.arange(-reach, length + reach, device=radii.device, dtype=torch.float32)
    distances = (places[:, None] - sources) / radii[:, None, None]
    weights = torch.exp(-0.5 * distances.square())
    weights /= weights.sum(2, keepdim=True)
    inside = weights[..., reach : reach + length].clone()
    inside[..., 0] += weights[..., :reach].sum(2)
    inside[..., -1] += weights[..., reach + length :].sum(2)
    return inside

"""Operations that mix a pixel with its neighbours: sharpness and blur. Levels are those of ``vitft.views.tone``.

Legend: B batch, H W pixels; levels (B, 3, H, W).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vitft.views.tone import blend

_REACH = 8  # pixels on each side of a blur: four standard deviations of the largest


def sharpness(levels: Tensor, factors: Tensor) -> Tensor:
    """Blend with a smoothed image, whose border is the image's own (``ImageEnhance.Sharpness``).

    Args:
        levels: shape (B, 3, H, W).
        factors: 0 smooths, 1 leaves the image as it is, 2 sharpens; shape (B,).
    """
    if min(levels.shape[-2:]) < 3:
        return levels  # all of it is border
    rows = levels[..., :-2, :] + levels[..., 1:-1, :] + levels[..., 2:, :]
    squares = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]  # each pixel with its eight neighbours
    smooth = levels.clone()
    smooth[..., 1:-1, 1:-1] = ((squares + 4 * levels[..., 1:-1, 1:-1]) / 13).round_()
    return blend(levels, smooth, factors)


def gaussian_blur(levels: Tensor, radii: Tensor) -> Tensor:
    """Blur each image by its own Gaussian; beyond the border the outermost pixels go on.

    Pillow's ``GaussianBlur`` approximates this by three box blurs.

    Args:
        levels: shape (B, 3, H, W).
        radii: standard deviations in pixels, above 0 and at most 2, shape (B,).
    """
    num_images, channels, height, width = levels.shape
    offsets = torch.arange(-_REACH, _REACH + 1, device=levels.device, dtype=torch.float32)
    kernels = torch.exp(-0.5 * (offsets / radii[:, None]).square())
    kernels = (kernels / kernels.sum(1, keepdim=True)).repeat_interleave(channels, 0)[:, None]  # (B * 3, 1, 17)
    padded = F.pad(levels, (_REACH,) * 4, mode="replicate").flatten(0, 1)[None]
    with torch.autocast(levels.device.type, enabled=False):  # each channel of each image by its own kernel
        down = F.conv2d(padded, kernels[:, :, :, None], groups=num_images * channels)
        across = F.conv2d(down, kernels[:, :, None, :], groups=num_images * channels)
    return across.view(num_images, channels, height, width).round_()

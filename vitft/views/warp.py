"""Affine changes of an image: shear, translation, rotation; all images of a batch in one sampling, each its own.

A matrix (2, 3) says, as in ``PIL.Image.transform``, from where in the image a pixel of the view is taken:
(x, y) = matrix @ (x of the view, y of the view, 1), in pixels from the top left corner.

Legend: B batch, H W pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def shear_x(factors: Tensor, size: tuple[int, int]) -> Tensor:
    """Return matrices (B, 2, 3) that shift each row by ``factors`` times its distance from the top edge."""
    return _matrices(factors, {(0, 1): factors})


def shear_y(factors: Tensor, size: tuple[int, int]) -> Tensor:
    """Return matrices (B, 2, 3) that shift each column by ``factors`` times its distance from the left edge."""
    return _matrices(factors, {(1, 0): factors})


def translate_x(parts: Tensor, size: tuple[int, int]) -> Tensor:
    """Return matrices (B, 2, 3) that shift to the left by parts of the width."""
    return _matrices(parts, {(0, 2): parts * size[1]})


def translate_y(parts: Tensor, size: tuple[int, int]) -> Tensor:
    """Return matrices (B, 2, 3) that shift upwards by parts of the height."""
    return _matrices(parts, {(1, 2): parts * size[0]})


def rotate(degrees: Tensor, size: tuple[int, int]) -> Tensor:
    """Return matrices (B, 2, 3) that turn anticlockwise about the centre."""
    cos, sin = torch.cos(torch.deg2rad(degrees)), torch.sin(torch.deg2rad(degrees))
    y, x = size[0] / 2, size[1] / 2
    across = {(0, 0): cos, (0, 1): -sin, (0, 2): x - cos * x + sin * y}
    return _matrices(degrees, across | {(1, 0): sin, (1, 1): cos, (1, 2): y - sin * x - cos * y})


def warp(levels: Tensor, matrices: Tensor, fill: Tensor) -> Tensor:
    """Sample each image bilinearly through its matrix.

    Args:
        levels: shape (B, 3, H, W).
        matrices: shape (B, 2, 3).
        fill: the colour where a view shows nothing of the image, shape (3,).

    Returns:
        Whole levels like ``levels``.
    """
    height, width = levels.shape[-2:]
    y = torch.arange(height, device=levels.device, dtype=torch.float32) + 0.5
    x = torch.arange(width, device=levels.device, dtype=torch.float32) + 0.5
    across, down, offsets = matrices[:, :, None, None, :].unbind(-1)  # (B, 2, 1, 1)
    places = across * x + down * y[:, None] + offsets  # (B, 2, H, W), x and y
    limits = torch.tensor([width, height], device=levels.device, dtype=torch.float32)[:, None, None]
    inside = ((places >= 0) & (places < limits)).all(1, keepdim=True)
    grid = (2 * places / limits - 1).permute(0, 2, 3, 1)
    sampled = F.grid_sample(levels, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return torch.where(inside, sampled.round_(), fill[:, None, None])


def _matrices(like: Tensor, entries: dict[tuple[int, int], Tensor]) -> Tensor:
    """Return identities with some entries replaced."""
    matrices = torch.eye(2, 3, dtype=like.dtype, device=like.device).repeat(len(like), 1, 1)
    for (row, column), values in entries.items():
        matrices[:, row, column] = values
    return matrices

"""Resample position tables from one grid of patches to another.

A table has one entry per position in a grid (rows, columns), in raster order, or one per offset between two positions.
Every method is separable, so each is a product with one matrix for the rows and one for the columns: the same on any
device, and differentiable.

Legend: h w old grid, H W new grid, D width, K heads.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vitft.architectures.family import Size, Table
from vitft.recipe.choices import ResizeMethod

_TORCH_MODES: dict[str, dict[str, Any]] = {
    "bicubic": {"mode": "bicubic", "antialias": True},
    "bicubic-plain": {"mode": "bicubic"},
    "bilinear": {"mode": "bilinear"},
    "corners": {"mode": "bilinear", "align_corners": True},
}


def resample(table: Table, values: Tensor, old: Size, new: Size, method: ResizeMethod) -> Tensor:
    """Resample a family's table to another grid.

    Raises:
        ValueError: if the table does not fit the old grid.
    """
    method = method_for(table, method)
    match table.entries:
        case "places":
            return resample_table(values, old, new, prefix=table.fixed, method=method)
        case "offsets":
            return resample_relative_table(values, old, new, extra=table.fixed, method=method)
        case "distances":
            return resample_distance_table(values, old, new, method=method)


def method_for(table: Table, wanted: ResizeMethod) -> ResizeMethod:
    """Return the method for this table if ``wanted`` is chosen for the whole model."""
    return "bicubic" if wanted == "geometric" and table.entries == "places" else wanted


def resample_table(
    table: Tensor, old: tuple[int, int], new: tuple[int, int], *, prefix: int = 0, method: ResizeMethod = "bicubic"
) -> Tensor:
    """Resample a table with one row per position (ViT, arXiv:2010.11929, section 3.2).

    Args:
        table: shape (..., prefix + h * w, D).
        old, new: (rows, columns) of the grids.
        prefix: number of rows before the grid, for class and other tokens; they do not change.
        method: see :data:`~vitft.recipe.choices.ResizeMethod`; all but ``geometric``.

    Returns:
        Shape (..., prefix + H * W, D), in the dtype of ``table``, computed in float32 or better.

    Raises:
        ValueError: if the table does not fit the old grid, or the method is ``geometric``.
    """
    if method == "geometric":
        raise ValueError("geometric is for tables of offsets, not of positions")
    _check_rows(table.shape[-2], prefix + old[0] * old[1], f"{prefix} + {old[0]}x{old[1]}")
    if old == new:
        return table
    places = _resample(table[..., prefix:, :].reshape(*table.shape[:-2], *old, -1), new, method).flatten(-3, -2)
    return torch.cat([table[..., :prefix, :], places], dim=-2)


def resample_relative_table(
    table: Tensor, old: tuple[int, int], new: tuple[int, int], *, extra: int = 0, method: ResizeMethod = "bicubic"
) -> Tensor:
    """Resample a table with one row per offset between positions (BEiT, arXiv:2106.08254; Swin, arXiv:2103.14030).

    Args:
        table: shape ((2h - 1)(2w - 1) + extra, K), offsets from (1 - h, 1 - w) to (h - 1, w - 1).
        old, new: (rows, columns) of the grids or windows.
        extra: number of rows after the offsets, for the class token; they do not change.
        method: see :data:`~vitft.recipe.choices.ResizeMethod`.

    Returns:
        Shape ((2H - 1)(2W - 1) + extra, K).

    Raises:
        ValueError: if the table does not fit the old grid.
    """
    offsets_old, offsets_new = _offsets(old), _offsets(new)
    count = offsets_old[0] * offsets_old[1]
    _check_rows(len(table), count + extra, f"the offsets of {old[0]}x{old[1]} + {extra}")
    if old == new:
        return table
    offsets = _resample(table[:count].reshape(*offsets_old, -1), offsets_new, method).flatten(0, 1)
    return torch.cat([offsets, table[count:]])


def resample_distance_table(
    table: Tensor, old: tuple[int, int], new: tuple[int, int], *, method: ResizeMethod = "bicubic"
) -> Tensor:
    """Resample a table with one entry per absolute offset (LeViT's attention biases, arXiv:2104.01136).

    It is resampled as a symmetric table of signed offsets, so that offset 0 stays offset 0.

    Args:
        table: shape (K, h * w), entry (|dy|, |dx|) in raster order.
        old, new: (rows, columns) of the grids.
        method: see :data:`~vitft.recipe.choices.ResizeMethod`.

    Returns:
        Shape (K, H * W).

    Raises:
        ValueError: if the table does not fit the old grid.
    """
    _check_rows(table.shape[-1], old[0] * old[1], f"{old[0]}x{old[1]}")
    if old == new:
        return table
    rows, columns = (torch.arange(1 - side, side, device=table.device).abs() for side in old)
    signed = table.reshape(-1, *old)[:, rows][:, :, columns]  # (K, 2h - 1, 2w - 1)
    resampled = _resample(signed[..., None], _offsets(new), method)[..., 0]
    return resampled[:, new[0] - 1 :, new[1] - 1 :].flatten(1)


@cache
def axis_weights(old: int, new: int, method: ResizeMethod) -> Tensor:
    """Return the matrix that resamples one axis, float64 (new, old); its rows sum to 1."""
    if old > 1 and method == "geometric":
        return _geometric_weights(old, new)
    if old == 1 or (method == "corners" and new == 1):
        # A single position is repeated; many become their mean, where torch's corners would take the first.
        return torch.full((new, old), 1 / old, dtype=torch.float64)
    places = torch.eye(old, dtype=torch.float64)[None, None]  # an image with one position per column
    return F.interpolate(places, size=(new, old), **_TORCH_MODES[method])[0, 0]


def _geometric_weights(old: int, new: int) -> Tensor:
    """Interpolate linearly between offsets that grow geometrically from the middle (BEiT's fine-tuning code).

    The old offset k lies at the new offset 1 + q + ... + q^(k - 1); q makes the outermost offsets coincide.
    """
    reach = new // 2
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        ratio = (low + high) / 2
        low, high = (low, ratio) if (1 - ratio ** (old // 2)) / (1 - ratio) > reach else (ratio, high)
    right = torch.cumsum(ratio ** torch.arange(old // 2, dtype=torch.float64), 0)
    at = torch.cat([-right.flip(0), torch.zeros(1, dtype=torch.float64), right])
    wanted = torch.arange(-reach, reach + 1, dtype=torch.float64).clamp(at[0], at[-1])
    upper = torch.searchsorted(at, wanted).clamp(1, old - 1)
    part = (wanted - at[upper - 1]) / (at[upper] - at[upper - 1])
    weights = torch.zeros(new, old, dtype=torch.float64)
    weights.scatter_(1, upper[:, None], part[:, None])
    weights.scatter_(1, upper[:, None] - 1, 1 - part[:, None])
    return weights


def _resample(grid: Tensor, new: tuple[int, int], method: ResizeMethod) -> Tensor:
    """Resample (..., h, w, D) to (..., H, W, D), in float32 or better, also under autocast."""
    values = grid.to(torch.promote_types(grid.dtype, torch.float32))
    rows, columns = (
        axis_weights(old, wanted, method).to(values.device, values.dtype)
        for old, wanted in zip(grid.shape[-3:-1], new, strict=True)
    )
    with torch.autocast(grid.device.type, enabled=False):
        tall = torch.einsum("yh,...hwd->...ywd", rows, values)  # one axis at a time: the full matrix would be large
        return torch.einsum("xw,...ywd->...yxd", columns, tall).to(grid.dtype)


def _offsets(grid: tuple[int, int]) -> tuple[int, int]:
    return 2 * grid[0] - 1, 2 * grid[1] - 1


def _check_rows(found: int, expected: int, what: str) -> None:
    if found != expected:
        raise ValueError(f"the table has {found} entries, not the {expected} of {what}")

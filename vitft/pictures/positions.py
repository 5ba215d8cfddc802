"""Picture a model's position tables, which have one entry per position or per offset between two positions.

Legend: h w grid, D width, A heads.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from vitft.architectures.blocks import position_tables
from vitft.architectures.family import Size, Table
from vitft.pictures.token_places import fill_grid

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MOST_TILES = 14
"""Most tiles per side of a similarity picture; larger grids show only every second position, or every third, ..."""


@dataclass(frozen=True)
class Positions:
    """The picture of one position table.

    Attributes:
        name: name of the parameter, or of the network that computes it.
        kind: ``similarity`` of positions, or attention ``bias`` by offset.
        grid: (rows, columns) of positions.
        rows, columns: rows and columns that have a tile; all of them if the grid has at most 14 per side.
        values: for ``similarity``, cosines (tile row, tile column, h, w), without special tokens; for ``bias``,
            values added to the attention logits, (A, offsets down, offsets to the right).
        row_column: share of the table's variance that a row term plus a column term explains.
        signed: whether offsets are signed, with 0 in the middle, or absolute, from 0 up.
    """

    name: str
    kind: Literal["similarity", "bias"]
    grid: Size
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    values: Tensor
    row_column: float
    signed: bool = True


def position_similarity(
    table: Tensor, grid: Size, rows: tuple[int, ...] | None = None, columns: tuple[int, ...] | None = None
) -> Tensor:
    """Return the cosine similarity between positions (ViT, arXiv:2010.11929, figure 7, centre).

    Args:
        table: one row per position in raster order, shape (h * w, D), without class tokens.
        grid: (h, w).
        rows, columns: positions to compare with all others; by default every one.

    Returns:
        float64 (rows, columns, h, w); element [i, j, k, l] compares positions (i, j) and (k, l).
    """
    places = table.detach().double().cpu().reshape(*grid, -1)
    places = places / torch.linalg.vector_norm(places, dim=-1, keepdim=True).clamp_min(1e-12)
    chosen = places if rows is None or columns is None else places[list(rows)][:, list(columns)]
    return torch.einsum("ijd,kld->ijkl", chosen, places)


def row_column_share(places: Tensor) -> float:
    """Return the share of a table's variance, 0 to 1, that the sum of a row term and a column term explains.

    Args:
        places: the table on its grid, shape (h, w, D).
    """
    places = places.detach().double().cpu()
    centred = places - places.mean((0, 1))
    additive = centred.mean(0, keepdim=True) + centred.mean(1, keepdim=True)
    total = float((centred**2).sum())
    return 1 - float(((centred - additive) ** 2).sum()) / total if total else 0.0


def rotary_similarity(cosines: Tensor, sines: Tensor) -> Tensor:
    """Return how similar two equal vectors stay after rotation to each pair of positions.

    The mean over frequencies of cos(angle - angle'). This is the cosine similarity of the rotated vectors if all
    pairs of dimensions have the same length (RoFormer, arXiv:2104.09864, equation 16).

    Args:
        cosines, sines: of the angles at each position, shape (N, D).

    Returns:
        float64 (N, N), 1 on the diagonal.
    """
    turned = torch.cat([cosines, sines], -1).detach().double().cpu()
    return turned @ turned.T / cosines.shape[-1]


def positions_of(model: PreTrainedModel, image_size: Size) -> list[Positions]:
    """Return the picture of each position table in a model, empty if it has none.

    Args:
        model: the classifier.
        image_size: (height, width) that it runs at.
    """
    found = [
        _of_table(name, attrgetter(name)(model), table, grid)
        for name, table, grid in position_tables(model, image_size)
    ]
    for name, module in model.named_modules():
        if hasattr(module, "continuous_position_bias_mlp"):  # SwinV2
            found.append(_of_network(name, module))
        elif hasattr(module, "inv_freq") and hasattr(model.config, "patch_size"):  # rotary: DINOv3
            found.append(_of_rotation(name, module, image_size))
    return found


def _of_table(name: str, parameter: Tensor, table: Table, grid: Size) -> Positions:
    short = re.sub(r"^\w+\.(encoder\.)?", "", name)
    values = parameter.detach().float().cpu()
    if table.entries == "places":
        places = values.reshape(-1, values.shape[-1])[-grid[0] * grid[1] :]
        rows, columns = (tuple(range(0, side, -(-side // MOST_TILES))) for side in grid)
        similarity = position_similarity(places, grid, rows, columns)
        return Positions(
            short, "similarity", grid, rows, columns, similarity, row_column_share(places.reshape(*grid, -1))
        )
    if table.entries == "offsets":
        down, right = (2 * side - 1 for side in grid)
        bias = values[: down * right].T.reshape(-1, down, right)
        return Positions(short, "bias", grid, (), (), bias, row_column_share(bias.movedim(0, -1)))
    bias = values.reshape(-1, *grid)
    return Positions(short, "bias", grid, (), (), bias, row_column_share(bias.movedim(0, -1)), signed=False)


@torch.no_grad()
def _of_rotation(name: str, module: nn.Module, image_size: Size) -> Positions:
    """Picture a rotary embedding, from the angles that it gives each patch of an image."""
    cosines, sines = module(torch.zeros(1, 3, *image_size, device=next(module.buffers()).device))
    grid = fill_grid(len(cosines), image_size)
    assert grid is not None
    rows, columns = (tuple(range(0, side, -(-side // MOST_TILES))) for side in grid)
    similarity = rotary_similarity(cosines, sines).reshape(*grid, *grid)[list(rows)][:, list(columns)]
    places = torch.cat([cosines, sines], -1).reshape(*grid, -1)
    return Positions(name, "similarity", grid, rows, columns, similarity, row_column_share(places))


@torch.no_grad()
def _of_network(name: str, module: nn.Module) -> Positions:
    """Picture the biases that SwinV2's network computes (arXiv:2111.09883, section 3.3)."""
    attention: Any = module
    bias = 16 * torch.sigmoid(attention.continuous_position_bias_mlp(attention.relative_coords_table))[0]
    bias = bias.movedim(-1, 0).float().cpu()
    grid = ((bias.shape[1] + 1) // 2, (bias.shape[2] + 1) // 2)
    short = re.sub(r"^\w+\.(encoder\.)?", "", name) + ".continuous_position_bias_mlp"
    return Positions(short, "bias", grid, (), (), bias, row_column_share(bias.movedim(0, -1)))

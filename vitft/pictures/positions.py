"""What a model knows of places: its position tables, one entry per place or per offset between two places.

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
"""Tiles a side of a picture of similarities; of larger grids every so many-th place is shown."""


@dataclass(frozen=True)
class Positions:
    """The picture of one position table.

    Attributes:
        name: of the parameter, or of the network that makes it.
        kind: ``similarity`` of each place with all others, or ``bias`` of attention by offset.
        grid: (rows, columns) of places.
        rows, columns: of the places that have a tile; all of them in a grid of at most 14 a side.
        values: of ``similarity``, cosines (tile row, tile column, h, w), fixed tokens excluded; of ``bias``, what is
            added to the attention's logits, (A, offsets down, offsets to the right).
        row_column: part of the table's variance that terms of the row and of the column alone explain.
        signed: whether offsets are signed, with 0 in the middle, or only distances from 0 on.
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
    """Return the cosine similarity of positions with all others (ViT, arXiv:2010.11929, figure 7, centre).

    Args:
        table: one row per place in raster order, shape (h * w, D); class tokens are not part of it.
        grid: (h, w).
        rows, columns: of the places to compare with all; every one when not given.

    Returns:
        float64 (rows, columns, h, w); element [i, j, k, l] compares the places (i, j) and (k, l).
    """
    places = table.detach().double().cpu().reshape(*grid, -1)
    places = places / torch.linalg.vector_norm(places, dim=-1, keepdim=True).clamp_min(1e-12)
    chosen = places if rows is None or columns is None else places[list(rows)][:, list(columns)]
    return torch.einsum("ijd,kld->ijkl", chosen, places)


def row_column_share(places: Tensor) -> float:
    """Return how much of a table's variance a sum of a row's and a column's term explains, from 0 to 1.

    Args:
        places: shape (h, w, D).
    """
    places = places.detach().double().cpu()
    centred = places - places.mean((0, 1))
    additive = centred.mean(0, keepdim=True) + centred.mean(1, keepdim=True)
    total = float((centred**2).sum())
    return 1 - float(((centred - additive) ** 2).sum()) / total if total else 0.0


def rotary_similarity(cosines: Tensor, sines: Tensor) -> Tensor:
    """Return how alike two equal vectors remain after rotary positions turned them, for each pair of places.

    The mean over frequencies of cos(angle - angle'), which is the cosine similarity of the turned vectors where all
    pairs of dimensions are of one length (RoFormer, arXiv:2104.09864, equation 16).

    Args:
        cosines, sines: of the angles of each place, shape (N, D).

    Returns:
        float64 (N, N), 1 on the diagonal.
    """
    turned = torch.cat([cosines, sines], -1).detach().double().cpu()
    return turned @ turned.T / cosines.shape[-1]


def positions_of(model: PreTrainedModel, image_size: Size) -> list[Positions]:
    """Return the picture of each position table of a model, empty if it has none.

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
    """Ask a rotary embedding for the angles of each patch, as it gives them for an image."""
    cosines, sines = module(torch.zeros(1, 3, *image_size, device=next(module.buffers()).device))
    grid = fill_grid(len(cosines), image_size)
    assert grid is not None
    rows, columns = (tuple(range(0, side, -(-side // MOST_TILES))) for side in grid)
    similarity = rotary_similarity(cosines, sines).reshape(*grid, *grid)[list(rows)][:, list(columns)]
    places = torch.cat([cosines, sines], -1).reshape(*grid, -1)
    return Positions(name, "similarity", grid, rows, columns, similarity, row_column_share(places))


@torch.no_grad()
def _of_network(name: str, module: nn.Module) -> Positions:
    """Ask SwinV2's network for its biases (arXiv:2111.09883, section 3.3)."""
    attention: Any = module
    bias = 16 * torch.sigmoid(attention.continuous_position_bias_mlp(attention.relative_coords_table))[0]
    bias = bias.movedim(-1, 0).float().cpu()
    grid = ((bias.shape[1] + 1) // 2, (bias.shape[2] + 1) // 2)
    short = re.sub(r"^\w+\.(encoder\.)?", "", name) + ".continuous_position_bias_mlp"
    return Positions(short, "bias", grid, (), (), bias, row_column_share(bias.movedim(0, -1)))

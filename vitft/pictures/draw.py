"""How pictures are drawn: mosaics of tiles, photos with maps, captions.

Colour maps are those whose lightness grows evenly, for the colour-blind and for grey print.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vitft.svg import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAP = "viridis"
_CHARACTERS_PER_INCH = 15  # of a caption


def caption(figure: Figure, title: str, lines: Sequence[str]) -> None:
    """Give a figure its title, and below it what it shows."""
    width = int(figure.get_figwidth() * _CHARACTERS_PER_INCH)
    headed = textwrap.wrap(title, int(width * 0.6))
    wrapped = [part for line in lines for part in textwrap.wrap(line, width)]
    figure.set_figheight(figure.get_figheight() + 0.2 * (len(headed) - 1) + 0.155 * max(0, len(wrapped) - 3))
    above = figure.suptitle("\n".join(headed), x=0.01, ha="left", fontsize=12, color=INK)
    below = figure.supxlabel("\n".join(wrapped), x=0.01, ha="left", fontsize=8, color="#444444", linespacing=1.35)
    for text in (above, below):
        text.set_parse_math(False)


def save(figure: Figure, path: Path) -> None:
    """Write a figure; the suffix of its name is its format."""
    from matplotlib import rc_context

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "vitft"}):  # text stays text; same picture, same file
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, metadata=metadata)


def mosaic(tiles: Tensor, *, gap: int = 1) -> np.ndarray:
    """Lay tiles out on a grid with gaps between them.

    Args:
        tiles: shape (rows, columns, h, w) or (rows, columns, h, w, 3); not a number where there is no tile.
        gap: pixels between two tiles.

    Returns:
        Shape (rows * (h + gap) - gap, columns * (w + gap) - gap) or the same with 3 colours; gaps are not a number.
    """
    pad = (0, 0) * (tiles.ndim - 4) + (0, gap, 0, gap)
    rows, columns = tiles.shape[:2]
    padded = F.pad(tiles.double(), pad, value=torch.nan)
    laid = padded.movedim(2, 1).reshape(rows * padded.shape[2], columns * padded.shape[3], *tiles.shape[4:])
    return laid[: laid.shape[0] - gap, : laid.shape[1] - gap].numpy()


def show_mosaic(axes: Axes, tiles: Tensor, *, rows: Sequence[Any], columns: Sequence[Any], **how: Any) -> Any:
    """Draw a mosaic with the name of each row and column of tiles beside it; return what a colour bar needs."""
    import matplotlib as mpl

    times = -(-12 // min(tiles.shape[2:4]))  # so that gaps stay narrow beside small tiles
    tiles = tiles.repeat_interleave(times, 2).repeat_interleave(times, 3)
    gap = max(1, min(tiles.shape[2:4]) // 12)
    height, width = tiles.shape[2] + gap, tiles.shape[3] + gap
    laid = mosaic(tiles, gap=gap)
    if tiles.ndim == 5:  # gaps are see-through
        laid = np.concatenate((np.nan_to_num(laid), ~np.isnan(laid[..., :1])), -1)
    colours = mpl.colormaps[MAP].with_extremes(bad=(0, 0, 0, 0))
    drawn = axes.imshow(laid, interpolation="nearest", cmap=colours, aspect="equal", **how)
    every_row, every_column = (max(1, -(-len(names) // 16)) for names in (rows, columns))
    axes.set_yticks([i * height + (height - gap) / 2 - 0.5 for i in range(0, len(rows), every_row)], rows[::every_row])
    axes.set_xticks(
        [i * width + (width - gap) / 2 - 0.5 for i in range(0, len(columns), every_column)], columns[::every_column]
    )
    axes.tick_params(length=0, labelsize=7)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return drawn


@dataclass(frozen=True)
class Tile:
    """One picture of a table of pictures.

    Attributes:
        image: (h, w) for a map, or (h, w, 3) in [0, 1].
        below: what stands under it.
        whole_range: whether a map is scaled from its least to its greatest value, not between percentiles.
    """

    image: Tensor
    below: str = ""
    whole_range: bool = False


def show_tiles(
    figure: Any, rows: Sequence[Sequence[Tile | None]], titles: Sequence[str], *, below_lines: int = 1
) -> None:
    """Draw a table of pictures, each map scaled alone.

    Args:
        figure: a figure or a part of one.
        rows: pictures by row; None leaves a place empty.
        titles: of the columns.
        below_lines: lines of text that stand under a picture at most.
    """
    several = figure.subplots(len(rows), len(titles), squeeze=False)
    for number, row in enumerate(rows):
        for place, title in enumerate(titles):
            axes, tile = several[number][place], row[place] if place < len(row) else None
            if number == 0:
                axes.set_title(title, fontsize=8.5, color=INK, parse_math=False)
            axes.set_xticks([])
            axes.set_yticks([])
            if tile is None:
                axes.set_axis_off()
                continue
            low, high = (tile.image.min(), tile.image.max()) if tile.whole_range else usual_range(tile.image)
            axes.imshow(
                tile.image.float().numpy(), cmap=MAP, interpolation="nearest", vmin=float(low), vmax=float(high)
            )
            text = "\n".join(shortened(line, 30) for line in tile.below.splitlines()[:below_lines])
            axes.set_xlabel(text, fontsize=7.5, color=INK, parse_math=False, labelpad=3)


def usual_range(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the 3rd and the 97th percentile: a few sinks would leave all else dark."""
    low, high = torch.quantile(weights.double(), torch.tensor([0.03, 0.97], dtype=torch.float64))
    return low, high


def photo_of(pixels: Tensor) -> Tensor:
    """Return uint8 (3, H, W) as (H, W, 3) in [0, 1]."""
    return pixels.movedim(0, -1).float() / 255


def lit(pixels: Tensor, weights: Tensor) -> Tensor:
    """Return a photo that is bright where a map is high (ViT, arXiv:2010.11929, figure 6).

    Args:
        pixels: uint8 (3, H, W).
        weights: map on the grid of patches, (rows, columns), scaled by :func:`usual_range`.
    """
    low, high = usual_range(weights)
    mask = ((weights - low) / (high - low).clamp_min(1e-12)).clamp(0, 1).float()
    mask = F.interpolate(mask[None, None], tuple(pixels.shape[-2:]), mode="bilinear", align_corners=False)[0, 0]
    return photo_of(pixels) * (0.12 + 0.88 * mask[..., None])


def shortened(text: str, most: int) -> str:
    """Keep the beginning of a long text."""
    return text if len(text) <= most else text[: most - 1] + "…"

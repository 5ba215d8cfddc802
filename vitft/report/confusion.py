"""The confusion matrix as a figure, its classes ordered so that those that are confused stand together.

Legend: K classes, G groups of classes that share a cell.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vitft.report.words import brief
from vitft.svg import INK, LINE, SERIES, SOFT, canvas, inline_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_NAMES, _MOST_COUNTS = 60, 24
_MOST_CELLS = 200  # a side; smaller ones could not be seen
_EXACT = 200  # classes up to which neighbours are ordered optimally: the time grows with the cube
_LONGEST = 24


def order_of(confusion: np.ndarray) -> np.ndarray:
    """Return an order of the classes in which those that are confused are neighbours, int64 (K,).

    Average linkage over the share of images that two classes exchange; the leaves are ordered optimally (Bar-Joseph et
    al. 2001, doi:10.1093/bioinformatics/17.suppl_1.S22) up to 200 classes. Classes that are never confused keep their
    order, behind the others.

    Args:
        confusion: counts, rows are the true class, (K, K).
    """
    from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
    from scipy.spatial.distance import squareform

    exchanged = _shares(confusion)
    exchanged = exchanged + exchanged.T
    np.fill_diagonal(exchanged, 0.0)
    is_confused = exchanged.any(axis=0)
    confused, alone = np.flatnonzero(is_confused), np.flatnonzero(~is_confused)
    if len(confused) > 2:
        near = exchanged[np.ix_(confused, confused)]
        far = squareform(1 - near / near.max(), checks=False)
        tree = linkage(far, "average")
        if len(confused) <= _EXACT:
            tree = optimal_leaf_ordering(tree, far)
        confused = confused[leaves_list(tree)]
    order: np.ndarray = np.concatenate((confused, alone))
    return order


def draw_confusion(confusion: np.ndarray, classes: Sequence[str]) -> tuple[str, str]:
    """Return the figure of a confusion matrix for a page, and its caption.

    Args:
        confusion: counts, rows are the true class, (K, K).
        classes: names by id.
    """
    figure, per_cell = _figure(confusion, classes)
    return inline_svg(figure, "confusion matrix"), _caption(per_cell)


def confusion_png(confusion: np.ndarray, classes: Sequence[str]) -> bytes:
    """Return the figure of a confusion matrix as a PNG file, for a model card."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # shown as boxes
        _figure(confusion, classes)[0].savefig(file, format="png", dpi=120, metadata={"Software": None})
    return file.getvalue()


def _figure(confusion: np.ndarray, classes: Sequence[str]) -> tuple[Figure, int]:
    """Return the figure of a confusion matrix, and how many classes a cell holds on a side."""
    order = order_of(confusion)
    counts = confusion[np.ix_(order, order)]
    names = [brief(classes[number], _LONGEST) for number in order]
    pixels, per_cell = _pixels(_shares(counts))
    side = len(pixels)
    inches = min(8.0, max(3.2, 0.3 * side)) if side <= _MOST_NAMES else 7.0
    has_names, has_counts = len(names) <= _MOST_NAMES, len(names) <= _MOST_COUNTS
    margin = 0.35 + (0.085 * max(map(len, names)) if has_names else 0.3)
    width = inches + margin + 0.15
    figure = canvas(width, inches + margin + 0.15, dpi=100, layout=None)
    axes = figure.add_axes((margin / width, margin / width, inches / width, inches / width))
    image = axes.imshow(pixels, interpolation="none", extent=(0, side, side, 0))
    image.set_gid("cells")
    if has_names:
        size = max(5.0, min(9.0, 60 * inches / side))
        axes.set_xticks(np.arange(side) + 0.5, names, rotation=90, fontsize=size, parse_math=False)
        axes.set_yticks(np.arange(side) + 0.5, names, fontsize=size, parse_math=False)
    else:
        axes.set_xticks([])
        axes.set_yticks([])
    if has_counts:
        for row, column in zip(*np.nonzero(counts), strict=True):
            axes.text(
                column + 0.5, row + 0.5, f"{counts[row, column]}", color=INK, fontsize=7, ha="center", va="center"
            )
    axes.tick_params(length=0, colors=INK)
    axes.set_xlabel("predicted", color=SOFT, fontsize=9)
    axes.set_ylabel("true", color=SOFT, fontsize=9)
    for spine in axes.spines.values():
        spine.set_color(LINE)
    return figure, per_cell


def _caption(per_cell: int) -> str:
    text = (
        "Rows are the true class, columns the predicted one. Blue: the share of a class that was recognised; orange: "
        "what it was taken for, drawn stronger than its share so that rare mistakes can be seen. Classes are ordered "
        "so that those that are confused stand together"
    )
    if per_cell == 1:
        return f"{text}."
    return (
        f"{text}; each cell holds {per_cell} x {per_cell} of them and shows the largest share. A cell on the diagonal "
        "turns from blue to orange with the confusions inside it."
    )


def _shares(counts: np.ndarray) -> np.ndarray:
    """Return each row divided by its sum, float64 (K, K); 0 for a class without images."""
    shares: np.ndarray = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return shares


def _pixels(shares: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the colour of each cell, (G, G, 4), and how many classes it holds on a side.

    Colours are see-through where nothing is, so that they suit light and dark pages.
    """
    size = -(-len(shares) // _MOST_CELLS)
    right = np.diag(shares)
    wrong = _largest(shares - np.diag(right), size)
    groups = np.arange(len(shares)) // size
    recognised = np.bincount(groups, right) / np.bincount(groups)
    blue, orange = (np.array([int(each[at : at + 2], 16) / 255 for at in (1, 3, 5)]) for each in SERIES[:2])
    pixels = np.empty((*wrong.shape, 4))
    pixels[..., :3] = orange
    pixels[..., 3] = np.where(wrong > 0, 0.1 + 0.9 * np.sqrt(wrong), 0)
    diagonal = np.arange(len(wrong))
    inside = np.sqrt(wrong[diagonal, diagonal])[:, None]
    pixels[diagonal, diagonal, :3] = (1 - inside) * blue + inside * orange
    pixels[diagonal, diagonal, 3] = np.maximum(0.75 * recognised, pixels[diagonal, diagonal, 3])
    return pixels, size


def _largest(shares: np.ndarray, size: int) -> np.ndarray:
    """Return the largest share in each block of ``size`` x ``size`` classes, (G, G)."""
    groups = -(-len(shares) // size)
    padded = np.zeros((groups * size, groups * size))
    padded[: len(shares), : len(shares)] = shares
    largest: np.ndarray = padded.reshape(groups, size, groups, size).max(axis=(1, 3))
    return largest

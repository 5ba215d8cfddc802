"""Curves of a training, and how far its probabilities can be trusted, as figures for a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vitft.svg import INK, LINE, SERIES, SOFT, canvas, inline_svg

_MOST_POINTS = 400  # of a curve: more than a figure has pixels to show
_WIDTH, _HEIGHT = 4.4, 2.6  # inches


@dataclass(frozen=True)
class Curve:
    """A line of a chart.

    Attributes:
        x, y: its points.
    """

    x: Sequence[float]
    y: Sequence[float]


KINDS = {
    "loss": "Training loss",
    "top1": "Validation top-1 in %",
    "nll": "Validation NLL",
    "lr": "Learning rate",
    "images_per_second": "Images per second",
}
"""What is drawn of a training: the key of its events, and the title."""


def learning_curves(runs: Sequence[tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]]]) -> list[str]:
    """Return a figure for each kind of curve that the runs have.

    Args:
        runs: the ``step`` and the ``validation`` events of each.
    """
    figures = []
    for kind, title in KINDS.items():
        curves = []
        for steps, validations in runs:
            events = validations if kind in ("top1", "nll") else steps
            points = [(each["step"], each[kind]) for each in events if _is_number(each.get(kind))]
            points = [point for point in points if kind != "images_per_second" or point[1] > 0]  # unknown at first
            factor = 100 if kind == "top1" else 1
            curves.append(Curve([x for x, _ in points], [factor * y for _, y in points]))
        if any(len(curve.x) for curve in curves):
            figures.append(draw_curves(curves, title))
    return figures


def draw_curves(curves: Sequence[Curve], title: str) -> str:
    """Draw lines over the steps of a training; those of many points as means of neighbouring ones."""
    figure, axes = _chart(title, "step")
    for number, curve in enumerate(curves):
        x, y = _thinned(np.asarray(curve.x, dtype=float), np.asarray(curve.y, dtype=float))
        marker = "o" if len(x) <= 30 else None
        style = "--" if number % 2 else "-"  # the page says which run has which colour and which line
        axes.plot(x, y, style, color=SERIES[number % len(SERIES)], marker=marker, markersize=3, linewidth=1.4)
    highest = max((max(curve.y) for curve in curves if len(curve.y)), default=0)
    if all(y == highest for curve in curves for y in curve.y) and highest > 0:  # a line without a slope
        axes.set_ylim(0, 1.25 * highest)
    axes.set_xlim(0, 1.02 * max((max(curve.x) for curve in curves if len(curve.x)), default=1))
    return inline_svg(figure, title)


def draw_reliability(bins: Sequence[Mapping[str, float]], calibrated: Sequence[Mapping[str, float]] = ()) -> str:
    """Draw accuracy against confidence (Guo et al., arXiv:1706.04599, figure 1), with the images of each bin below.

    Args:
        bins: of the model as it is.
        calibrated: of the model with its temperature, as a second, dashed line.
    """
    title = "Reliability"
    figure, axes = _chart(f"{title}: accuracy by confidence", "confidence", height=3.6)
    axes.set_position((0.12, 0.34, 0.84, 0.56))
    axes.set_xlabel("")
    axes.plot([0, 1], [0, 1], color=SOFT, linestyle=":", linewidth=1)
    confidence, accuracy = [each["confidence"] for each in bins], [each["accuracy"] for each in bins]
    axes.plot(confidence, accuracy, color=SERIES[0], marker="o", markersize=4, linewidth=1.2, clip_on=False)
    x, y = [each["confidence"] for each in calibrated], [each["accuracy"] for each in calibrated]
    axes.plot(x, y, "--", color=SERIES[1], marker="s", markersize=3, linewidth=1.2, clip_on=False)
    axes.set(xlim=(0, 1), ylim=(0, 1), xticklabels=[])
    below = figure.add_axes((0.12, 0.14, 0.84, 0.15))
    _plain(below)
    below.bar(confidence, [each["count"] for each in bins], width=0.04, color=SERIES[0])
    below.bar(x, [each["count"] for each in calibrated], width=0.02, color=SERIES[1])
    below.set_xlim(0, 1)
    below.yaxis.set_major_locator(_few_ticks(2))
    below.set_xlabel("confidence; below, the number of images", color=SOFT, fontsize=8)
    return inline_svg(figure, title)


def draw_coverage(curve: Sequence[Mapping[str, float]], wanted: float) -> str:
    """Draw the accuracy on the surest images against their share (arXiv:1705.08500), with a line at ``wanted``."""
    title = "Coverage"
    figure, axes = _chart(f"{title}: accuracy if only the surest are answered", "share of images answered", height=3.6)
    axes.plot(
        [each["coverage"] for each in curve], [each["accuracy"] for each in curve], color=SERIES[0], linewidth=1.6
    )
    axes.axhline(wanted, color=SERIES[1], linestyle=":", linewidth=1.2)
    lowest = min([wanted, *(each["accuracy"] for each in curve)])
    axes.set(xlim=(0, 1), ylim=(max(0.0, lowest - 0.05), 1.005))
    return inline_svg(figure, title)


# --- how charts look ---------------------------------------------------------------------------------------


def _chart(title: str, below: str, *, height: float = _HEIGHT) -> tuple[Any, Any]:
    """Return a figure with one pair of axes; fixed margins take half the time of fitted ones."""
    figure = canvas(_WIDTH, height, dpi=100, layout=None)
    bottom, top = 0.46 / height, 1 - 0.36 / height
    axes = figure.add_axes((0.12, bottom, 0.84, top - bottom))
    _plain(axes)
    axes.set_title(title, fontsize=9.5, color=INK, loc="left", parse_math=False)
    axes.set_xlabel(below, color=SOFT, fontsize=8)
    return figure, axes


def _plain(axes: Any) -> None:
    axes.tick_params(colors=SOFT, labelsize=8, length=2)
    axes.grid(color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(_few_ticks(5))
    axes.yaxis.set_major_locator(_few_ticks(4))
    axes.yaxis.set_major_formatter("{x:.4g}")
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(LINE)


def _few_ticks(most: int) -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(most)


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return at most 400 points: means of neighbouring ones."""
    if len(x) <= _MOST_POINTS:
        return x, y
    parts = np.arange(len(x)) * _MOST_POINTS // len(x)
    count = np.bincount(parts)
    return np.bincount(parts, x) / count, np.bincount(parts, y) / count


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and bool(np.isfinite(value))

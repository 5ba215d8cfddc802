"""Plot accuracy and speed against the image size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vitft.errors import UsageError
from vitft.files import exists, is_folder
from vitft.recipe.sizes import show_size
from vitft.scoring.evidence import wilson

_FORMATS = (".png", ".svg", ".pdf")


def check_figure_path(path: Path) -> Path:
    """Return a free path for a figure, counting up if the file exists; raise UsageError if it cannot be written."""
    if path.suffix.lower() not in _FORMATS:
        raise UsageError(
            f"a figure cannot be written as {path.name}",
            allowed=", ".join(_FORMATS),
            hint=f"--plot {path.with_suffix('.png')}",
        )
    if not is_folder(path.parent):
        raise UsageError(f"the folder {path.parent} does not exist", hint=f"mkdir -p {path.parent}")
    number, free = 2, path
    while exists(free):
        free, number = path.with_stem(f"{path.stem}-{number}"), number + 1
    return free


def draw_size_sweep(
    rows: Sequence[Mapping[str, Any]], own_size: tuple[int, int], path: Path, *, title: str = ""
) -> None:
    """Draw top-1 accuracy with its 95 % interval, and images per second, against the image size.

    Args:
        rows: ``image_size`` (height, width), ``top1``, ``count`` and ``images_per_second`` of each size.
        own_size: the checkpoint's own size, which is marked.
        path: the file to write; its suffix decides the format.
        title: the title of the figure.
    """
    # Not pyplot, which would choose a window system.
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = sorted(rows, key=lambda row: row["image_size"][0] * row["image_size"][1])
    places = range(len(rows))
    accuracy = [100 * row["top1"] for row in rows]
    below, above = zip(*(_interval(row) for row in rows), strict=True)

    figure = Figure(figsize=(7, 4.5), layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    left = figure.add_subplot()
    bars = [[a - 100 * b for a, b in zip(accuracy, below, strict=True)],
            [100 * b - a for a, b in zip(accuracy, above, strict=True)]]  # fmt: skip
    # Markers may stand on an axis: at 100 %, or at the first size.
    left.errorbar(places, accuracy, yerr=bars, marker="o", capsize=3, color="#1f5fa8", label="top-1", clip_on=False)
    left.margins(x=0.08)
    left.set_ylabel("top-1 accuracy in %, with 95 % interval", color="#1f5fa8")
    left.set_xlabel("image size in pixels (height x width)")
    left.set_xticks(list(places), [show_size(tuple(row["image_size"])) for row in rows])
    if len(rows) > 7:
        left.tick_params(axis="x", labelrotation=30)
    own = [place for place, row in zip(places, rows, strict=True) if tuple(row["image_size"]) == own_size]
    for place in own:
        left.axvline(place, color="#888888", linestyle=":", zorder=0, label="the checkpoint's own size")
    right = left.twinx()
    speed = [row["images_per_second"] for row in rows]
    right.plot(places, speed, marker="s", linestyle="--", color="#b35c00", label="speed", clip_on=False)
    right.set_ylabel("images per second", color="#b35c00")
    right.set_ylim(bottom=0)
    left.set_title("\n".join(map(_shortened, title.splitlines())), fontsize=10, parse_math=False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    with rc_context({"svg.fonttype": "none"}):  # text stays text, which can be searched and read aloud
        figure.savefig(path)


def _interval(row: Mapping[str, Any]) -> tuple[float, float]:
    """Return the 95 % interval of a row's top-1, or 0 to 1 without images."""
    low, high = wilson(row["top1"], row["count"]) if row["count"] else (0.0, 1.0)
    # Rounding can push a bound past the proportion itself at 0 or 1, and matplotlib refuses to draw that.
    return min(row["top1"], low), max(row["top1"], high)


def _shortened(line: str, most: int = 90) -> str:
    """Shorten a long line to its end, where paths differ."""
    return line if len(line) <= most else "…" + line[1 - most :]

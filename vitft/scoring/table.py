"""Print scores of splits as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

HEADLINES = ("top1", "top5", "mean_per_class_accuracy", "macro_f1", "nll", "count")
_OF_CALIBRATION = ("brier", "ece", "ece_equal_count")  # beside the headlines they would be too much for 80 columns


def headline(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Return the scores shown in every table."""
    return {name: scores[name] for name in HEADLINES if name in scores}


def score_table(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Return the scores of splits as an aligned table, in per cent where that is usual."""
    first = rows[0][1] if rows else {}
    known = (*HEADLINES, *_OF_CALIBRATION) if "top1" in first else HEADLINES
    further = [name for name, value in first.items() if name not in known and isinstance(value, int | float)]
    names = [*(name for name in HEADLINES if any(name in scores for _, scores in rows)), *further]
    cells = [["", *names]] + [[split, *(_cell(name, scores.get(name)) for name in names)] for split, scores in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    return "\n".join("  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)) for row in cells)


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    if name == "count":
        return f"{value:,}"
    if name == "images/s":
        return f"{value:.1f}"
    is_part = name == "shift_consistency" or (name in HEADLINES and name != "nll")
    return f"{100 * value:.2f}%" if is_part else f"{value:.4f}"

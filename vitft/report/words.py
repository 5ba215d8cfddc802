"""Numbers of a page as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vitft.outside import printable
from vitft.scoring.evidence import answered_at

SCORES = {
    "top1": ("top-1", "share of images whose most probable class is right"),
    "top5": ("top-5", "share of images whose class is among the five most probable"),
    "mean_per_class_accuracy": ("mean per-class accuracy", "each class counts the same"),
    "macro_f1": ("macro F1", "mean over classes of the harmonic mean of precision and recall"),
    "nll": ("NLL", "mean negative log-likelihood of the true class, in nats; lower is better"),
    "brier": ("Brier score", "squared distance of probabilities and truth; lower is better"),
    "ece": ("ECE", "expected calibration error, 15 bins of equal width; lower is better"),
    "ece_equal_count": ("ECE, equal counts", "the same with 15 bins of equally many images"),
}
"""The scores of a split in their order: name and meaning."""
_PARTS = ("top1", "top5", "mean_per_class_accuracy", "macro_f1")
PRECISION = 0.95
"""The precision for which a page says how many images can be answered."""


def brief(name: str, most: int = 48) -> str:
    """Return a name that fits under a picture."""
    name = printable(name)
    return name if len(name) <= most else f"{name[: most - 1]}…"


def percent(value: float | None, digits: int = 1) -> str:
    """Return a share in per cent."""
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def score_text(name: str, value: Any) -> str:
    """Return a score: a share in per cent, else four digits."""
    if not isinstance(value, int | float):
        return "–"
    return percent(value, 2) if name in _PARTS else f"{value:.4f}"


def interval_text(name: str, interval: Sequence[float] | None) -> str:
    """Return the two ends of a 95 % interval; empty if there is none."""
    if not interval:
        return ""
    low, high = interval
    return f"{100 * low:.1f} to {100 * high:.1f} %" if name in _PARTS else f"{low:.3f} to {high:.3f}"


def headline_text(split: str, scores: Mapping[str, Any]) -> str:
    """Return the best evidence of a run in a line: top-1 of a split, with interval and count."""
    interval = interval_text("top1", (scores.get("intervals") or {}).get("top1"))
    interval = f" (95 % interval {interval})" if interval else ""
    of = f" on {scores['count']:,} images" if isinstance(scores.get("count"), int) else ""
    return f"{split} top-1 {score_text('top1', scores.get('top1'))}{interval}{of}"


def coverage_text(curve: Sequence[Mapping[str, float]]) -> str:
    """Say how many images can be labelled with a precision of 95 %."""
    wanted, share = f"{100 * PRECISION:.0f} %", answered_at(curve, PRECISION)
    if share == 0:
        return f"No share of the images can be labelled with {wanted} precision: even the surest are right less often."
    whole = "all images" if share == 1 else f"{100 * share:.0f} % of the images"
    least = min((each["confidence"] for each in curve if each["coverage"] <= share), default=0.0)
    return f"{whole} can be labelled with {wanted} precision: those with a confidence of {least:.2f} or more."

"""Evidence in a few lines for a terminal: how sure the score is, the worst classes, the most confused pairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vitft.outside import printable
from vitft.scoring.evidence import answered_at
from vitft.scoring.per_class import ClassScore, class_scores, worst_first

_MOST = 10
_PRECISION = 0.95
_LONGEST_NAME = 32


def evidence_lines(split: str, scores: Mapping[str, Any], *, with_all_classes: bool = False) -> Iterator[str]:
    """Yield what a split's scores are worth.

    Args:
        split: its name.
        scores: of the split, as in ``results.json``; of an older one what is there.
        with_all_classes: list every class, in their order, instead of the worst ten.
    """
    if "intervals" in scores:
        low, high = scores["intervals"]["top1"]
        yield (
            f"{split}: top-1 {_percent(scores['top1'])} of {scores['count']:,} images, "
            f"between {_percent(low)} and {_percent(high)} (95 % interval)"
        )
        answered = answered_at(scores["coverage"], _PRECISION)
        sure = f"at {_PRECISION:.0%} precision, the surest {answered:.0%} of the images can be labelled"
        yield f"calibration error {_percent(scores['ece'])}; {sure}"
    if "class" not in scores.get("per_class", {}):
        return
    classes = class_scores(scores["per_class"])
    if with_all_classes:
        yield from ["", *_table("each class", classes)]
    elif any(each.f1 < 1 for each in classes) and len(classes) > 2:
        worst = [each for each in worst_first(classes)[:_MOST] if each.f1 < 1]
        yield from ["", *_table(f"worst classes (of {len(classes):,})", worst)]
    if pairs := scores.get("confused_pairs"):
        yield from ["", *_confusions(pairs)]


def _table(title: str, classes: Sequence[ClassScore]) -> Iterator[str]:
    names = [_name(each.name) for each in classes]
    width = max(map(len, [title, *names]), default=0)
    yield f"{title:{width}}  images  recall  precision      F1"
    for name, each in zip(names, classes, strict=True):
        precision = "-" if each.precision is None else _percent(each.precision)
        yield f"{name:{width}}  {each.support:6,}  {_percent(each.recall):>6}  {precision:>9}  {_percent(each.f1):>6}"


def _confusions(pairs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    told = [f"{_name(each['true'])} taken for {_name(each['predicted'])}" for each in pairs]
    title = "most confused"
    width = max(map(len, [title, *told]))
    yield f"{title:{width}}  images  of its class"
    for text, each in zip(told, pairs, strict=True):
        yield f"{text:{width}}  {each['count']:6,}  {_percent(each['share']):>12}"


def _name(text: str) -> str:
    """Return a class name that fits a table."""
    text = printable(text)
    return text if len(text) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME - 1]}…"


def _percent(part: float) -> str:
    return f"{100 * part:.1f}%"

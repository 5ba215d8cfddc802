"""Print a ranking of checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from vitft.outside import printable
from vitft.probes.logistic import Judged
from vitft.probes.outcome import NotProbed, Probed
from vitft.quantities import count_text, duration_text, speed_text
from vitft.scoring.evidence import wilson


def ranking(probed: Sequence[Probed], refused: Sequence[NotProbed]) -> Iterator[str]:
    """Yield the lines of two tables: what each checkpoint is, and what its features are good for.

    Args:
        probed: at least one, the best first.
        refused: those that could not be probed.
    """
    best = probed[0]
    num_validation = len(best.scores.validation.is_right)
    yield from _costs(probed)
    yield from (f"   {printable(each.model)}: not probed: {each.reason}" for each in refused)
    yield ""
    yield from _scores(probed)
    yield ""
    yield (
        f"ranked by logistic regression on the features: top-1 of {num_validation:,} validation images, then likelihood"
    )
    few_shot = " and few-shot (mean of 3 draws of so many images per class)" if best.scores.few_shot else ""
    yield f"nearest neighbours{few_shot}: on {'test' if best.scores.test is not None else 'validation'} images"
    if same := [str(place) for place, each in enumerate(probed[1:], 2) if not each.is_surely_worse(best)]:
        yield f"not surely worse than 1, with {num_validation:,} validation images: {', '.join(same)} (McNemar, 5 %)"
    if slow := [str(place) for place, each in enumerate(probed, 1) if not each.scores.head.is_done]:
        yield f"logistic regression stopped at its limit of iterations: {', '.join(slow)}"


def _costs(probed: Sequence[Probed]) -> Iterator[str]:
    rows = [("", "model", "input", "features", "parameters", "images/s", "time", "licence")]
    for place, each in enumerate(probed, 1):
        counts = (each.size(), f"{each.scores.num_features:,}", count_text(each.num_parameters))
        costs = (speed_text(each.images_per_second), duration_text(each.seconds), printable(each.licence))
        rows.append((str(place), printable(each.model), *counts, *costs))
    return _aligned(rows, left=(1, 7))


def _scores(probed: Sequence[Probed]) -> Iterator[str]:
    first = probed[0].scores
    test = ("test %", "95 % interval") if first.test is not None else ()
    nearest = [f"{count} nearest" for count in first.nearest]
    rows = [("", "validation %", *test, *nearest, *(f"{shots}-shot" for shots in first.few_shot))]
    for place, each in enumerate(probed, 1):
        scores = each.scores
        of_test = () if scores.test is None else (_percent(scores.test.top1), _interval(scores.test))
        few = [_percent(float(np.mean(parts))) for parts in scores.few_shot.values()]
        rows.append(
            (str(place), _percent(scores.validation.top1), *of_test, *map(_percent, scores.nearest.values()), *few)
        )
    return _aligned(rows)


def _aligned(rows: Sequence[tuple[str, ...]], left: Sequence[int] = ()) -> Iterator[str]:
    """Yield rows with their columns aligned, to the right but for the columns ``left``."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [text.ljust(width) if column in left else text.rjust(width)
                 for column, (text, width) in enumerate(zip(row, widths, strict=True))]  # fmt: skip
        yield "  ".join(cells).rstrip()


def _interval(judged: Judged) -> str:
    low, high = wilson(judged.top1, len(judged.is_right))
    return f"{_percent(low)} to {_percent(high)}"


def _percent(part: float) -> str:
    return f"{100 * part:.1f}"

"""What was found out about each checkpoint, and which is best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest

from vitft.probes import few_shot, logistic, neighbours
from vitft.probes.labelled import Splits
from vitft.probes.logistic import Judged, LogisticHead
from vitft.recipe.sizes import show_size
from vitft.scoring.evidence import wilson

_SURE = 0.05


@dataclass(frozen=True, eq=False)
class Scores:
    """What the features of a checkpoint are good for.

    Attributes:
        head: by logistic regression, chosen on the validation images.
        validation, test: what it said of them.
        nearest: accuracy by number of neighbours.
        few_shot: accuracy by images per class, one for each seed.
        num_features: D.
    """

    head: LogisticHead
    validation: Judged
    test: Judged | None
    nearest: Mapping[int, float]
    few_shot: Mapping[int, Sequence[float]]
    num_features: int


def score(splits: Splits, num_classes: int, shots: Sequence[int]) -> Scores:
    """Score features in three ways; neighbours and few-shot on the test images, or without any on validation."""
    head, validation = logistic.fit_best(splits.train, splits.validation, num_classes)
    asked = splits.test if splits.test is not None else splits.validation
    return Scores(
        head,
        validation,
        head.judge(splits.test) if splits.test is not None else None,
        neighbours.accuracies(splits.train, asked, num_classes),
        few_shot.accuracies(splits.train, asked, num_classes, shots),
        splits.train.values.shape[1],
    )


@dataclass(frozen=True, eq=False)
class Probed:
    """A checkpoint whose features were scored.

    Attributes:
        model: as the user typed it.
        scores: of its features.
        head_module: name of its head's module, which reads the features.
        image_size: (height, width) of its input.
        num_parameters: with a head for the dataset's classes.
        images_per_second: of its forward passes alone, on this machine.
        seconds: that the probe took, reading images or the cache included.
        licence: as the Hub spells it; "unknown" if its card names none.
    """

    model: str
    scores: Scores
    head_module: str
    image_size: tuple[int, int]
    num_parameters: int
    images_per_second: float
    seconds: float
    licence: str

    @property
    def order(self) -> tuple[float, float, int]:
        """What ranks it: validation top-1, then likelihood, then size; the largest is best."""
        judged = self.scores.validation
        return judged.top1, -judged.nll, -self.num_parameters

    def is_surely_worse(self, than: Probed) -> bool:
        """Whether more than chance separates its validation predictions (McNemar's exact test, two-sided, 5 %)."""
        mine, other = self.scores.validation.is_right, than.scores.validation.is_right
        lost, won = int((other & ~mine).sum()), int((mine & ~other).sum())
        return lost + won > 0 and bool(binomtest(won, lost + won).pvalue < _SURE)

    def plain(self) -> dict[str, Any]:
        """Return everything as plain values."""
        scores = self.scores
        test = {"test": _plain(scores.test)} if scores.test is not None else {}
        regression = {"l2": scores.head.l2, "is_converged": scores.head.is_done}
        return {
            "model": self.model,
            "image_size": list(self.image_size),
            "features": scores.num_features,
            "parameters": self.num_parameters,
            "images_per_second": round(self.images_per_second, 2),
            "seconds": round(self.seconds, 2),
            "licence": self.licence,
            "logistic_regression": regression | {"validation": _plain(scores.validation), **test},
            "nearest": {str(count): part for count, part in scores.nearest.items()},
            "few_shot": {
                str(shots): {"top1": float(np.mean(parts)), "by_seed": list(parts)}
                for shots, parts in scores.few_shot.items()
            },
        }

    def size(self) -> str:
        """Return its input size as text."""
        return show_size(self.image_size)


def _plain(judged: Judged) -> dict[str, Any]:
    count = len(judged.is_right)
    return {"top1": judged.top1, "nll": judged.nll, "interval": wilson(judged.top1, count), "count": count}


@dataclass(frozen=True)
class NotProbed:
    """A checkpoint that could not be probed, and why."""

    model: str
    reason: str

    def plain(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {"model": self.model, "error": self.reason}


def ranked(outcomes: Sequence[Probed | NotProbed]) -> list[Probed]:
    """Return those that were probed, the best first."""
    return sorted((each for each in outcomes if isinstance(each, Probed)), key=lambda each: each.order, reverse=True)

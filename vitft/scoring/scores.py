"""Count predictions while a classifier is evaluated, and compute scores from the counts.

Shapes: B batch, K classes.

Batches and processes only add integers, so scores do not depend on how samples are split between them; the negative
log-likelihood is summed in float64. The formulas are only in :func:`scores_of_counts`, which the package's
``evaluate`` module also calls.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from vitft.errors import DataError

MAX_CONFUSION_CLASSES = 2000  # an int64 table for more classes takes over 32 MB on the device


# --- while evaluating --------------------------------------------------------------------------------------


class Tally:
    """Counts and sums over the samples of a split, kept on the device.

    Args:
        num_classes: K.
        device: the logits' device. MPS has no float64, so its logits are counted on the CPU.
        with_confusion: keep the whole confusion matrix, or only its sums and diagonal; by default if K is small.
    """

    def __init__(
        self, num_classes: int, device: torch.device | str = "cpu", *, with_confusion: bool | None = None
    ) -> None:
        device = torch.device(device)
        self.device = torch.device("cpu") if device.type == "mps" else device
        self.num_classes = num_classes
        self.with_confusion = num_classes <= MAX_CONFUSION_CLASSES if with_confusion is None else with_confusion
        # One buffer per dtype, so that one reduction sums each: count rows, then the top-5 count at the end.
        num_rows = num_classes if self.with_confusion else 3
        self._integers = torch.zeros(num_rows * num_classes + 1, dtype=torch.int64, device=self.device)
        self._floats = torch.zeros(1, dtype=torch.float64, device=self.device)

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Count a batch.

        Args:
            logits: float, (B, K).
            labels: int64 in [0, K), (B,).
        """
        assert logits.shape == (len(labels), self.num_classes), (logits.shape, self.num_classes)
        logits, labels = logits.detach().to(self.device), labels.to(self.device)
        predicted = logits.argmax(1)
        is_correct = (predicted == labels).long()
        if self.with_confusion:
            self._count(labels * self.num_classes + predicted, torch.ones_like(labels))
        else:
            self._count(labels, torch.ones_like(labels))
            self._count(labels + self.num_classes, is_correct)
            self._count(predicted + 2 * self.num_classes, torch.ones_like(labels))
        if self.num_classes > 5:
            self._integers[-1] += (logits.topk(5, dim=1).indices == labels[:, None]).sum()
        self._floats += F.cross_entropy(logits.double(), labels, reduction="sum")

    def _count(self, places: Tensor, amounts: Tensor) -> None:
        self._integers.index_add_(0, places, amounts)

    def reduce(self, accelerator: Any = None) -> Tally:
        """Return a new tally with the sum over all processes."""
        total = Tally(self.num_classes, self.device, with_confusion=self.with_confusion)
        total._integers.copy_(self._integers)
        total._floats.copy_(self._floats)
        if accelerator is not None and accelerator.num_processes > 1:
            torch.distributed.all_reduce(total._integers)
            torch.distributed.all_reduce(total._floats)
        return total

    @property
    def confusion(self) -> Tensor | None:
        """Number of samples of each true class (row) predicted as each class (column), int64 (K, K), if kept."""
        return self._rows if self.with_confusion else None

    @property
    def support(self) -> Tensor:
        """Number of samples of each class, int64 (K,)."""
        return self._rows.sum(1) if self.with_confusion else self._rows[0]

    @property
    def correct(self) -> Tensor:
        """Number of samples of each class that were predicted correctly, int64 (K,)."""
        return self._rows.diagonal() if self.with_confusion else self._rows[1]

    @property
    def predicted(self) -> Tensor:
        """Number of samples predicted as each class, int64 (K,)."""
        return self._rows.sum(0) if self.with_confusion else self._rows[2]

    @property
    def top5_correct(self) -> int | None:
        """Number of samples whose class is among the top five; None with five classes or fewer."""
        return int(self._integers[-1]) if self.num_classes > 5 else None

    @property
    def nll_sum(self) -> float:
        """Sum of the negative log-likelihoods in nats."""
        return float(self._floats)

    @property
    def _rows(self) -> Tensor:
        return self._integers[:-1].view(-1, self.num_classes)


# --- the numbers -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scores:
    """The scores of a split."""

    top1: float
    """Share of samples whose predicted class is right."""
    top5: float | None
    """Share of samples whose class is among the top five; None with five classes or fewer."""
    mean_per_class_accuracy: float
    """Mean over classes of the share predicted correctly."""
    macro_f1: float
    """Mean over classes of the F1 score (harmonic mean of precision and recall)."""
    nll: float
    """Mean negative log-likelihood in nats."""
    count: int
    """Number of samples."""

    def present(self) -> dict[str, float | int]:
        """Return the scores by name, without those that are None."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def scores(tally: Tally) -> Scores:
    """Return the scores of a tally that is summed over all processes."""
    per_class = (tally.support.tolist(), tally.correct.tolist(), tally.predicted.tolist())
    return scores_of_counts(*per_class, top5_correct=tally.top5_correct, nll_sum=tally.nll_sum)


def scores_of_counts(
    support: Sequence[int],
    correct: Sequence[int],
    predicted: Sequence[int],
    *,
    top5_correct: int | None,
    nll_sum: float,
) -> Scores:
    """Compute scores from counts per class.

    Classes without samples are left out of the means; samples wrongly predicted as one of them still count as wrong
    for their own class.

    Args:
        support: number of samples of each class, (K,).
        correct: number of them predicted correctly, (K,).
        predicted: number of samples predicted as each class, (K,).
        top5_correct: number of samples whose class is among the top five; None to leave out top-5.
        nll_sum: sum of the negative log-likelihoods in nats.

    Raises:
        DataError: if there are no samples.
    """
    count = sum(support)
    if count == 0:
        raise DataError("there is nothing to score: the split has no usable samples")
    classes = [each for each in zip(support, correct, predicted, strict=True) if each[0]]
    return Scores(
        top1=sum(correct) / count,
        top5=None if top5_correct is None else top5_correct / count,
        mean_per_class_accuracy=math.fsum(hits / samples for samples, hits, _ in classes) / len(classes),
        macro_f1=math.fsum(2 * hits / (samples + taken) for samples, hits, taken in classes) / len(classes),
        nll=nll_sum / count,
        count=count,
    )


class Judged(Protocol):
    """Scores that decide which weights are best."""

    @property
    def top1(self) -> float:
        """Share of samples whose predicted class is right."""

    @property
    def nll(self) -> float:
        """Mean negative log-likelihood in nats."""


def is_better(candidate: Judged, best: Judged | None) -> bool:
    """Whether ``candidate`` replaces ``best``: higher top-1, then lower nll; ``best`` wins ties."""
    return best is None or (candidate.top1, -candidate.nll) > (best.top1, -best.nll)

"""What a classifier is worth: counts and sums while it is evaluated, and the numbers made of them.

Shapes: B batch, K classes.

Batches and processes only ever add integers, so a score does not depend on how the samples were shared out;
the negative log-likelihood is summed in float64. The formulas stand here once, in :func:`scores_of_counts`;
the ``evaluate`` module that the package ships calls them too.
"""

from __future__ import annotations

import atexit
import inspect
import math
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from vitft.errors import DataError, UsageError

MAX_CONFUSION_CLASSES = 2000  # a table of int64 for more classes would take more than 32 MB on the device
_METRICS_ALLOWED = "a name from https://huggingface.co/evaluate-metric, or a folder NAME with NAME.py"
_MODULE = Path(__file__).parent / "modules" / "vitft_classification"


# --- while evaluating --------------------------------------------------------------------------------------


class Tally:
    """Counts and sums over the samples of a split, kept on the device.

    Args:
        num_classes: K.
        device: where the logits will be. MPS has no float64, so there the counting happens on the CPU.
        with_confusion: keep the whole table of true and predicted classes, or only its margins and diagonal.
    """

    def __init__(
        self, num_classes: int, device: torch.device | str = "cpu", *, with_confusion: bool | None = None
    ) -> None:
        device = torch.device(device)
        self.device = torch.device("cpu") if device.type == "mps" else device
        self.num_classes = num_classes
        self.with_confusion = num_classes <= MAX_CONFUSION_CLASSES if with_confusion is None else with_confusion
        # One buffer each, so that processes need one reduction each: the rows, then the top-5 count.
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
        if self.num_classes >= 5:
            self._integers[-1] += (logits.topk(5, dim=1).indices == labels[:, None]).sum()
        self._floats += F.cross_entropy(logits.double(), labels, reduction="sum")

    def _count(self, places: Tensor, amounts: Tensor) -> None:
        self._integers.index_add_(0, places, amounts)

    def reduce(self, accelerator: Any = None) -> Tally:
        """Return the sum over all processes; this tally stays what its own process counted."""
        total = Tally(self.num_classes, self.device, with_confusion=self.with_confusion)
        total._integers.copy_(self._integers)
        total._floats.copy_(self._floats)
        if accelerator is not None and accelerator.num_processes > 1:
            torch.distributed.all_reduce(total._integers)
            torch.distributed.all_reduce(total._floats)
        return total

    @property
    def confusion(self) -> Tensor | None:
        """How often samples of a class (row) were taken for a class (column), int64 (K, K), if kept."""
        return self._rows if self.with_confusion else None

    @property
    def support(self) -> Tensor:
        """Samples of each class, int64 (K,)."""
        return self._rows.sum(1) if self.with_confusion else self._rows[0]

    @property
    def correct(self) -> Tensor:
        """Samples of each class that were recognised, int64 (K,)."""
        return self._rows.diagonal() if self.with_confusion else self._rows[1]

    @property
    def predicted(self) -> Tensor:
        """Samples taken for each class, int64 (K,)."""
        return self._rows.sum(0) if self.with_confusion else self._rows[2]

    @property
    def top5_correct(self) -> int | None:
        """Samples whose class is among the five best; None with fewer than five."""
        return int(self._integers[-1]) if self.num_classes >= 5 else None

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
    """Part of the samples whose best class is right."""
    top5: float | None
    """Part of the samples whose class is among the five best; None with fewer than five classes."""
    mean_per_class_accuracy: float
    """Mean over classes of the part that is recognised."""
    macro_f1: float
    """Mean over classes of the harmonic mean of precision and recall."""
    nll: float
    """Mean negative log-likelihood in nats."""
    count: int
    """Number of samples."""

    def present(self) -> dict[str, float | int]:
        """Return the scores by name, without those that are None."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def scores(tally: Tally) -> Scores:
    """Return the scores of a reduced tally."""
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
    """Return the scores of counts per class.

    Classes without samples are left out of the means; samples that were wrongly taken for one of them still
    count as wrong for their own class.

    Args:
        support: samples of each class, (K,).
        correct: those that were recognised, (K,).
        predicted: samples taken for each class, (K,).
        top5_correct: samples whose class is among the five best, if that is a question.
        nll_sum: sum of the negative log-likelihoods.

    Raises:
        DataError: there are no samples.
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
    """What weights are judged by."""

    @property
    def top1(self) -> float:
        """Part of the samples whose best class is right."""

    @property
    def nll(self) -> float:
        """Mean negative log-likelihood in nats."""


def is_better(candidate: Judged, best: Judged | None) -> bool:
    """Whether ``candidate`` replaces ``best``: by top-1, then nll; of equals the earlier stays."""
    return best is None or (candidate.top1, -candidate.nll) > (best.top1, -best.nll)


# --- the final scores, through `evaluate` ------------------------------------------------------------------


def final_scores(
    tally: Tally,
    metrics: Sequence[str] = (),
    predictions: Sequence[int] | Tensor | None = None,
    labels: Sequence[int] | Tensor | None = None,
) -> dict[str, Any]:
    """Return the scores of a split by name, and the counts they are made of; only for the main process.

    Our own come from the ``evaluate`` module in this package, which needs no network.

    Args:
        tally: reduced over the processes.
        metrics: further ``evaluate`` metrics, by Hub name or folder.
        predictions: the predicted class of every sample, (N,); needed for ``metrics``.
        labels: the true class of every sample, (N,).

    Returns:
        ``top1``, ``top5`` (with five classes or more), ``mean_per_class_accuracy``, ``macro_f1``, ``nll``,
        ``count``; ``per_class`` with ``support``, ``correct`` and ``predicted``; ``confusion``, where it was
        kept, as rows; and the values of ``metrics``.

    Raises:
        DataError: nothing to score, or a metric that cannot be had or computed.
    """
    per_class = {name: getattr(tally, name).tolist() for name in ("support", "correct", "predicted")}
    with tempfile.TemporaryDirectory() as folder:
        module = _import_evaluate().load(str(_MODULE), cache_dir=folder, keep_in_memory=True)
        result: dict[str, Any] = module.compute(**per_class, top5_correct=tally.top5_correct, nll_sum=tally.nll_sum)
    result["per_class"] = per_class
    if tally.confusion is not None:
        result["confusion"] = tally.confusion.tolist()
    if metrics:
        assert predictions is not None and labels is not None, "further metrics need predictions and labels"
        for name, value in further_scores(metrics, predictions, labels, tally.num_classes).items():
            result[f"metric.{name}" if name in result else name] = value
    return result


def further_scores(
    metrics: Sequence[str],
    predictions: Sequence[int] | Tensor,
    labels: Sequence[int] | Tensor,
    num_classes: int,
) -> dict[str, Any]:
    """Compute ``evaluate`` metrics of predicted classes; a value is named by its metric and, if needed, key.

    A metric that averages over classes (``f1``, ``precision``, ``recall``) and by default knows only two gets
    ``average="macro"`` for more, and says so in its name.

    Raises:
        DataError: a metric that cannot be had, or that is not made of predicted and true classes.
    """
    values: dict[str, Any] = {}
    inputs = {"predictions": _plain(predictions), "references": _plain(labels)}
    for metric in metrics:
        label, options = Path(metric).stem, {}
        with tempfile.TemporaryDirectory() as folder:
            try:
                module = _import_evaluate().load(metric, cache_dir=folder, keep_in_memory=True)
            except Exception as error:  # from the network, the Hub, or the metric's own imports
                raise DataError(
                    f"the metric {metric!r} cannot be loaded: {_one_line(error)}",
                    allowed=_METRICS_ALLOWED,
                ) from error
            average = inspect.signature(module._compute).parameters.get("average")
            if num_classes > 2 and average is not None and average.default == "binary":
                label, options = f"{label}_macro", {"average": "macro"}
            try:
                result = module.compute(**inputs, **options)
            except Exception as error:  # whatever a stranger's code raises
                reason = _one_line(error)
                raise DataError(
                    f"the metric {metric!r} cannot be computed from predicted and true classes: {reason}",
                    allowed="metrics whose `predictions` and `references` are whole numbers, such as f1",
                ) from error
        for key, value in (result or {}).items():
            name = label if key in (label, Path(metric).stem) else f"{label}.{key}"
            values[name] = value.tolist() if hasattr(value, "tolist") else value
    return values


def check_metrics(names: Sequence[str]) -> None:
    """Raise a UsageError for a metric that is a path to nothing, before hours are spent on a typo."""
    for name in names:
        path = Path(name).expanduser()
        script = path if path.suffix == ".py" else path / f"{path.name}.py"
        is_hub_name = name.count("/") < 2 and not path.suffix and not name.startswith(("/", ".", "~"))
        if not script.is_file() and not is_hub_name:
            raise UsageError(
                f"there is no metric at {name!r}: {script} does not exist",
                allowed=_METRICS_ALLOWED,
            )


def _import_evaluate() -> Any:
    # It counts every load on a host of its own, is deaf to HF_HUB_OFFLINE, and takes seconds to import.
    os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")
    import evaluate
    from huggingface_hub import constants

    evaluate.config.HF_UPDATE_DOWNLOAD_COUNTS = False
    evaluate.config.HF_EVALUATE_OFFLINE = evaluate.config.HF_EVALUATE_OFFLINE or constants.HF_HUB_OFFLINE
    # A metric's script is copied to this folder before it is imported; a read-only cache must not stop us.
    if not _is_writable(Path(evaluate.config.HF_MODULES_CACHE)):
        evaluate.config.HF_MODULES_CACHE = Path(tempfile.mkdtemp(prefix="vitft-modules-"))
        atexit.register(shutil.rmtree, evaluate.config.HF_MODULES_CACHE, ignore_errors=True)
    return evaluate


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _plain(values: Sequence[int] | Tensor) -> list[int]:
    return [int(value) for value in (values.tolist() if isinstance(values, Tensor) else values)]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__

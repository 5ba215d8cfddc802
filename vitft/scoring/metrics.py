"""Compute the final scores through `evaluate`: our own, and third-party metrics.

A third-party metric is Python code that vitft did not write. It runs only if a flag names it, is tried before training,
and gets copies of the data. Whatever it raises becomes an error message for that metric alone, and its values cannot
replace our scores.
"""

from __future__ import annotations

import atexit
import contextlib
import inspect
import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from vitft.errors import DataError, UsageError
from vitft.libraries import count_no_downloads
from vitft.scoring.evidence import evidence
from vitft.scoring.predictions import Predictions
from vitft.scoring.scores import Scores, Tally

OURS = frozenset(each.name for each in fields(Scores)) | {
    "per_class", "confusion", "confusion_axes", "bad_images", "shift_consistency", "brier", "ece", "ece_equal_count",
    "intervals", "reliability", "coverage", "confused_pairs", "calibration",
}  # fmt: skip
"""Names in a split's results that third-party metrics may not use."""
_ALLOWED = "a name from https://huggingface.co/evaluate-metric, or a folder NAME with NAME.py"
_MODULE = Path(__file__).parent / "modules" / "vitft_classification"
_TRIAL = ([0, 1, 1], [0, 1, 0])  # invented predictions and references


@dataclass
class Further:
    """Results of third-party metrics.

    Attributes:
        values: plain values for JSON, by name.
        refused: why a metric has no value, by metric.
    """

    values: dict[str, Any] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def final_scores(tally: Tally, classes: Sequence[str], predictions: Predictions | None = None) -> dict[str, Any]:
    """Return our scores of a split by name, with the counts behind them. Call it only in the main process.

    They come from the ``evaluate`` module in this package, which needs no network.

    Args:
        tally: summed over all processes.
        classes: class names, in order.
        predictions: of the same images, if they were collected.

    Returns:
        ``top1``, ``top5`` (with more than five classes), ``mean_per_class_accuracy``, ``macro_f1``, ``nll``,
        ``count``; ``per_class`` with ``class`` (names), ``support``, ``correct`` and ``predicted``; ``confusion``, if
        it was kept, with one row per true class; and with predictions what :mod:`vitft.scoring.evidence` finds.

    Raises:
        DataError: if there is nothing to score.
    """
    per_class = {name: getattr(tally, name).tolist() for name in ("support", "correct", "predicted")}
    with tempfile.TemporaryDirectory() as folder:
        module = _import_evaluate().load(str(_MODULE), cache_dir=folder, keep_in_memory=True)
        result: dict[str, Any] = module.compute(**per_class, top5_correct=tally.top5_correct, nll_sum=tally.nll_sum)
    result["per_class"] = {"class": list(classes), **per_class}
    if tally.confusion is not None:
        result["confusion"] = tally.confusion.tolist()
        result["confusion_axes"] = ["true class", "predicted class"]
    return result | (evidence(predictions, classes, result) if predictions is not None else {})


def further_scores(
    metrics: Sequence[str],
    predictions: Sequence[int] | Tensor,
    labels: Sequence[int] | Tensor,
    num_classes: int,
) -> Further:
    """Compute `evaluate` metrics from predicted classes.

    A value's name is its metric's and, if needed, its key; ``metric.NAME`` if one of our scores has that name. A metric
    that averages over classes (``f1``, ``precision``, ``recall``) and by default expects two classes gets
    ``average="macro"`` if there are more, and ``_macro`` in its name.

    Args:
        metrics: Hub names or folders.
        predictions: the predicted class of every sample, (N,).
        labels: the true class of every sample, (N,).
        num_classes: K.
    """
    found = Further()
    for metric in metrics:
        try:
            values = _compute(metric, _plain(predictions), _plain(labels), num_classes)
        except DataError as error:
            found.refused[metric] = error.wrong
            continue
        for name, value in values.items():
            name = f"metric.{name}" if name in OURS else name
            number = sum(other == name or other.startswith(f"{name}#") for other in found.values)
            found.values[f"{name}#{number + 1}" if number else name] = value  # two folders can have the same name
    return found


def check_metrics(names: Sequence[str]) -> None:
    """Raise a UsageError for a metric whose path does not exist, before anything is loaded."""
    for name in names:
        path = Path(name).expanduser()
        script = path if path.suffix == ".py" else path / f"{path.name}.py"
        is_hub_name = name.count("/") < 2 and not path.suffix and not name.startswith(("/", ".", "~"))
        if not script.is_file() and not is_hub_name:
            raise UsageError(f"there is no metric at {name!r}: {script} does not exist", allowed=_ALLOWED)


def try_metrics(names: Sequence[str], num_classes: int) -> None:
    """Load metrics and run them on three invented rows, so that a bad metric fails before hours of training.

    Raises:
        UsageError: if a metric fails, with its name and the reason.
    """
    predictions, labels = ([min(value, num_classes - 1) for value in each] for each in _TRIAL)
    for name in names:
        try:
            _compute(name, predictions, labels, num_classes)
        except DataError as error:
            raise UsageError(
                error.wrong, allowed=error.allowed, hint="fix the metric, or leave it out of --metrics"
            ) from error


# --- running third-party code ------------------------------------------------------------------------------


def _compute(metric: str, predictions: list[int], references: list[int], num_classes: int) -> dict[str, Any]:
    """Return the plain values of one metric by name; any failure raises a DataError."""
    label, options = Path(metric).stem, {}
    with tempfile.TemporaryDirectory() as folder:
        with _contained(f"the metric {metric!r} cannot be loaded", _ALLOWED):
            module = _import_evaluate().load(metric, cache_dir=folder, keep_in_memory=True)
            average = inspect.signature(module._compute).parameters.get("average")
        if num_classes > 2 and average is not None and average.default == "binary":
            label, options = f"{label}_macro", {"average": "macro"}
        with _contained(
            f"the metric {metric!r} cannot be computed from predicted and true classes",
            "metrics whose `predictions` and `references` are whole numbers, such as f1",
        ):
            result = module.compute(predictions=predictions, references=references, **options)
        with _contained(f"the metric {metric!r} returned a value that JSON cannot hold", "numbers, text and lists"):
            return _named(label, Path(metric).stem, result)


@contextlib.contextmanager
def _contained(subject: str, allowed: str) -> Iterator[None]:
    """Turn whatever third-party code raises, even SystemExit, into a DataError, and restore the working directory.

    A request to stop and an interrupt pass through. Its output goes to stderr, so that stdout stays clean.
    """
    place = Path.cwd()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except (Exception, SystemExit) as error:
        raise DataError(f"{subject}: {_reason(error)}", allowed=allowed) from error
    finally:
        os.chdir(place)


def _reason(error: BaseException) -> str:
    try:
        text = " ".join(str(error).split())[:300]
    except Exception:  # even str() of a third-party exception can fail
        text = ""
    if isinstance(error, SystemExit):
        return f"it tried to exit the program (SystemExit {text})"
    return text or type(error).__name__


def _named(label: str, stem: str, result: Any) -> dict[str, Any]:
    if result is None:
        return {}
    if not isinstance(result, Mapping):
        raise TypeError(f"a {type(result).__name__}, not values by name")
    values = {}
    for key, value in result.items():
        if not isinstance(key, str):
            raise TypeError(f"the key {key!r}, which is not text")
        values[label if key in (label, stem) else f"{label}.{key}"] = plain(value)
    json.dumps(
        values, ensure_ascii=False, allow_nan=False
    ).encode()  # fails for text that is not Unicode and numbers that are too long
    return values


def plain(value: Any) -> Any:
    """Convert a value for JSON; a number that is not finite becomes null, for an undefined score.

    Raises:
        TypeError: if JSON cannot hold it, naming its type.
    """
    if hasattr(value, "tolist"):  # numpy and torch
        value = value.tolist()
    if value is None or type(value) in (bool, int, str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: plain(each) for key, each in value.items()}
    raise TypeError(f"a {type(value).__name__}")


def _plain(values: Sequence[int] | Tensor) -> list[int]:
    return [int(value) for value in (values.tolist() if isinstance(values, Tensor) else values)]


# --- evaluate ----------------------------------------------------------------------------------------------


def _import_evaluate() -> Any:
    import evaluate  # here because it takes seconds
    from huggingface_hub import constants

    count_no_downloads()
    evaluate.config.HF_EVALUATE_OFFLINE = evaluate.config.HF_EVALUATE_OFFLINE or constants.HF_HUB_OFFLINE
    # `evaluate` copies a metric's script to this folder before importing it; the cache may be read-only.
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

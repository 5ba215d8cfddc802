"""How far a model's scores and probabilities can be trusted: intervals, calibration, coverage, confusions; no torch.

Shapes: N rows, K classes. "Confidence" is the probability of the predicted class.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from vitft.scoring.predictions import Predictions

NUM_BINS = 15  # Guo et al., arXiv:1706.04599, section 5
NUM_DRAWS = 1000


Interval = list[float]
"""Lower and upper end of a 95 % interval."""


def evidence(
    predictions: Predictions, classes: Sequence[str], scores: Mapping[str, Any], *, seed: int = 0
) -> dict[str, Any]:
    """Return what ``results.json`` says of a split beside its scores.

    Args:
        predictions: of the split; not empty.
        classes: names by id.
        scores: of the split, as ``vitft.scoring.metrics.final_scores`` returns them.
        seed: of the bootstrap.

    Returns:
        ``brier``, ``ece`` and ``ece_equal_count``; ``intervals`` by score; ``reliability`` with ``equal_width`` and
        ``equal_count``; ``coverage``; and ``confused_pairs``.
    """
    found = of_probabilities(predictions, seed=seed)
    del found["nll"]  # it is among the scores already, from a float64 sum
    found["intervals"] = intervals(predictions, len(classes), scores, seed=seed) | found["intervals"]
    found["coverage"] = coverage(predictions.p_predicted.astype(np.float64), predictions.is_correct)
    return found | {"confused_pairs": confused_pairs(predictions, classes)}


def of_probabilities(predictions: Predictions, *, seed: int = 0) -> dict[str, Any]:
    """Return what a temperature can change: the scores of the probabilities, not of the predicted classes.

    Args:
        predictions: of a split; not empty.
        seed: of the bootstrap.

    Returns:
        ``nll``, ``brier``, ``ece`` and ``ece_equal_count``; their ``intervals``, the middle 95 % of 1,000 bootstrap
        draws of the images (Efron 1979, doi:10.1214/aos/1176344552); and ``reliability`` with ``equal_width`` and
        ``equal_count``.
    """
    confidence, correct = predictions.p_predicted.astype(np.float64), predictions.is_correct
    by_width, by_count = equal_width_bins(confidence), equal_count_bins(confidence)
    nll, brier = predictions.nll.astype(np.float64), predictions.brier.astype(np.float64)
    scores: dict[str, Callable[[np.ndarray], float]] = {  # with a weight for each row, float64 (N,)
        "nll": lambda weights: float(weights @ nll / len(nll)),
        "brier": lambda weights: float(weights @ brier / len(brier)),
        "ece": lambda weights: calibration_error(confidence, correct, by_width, weights),
        "ece_equal_count": lambda weights: calibration_error(confidence, correct, by_count, weights),
    }
    generator = np.random.default_rng(seed)
    values: dict[str, list[float]] = {name: [] for name in scores}
    for _ in range(NUM_DRAWS):
        drawn = generator.integers(0, len(predictions), len(predictions))
        weights = np.bincount(drawn, minlength=len(predictions)).astype(np.float64)  # how often each row was drawn
        for name, score in scores.items():
            values[name].append(score(weights))
    once = np.ones(len(predictions))
    return {name: score(once) for name, score in scores.items()} | {
        "intervals": {name: _middle(np.array(each)) for name, each in values.items()},
        "reliability": {
            "equal_width": reliability(confidence, correct, by_width),
            "equal_count": reliability(confidence, correct, by_count),
        },
    }


# --- intervals ---------------------------------------------------------------------------------------------


def wilson(part: float, count: int) -> Interval:
    """Return the 95 % interval of a proportion (Wilson 1927, doi:10.1080/01621459.1927.10502953).

    Args:
        part: share that was right, 0 to 1.
        count: of how many.
    """
    from scipy.stats import binomtest

    found = binomtest(round(part * count), count).proportion_ci(0.95, method="wilson")
    return [float(found.low), float(found.high)]


def intervals(
    predictions: Predictions, num_classes: int, scores: Mapping[str, Any], *, seed: int
) -> dict[str, Interval]:
    """Return the 95 % interval of each score of the predicted classes.

    Of top-1 and top-5 it is Wilson's, of the others the middle 95 % of 1,000 bootstrap draws of the images.
    """
    found = {"top1": wilson(scores["top1"], len(predictions))}
    if "top5" in scores:
        found["top5"] = wilson(scores["top5"], len(predictions))
    return found | _of_counts(predictions, num_classes, np.random.default_rng(seed))


def _of_counts(predictions: Predictions, num_classes: int, generator: np.random.Generator) -> dict[str, Interval]:
    """Return the intervals of scores that depend only on how often each (label, predicted) occurs."""
    cells, counts = np.unique(
        predictions.label.astype(np.int64) * num_classes + predictions.predicted, return_counts=True
    )
    labels, predicted = np.divmod(cells, num_classes)
    is_hit = labels == predicted
    recalls, f1s = [], []
    for _ in range(NUM_DRAWS):  # one at a time: a thousand draws of a million cells would take 8 GB
        drawn = generator.multinomial(len(predictions), counts / counts.sum())
        support = np.bincount(labels, drawn, num_classes)
        taken = np.bincount(predicted, drawn, num_classes)
        hits = np.bincount(labels[is_hit], drawn[is_hit], num_classes)
        there = support > 0
        recalls.append((hits[there] / support[there]).mean())
        f1s.append((2 * hits[there] / (support + taken)[there]).mean())
    return {"mean_per_class_accuracy": _middle(np.array(recalls)), "macro_f1": _middle(np.array(f1s))}


def _middle(values: np.ndarray) -> Interval:
    """Return the 2.5th and the 97.5th percentile."""
    low, high = np.percentile(values, [2.5, 97.5])
    return [float(low), float(high)]


# --- calibration -------------------------------------------------------------------------------------------


def equal_width_bins(confidence: np.ndarray) -> np.ndarray:
    """Return the bin of each row, int64 (N,): 15 bins of the same width, the upper edge inside."""
    bins: np.ndarray = np.clip(np.ceil(confidence * NUM_BINS).astype(np.int64) - 1, 0, NUM_BINS - 1)
    return bins


def equal_count_bins(confidence: np.ndarray) -> np.ndarray:
    """Return the bin of each row, int64 (N,): 15 bins of as many rows, by rising confidence."""
    bins = np.empty(len(confidence), dtype=np.int64)
    bins[np.argsort(confidence, kind="stable")] = np.arange(len(confidence)) * NUM_BINS // len(confidence)
    return bins


def calibration_error(
    confidence: np.ndarray, correct: np.ndarray, bins: np.ndarray, weights: np.ndarray | None = None
) -> float:
    """Return the expected calibration error (arXiv:1706.04599, equation 3).

    It is the mean over rows of the distance between accuracy and mean confidence in the row's bin; ``weights`` say how
    often each row counts, once by default.
    """
    gaps = correct - confidence if weights is None else weights * (correct - confidence)
    total = len(confidence) if weights is None else weights.sum()
    return float(np.abs(np.bincount(bins, gaps, NUM_BINS)).sum() / total)


def reliability(confidence: np.ndarray, correct: np.ndarray, bins: np.ndarray) -> list[dict[str, float]]:
    """Return for each bin that has rows its ``count``, mean ``confidence`` and ``accuracy``."""
    counts = np.bincount(bins, minlength=NUM_BINS)
    confidences, hits = np.bincount(bins, confidence, NUM_BINS), np.bincount(bins, correct, NUM_BINS)
    return [
        {"count": int(count), "confidence": float(total / count), "accuracy": float(right / count)}
        for count, total, right in zip(counts, confidences, hits, strict=True)
        if count
    ]


def coverage(confidence: np.ndarray, correct: np.ndarray) -> list[dict[str, float]]:
    """Return what is right if only the surest images are answered (selective classification, arXiv:1705.08500).

    Returns:
        For 1 %, 2 %, ... 100 % of the images: ``coverage``, the ``accuracy`` on them, and the least ``confidence``.
    """
    order = np.argsort(-confidence, kind="stable")
    hits = np.cumsum(correct[order])
    found = []
    for percent in range(1, 101):
        answered = max(1, math.ceil(percent * len(order) / 100))
        found.append(
            {
                "coverage": answered / len(order),
                "accuracy": float(hits[answered - 1] / answered),
                "confidence": float(confidence[order[answered - 1]]),
            }
        )
    return found


def answered_at(curve: Sequence[Mapping[str, float]], accuracy: float) -> float:
    """Return the largest share of images that can be answered at an accuracy; 0 if there is none."""
    return max((point["coverage"] for point in curve if point["accuracy"] >= accuracy), default=0.0)


# --- mistakes ----------------------------------------------------------------------------------------------


def confused_pairs(predictions: Predictions, classes: Sequence[str], most: int = 10) -> list[dict[str, Any]]:
    """Return the most frequent mistakes, the most frequent first.

    Returns:
        Names of the ``true`` and the ``predicted`` class, the ``count`` of images, and their ``share`` of the true
        class's images.
    """
    support = np.bincount(predictions.label)
    return [
        {"true": classes[true], "predicted": classes[said], "count": count, "share": float(count / support[true])}
        for true, said, count in frequent_mistakes(predictions, most)
    ]


def frequent_mistakes(predictions: Predictions, most: int = 10) -> list[tuple[int, int, int]]:
    """Return the ids of the true and the predicted class, and how often: the most frequent mistakes first."""
    wrong = predictions.take(~predictions.is_correct)
    pairs, counts = np.unique(np.stack((wrong.label, wrong.predicted), 1), axis=0, return_counts=True)
    order = np.lexsort((pairs[:, 1], pairs[:, 0], -counts))[:most]
    return [(int(pairs[place, 0]), int(pairs[place, 1]), int(counts[place])) for place in order]


def surest_mistakes(predictions: Predictions, most: int = 20) -> np.ndarray:
    """Return the places of the wrong predictions with the highest confidence, the surest first, int64 (<= most,)."""
    wrong = np.flatnonzero(~predictions.is_correct)
    order: np.ndarray = wrong[np.argsort(-predictions.p_predicted[wrong], kind="stable")][:most]
    return order


def mcnemar(one: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """Return whether two models differ on the same images (McNemar 1947, doi:10.1007/BF02295996; exact).

    Args:
        one, other: whether each model was right, bool (N,).

    Returns:
        ``only_one`` and ``only_other``, images that one of the two alone had right; and the two-sided ``p``.
    """
    from scipy.stats import binomtest

    only_one, only_other = int((one & ~other).sum()), int((other & ~one).sum())
    total = only_one + only_other
    p = float(binomtest(only_one, total, 0.5).pvalue) if total else 1.0
    return {"only_one": only_one, "only_other": only_other, "p": p}

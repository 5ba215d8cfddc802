"""The ViT paper's few-shot evaluation: a linear map from features to classes in closed form (arXiv:2010.11929, 4.1).

The paper says "regularized least-squares regression" onto {-1, 1}. Whitening, bias, strength, sampling and seeds, which
it leaves open, are those of ``big_vision/evaluators/fewshot_lsr.py``, which made such numbers.

Legend: N images, D features, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg

from vitft.probes.labelled import Labelled

SHOTS = (1, 5, 10, 25)
"""Images of each class, by default."""
NUM_SEEDS = 3
L2 = 2.0**10
_BIAS = 100.0  # a constant feature so large that the bias is hardly regularised
_LEAST_STD = 1e-5


@dataclass(frozen=True, eq=False)
class LinearMap:
    """A linear map of whitened features.

    Attributes:
        mean, std: of each feature over the images that it was fitted on, float64 (D,).
        weights: float64 (D + 1, K); the last row belongs to the constant feature.
    """

    mean: np.ndarray
    std: np.ndarray
    weights: np.ndarray

    def scores(self, values: np.ndarray) -> np.ndarray:
        """Return the scores of features (N, D), float64 (N, K); the largest is the predicted class."""
        made: np.ndarray = _whitened(values, self.mean, self.std) @ self.weights
        return made


def fit(values: np.ndarray, labels: np.ndarray, num_classes: int, l2: float = L2) -> LinearMap:
    """Fit a linear map in closed form, on the images or on the features, whichever are fewer.

    Args:
        values: features, (N, D).
        labels: class ids, (N,).
        num_classes: K.
        l2: strength of the regularisation.
    """
    mean, std = values.mean(0, dtype=np.float64), values.std(0, dtype=np.float64) + _LEAST_STD
    x = _whitened(values, mean, std)
    y = 2 * np.eye(num_classes)[labels] - 1
    has_fewer_images = len(x) < x.shape[1]  # (X'X + l2 I)^-1 X'Y = X'(XX' + l2 I)^-1 Y
    weights = x.T @ _solve(x @ x.T, l2, y) if has_fewer_images else _solve(x.T @ x, l2, x.T @ y)
    return LinearMap(mean, std, weights)


def support(labels: np.ndarray, num_classes: int, shots: int, seed: int) -> np.ndarray:
    """Choose the images to learn from: ``shots`` of each class, the first of a permutation, so more shots add to fewer.

    Args:
        labels: class ids, (N,).
        num_classes: K.
        shots: images of each class; a class with fewer gives all.
        seed: of the permutations.

    Returns:
        Row numbers, class by class.
    """
    generator = np.random.default_rng(seed)
    chosen = [generator.permutation(np.flatnonzero(labels == number))[:shots] for number in range(num_classes)]
    return np.concatenate(chosen)


def accuracies(train: Labelled, test: Labelled, num_classes: int, shots: Sequence[int]) -> dict[int, list[float]]:
    """Return the share of right predictions for each number of shots, one value per seed."""
    found: dict[int, list[float]] = {}
    for count in shots:
        found[count] = []
        for seed in range(NUM_SEEDS):
            rows = support(train.labels, num_classes, count, seed)
            fitted = fit(train.values[rows], train.labels[rows], num_classes)
            found[count].append(float((fitted.scores(test.values).argmax(1) == test.labels).mean()))
    return found


def _whitened(values: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Return whitened features with the constant one behind them, float64 (N, D + 1)."""
    return np.pad((values - mean) / std, ((0, 0), (0, 1)), constant_values=_BIAS)


def _solve(gram: np.ndarray, l2: float, right: np.ndarray) -> np.ndarray:
    gram[np.diag_indices_from(gram)] += l2
    solved: np.ndarray = linalg.solve(gram, right, assume_a="pos")
    return solved

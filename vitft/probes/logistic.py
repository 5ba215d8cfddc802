"""Logistic regression on features, its strength of regularisation chosen on validation images.

Legend: N images, D features, K classes.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax

from vitft.probes.labelled import Labelled
from vitft.scoring.scores import is_better

_STRENGTHS = tuple(10.0**power for power in range(0, -7, -1))  # from strong to weak: each fit starts from the last one
_FINER = 10**0.5
_MOST_ITERATIONS = 200
_LEAST_STD = 1e-5
_NEVER = -1e4  # the bias of a class without training images


@dataclass(frozen=True, eq=False)
class Judged:
    """What was said of a split's images.

    Attributes:
        is_right: whether each prediction is right, bool (N,).
        nll: mean negative log-likelihood in nats.
    """

    is_right: np.ndarray
    nll: float

    @property
    def top1(self) -> float:
        """Share of right predictions."""
        return float(self.is_right.mean())


@dataclass(frozen=True, eq=False)
class LogisticHead:
    """A linear layer from features to logits.

    Attributes:
        weight, bias: float64 (K, D) and (K,).
        l2: mean loss + l2 / 2 * squared norm was minimised, the norm that of the weights of standardised features.
        is_done: whether the fit ended before the limit of iterations.
    """

    weight: np.ndarray
    bias: np.ndarray
    l2: float
    is_done: bool

    def judge(self, rows: Labelled) -> Judged:
        """Predict a split."""
        logits = rows.values @ self.weight.T + self.bias
        likelihoods = log_softmax(logits, axis=1)[np.arange(len(rows)), rows.labels]
        return Judged(logits.argmax(1) == rows.labels, float(-likelihoods.mean()))


def fit_best(train: Labelled, validation: Labelled, num_classes: int) -> tuple[LogisticHead, Judged]:
    """Fit heads on training images and return the best on the validation images, with what it said of them.

    Strengths a power of ten apart are tried from strong to weak, until two in a row are no better, then half a power to
    either side of the best. Best is, as for the weights of a run: the highest top-1, of equal ones the lowest negative
    log-likelihood.
    """
    sweep = _Sweep(train, num_classes)
    best = sweep.fit(_STRENGTHS[0])
    judged = best.judge(validation)

    def is_improved(l2: float) -> bool:
        nonlocal best, judged
        head = sweep.fit(l2)
        found = head.judge(validation)
        if is_better(found, judged):
            best, judged = head, found
            return True
        return False

    num_worse = 0
    for l2 in _STRENGTHS[1:]:
        num_worse = 0 if is_improved(l2) else num_worse + 1
        if num_worse == 2:
            break
    for l2 in (best.l2 * _FINER, best.l2 / _FINER):
        is_improved(l2)
    return best, judged


class _Sweep:
    """Fits with several strengths, each of which starts from the weights of the one before."""

    def __init__(self, train: Labelled, num_classes: int) -> None:
        from sklearn.linear_model import LogisticRegression

        self._num_classes, self._labels = num_classes, train.labels
        self._mean = train.values.mean(0, dtype=np.float64)
        self._std = train.values.std(0, dtype=np.float64) + _LEAST_STD
        self._standard = (train.values - self._mean) / self._std
        self._model = LogisticRegression(max_iter=_MOST_ITERATIONS, warm_start=True)

    def fit(self, l2: float) -> LogisticHead:
        """Fit with one strength; return the head for features as they are, not standardised."""
        from sklearn.exceptions import ConvergenceWarning

        model = self._model
        model.C = 1 / (l2 * len(self._labels))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # is_done says it
            model.fit(self._standard, self._labels)
        weight, bias = model.coef_, model.intercept_
        if len(weight) == 1:  # of two classes, scikit-learn keeps the difference
            weight, bias = np.concatenate([-weight / 2, weight / 2]), np.concatenate([-bias / 2, bias / 2])
        weight = weight / self._std
        bias = bias - weight @ self._mean
        whole = np.zeros((self._num_classes, weight.shape[1])), np.full(self._num_classes, _NEVER)
        for every, known in zip(whole, (weight, bias), strict=True):
            every[model.classes_] = known
        return LogisticHead(*whole, l2, bool(np.max(model.n_iter_) < _MOST_ITERATIONS))

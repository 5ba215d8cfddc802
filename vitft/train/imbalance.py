"""Skewed classes: what the data say, and what ``train.imbalance`` does about them.

Legend: B batch, K classes, n training images, n_c those of class c. A class without training images counts as if it had
one in weights and priors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vitft.data.images import ImageSource, ImageSplit, StreamSplit
from vitft.data.row_order import ClassSampling, epoch_quotas
from vitft.errors import TrainError
from vitft.outside import printable
from vitft.recipe.recipe import Recipe

SKEWED = 5.0
"""How many times as many images as the smallest class the largest must have for a note in the plan."""

_WEIGHT_POWERS = {"weights": 1.0, "sqrt-weights": 0.5}  # of n / (K * n_c)
_SAMPLING_POWERS = {"sampling": 0.0, "sqrt-sampling": 0.5}  # of n_c
SAMPLING = tuple(_SAMPLING_POWERS)
"""The settings that show rare images more often."""


class ImbalancePlan(NamedTuple):
    """What the plan says about skewed classes."""

    reason: str = ""
    """What the setting does, with its numbers; empty for ``none``."""
    notes: tuple[str, ...] = ()
    most_shown: float = 1.0
    """How often an epoch shows the images of the class that it shows most often."""


def plan_imbalance(recipe: Recipe, train: ImageSplit | StreamSplit, classes: Sequence[str]) -> ImbalancePlan:
    """Say how skewed the training images are, and what the recipe's setting does about it.

    Raises:
        TrainError: for a setting other than ``none`` with a stream, whose classes are not counted.
    """
    setting = recipe.train.imbalance
    if not isinstance(train, ImageSplit):
        if setting != "none":
            raise TrainError(
                f"train.imbalance: {setting} needs the number of images per class, which is unknown for a stream",
                hint="--set train.imbalance=none, or leave out --streaming",
            )
        return ImbalancePlan()
    counts = train.class_counts(len(classes))
    skew = _skew(counts, classes)
    if setting == "none":
        hint = "; rare classes may be recognised better with --set train.imbalance=sqrt-weights"
        return ImbalancePlan(notes=(f"{skew}{hint} (docs/models-and-recipes.md)",) if skew else ())
    notes = (skew,) if skew else ()
    if setting in _SAMPLING_POWERS:
        return _sampling_plan(epoch_quotas(counts, _SAMPLING_POWERS[setting]), counts, notes)
    if setting in _WEIGHT_POWERS:
        weights = _weights(counts, _WEIGHT_POWERS[setting])
        formula = "n / (classes * images)" if setting == "weights" else "the square root of n / (classes * images)"
        span = _span(f"{weights.min():.3g}", f"{weights.max():.3g}")
        return ImbalancePlan(f"a class weighs {formula} in the loss: {span}", notes)
    tau = f"{recipe.train.imbalance_tau:g}"
    return ImbalancePlan(f"{tau} * log(part of the images) is added to a class's logit in the training loss", notes)


def _skew(counts: np.ndarray, classes: Sequence[str]) -> str:
    """Return a sentence about the largest and the smallest class; empty if they are alike."""
    used = np.flatnonzero(counts)
    if not len(used):
        return ""
    largest, smallest = (int(used[place(counts[used])]) for place in (np.argmax, np.argmin))
    ratio = counts[largest] / counts[smallest]
    if ratio < SKEWED:
        return ""
    names = [printable(classes[k])[:30] for k in (largest, smallest)]
    sizes = f"{names[0]} has {counts[largest]:,} training images, {names[1]} {counts[smallest]:,}"
    return f"classes are skewed: {sizes} ({ratio:.3g} to 1)"


def _sampling_plan(quotas: np.ndarray, counts: np.ndarray, notes: tuple[str, ...]) -> ImbalancePlan:
    used = counts > 0
    shown = quotas[used] / counts[used]
    each = _span(f"{quotas[used].min():,}", f"{quotas[used].max():,}")
    times = _span(f"{shown.min():.3g}", f"{shown.max():.3g}")
    reason = f"an epoch stays {counts.sum():,} samples, {each} of each class: it shows an image {times} times"
    return ImbalancePlan(reason, notes, float(shown.max()))


def _span(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"


def sampling_of(recipe: Recipe, source: ImageSource) -> ClassSampling | None:
    """Return how often an epoch shows each class; None if it shows every image once."""
    power = _SAMPLING_POWERS.get(recipe.train.imbalance)
    if power is None:
        return None
    assert isinstance(source.train, ImageSplit)  # plan_imbalance has refused streams
    return ClassSampling.of(source.train, len(source.classes), power)


@dataclass(frozen=True)
class ClassBalance:
    """The training loss, with what the recipe changes in it for skewed classes.

    Attributes:
        weights: of each class, float32 (K,); None: all alike.
        offsets: added to the logits of each class, float32 (K,); None: nothing.
    """

    weights: Tensor | None = None
    offsets: Tensor | None = None

    @classmethod
    def of(cls, recipe: Recipe, source: ImageSource, device: torch.device) -> ClassBalance:
        """Return what a recipe asks for: class weights, or logit adjustment.

        Logit adjustment adds tau * log(n_c / n) to the logits while training; a model that makes up for it without
        them is right for classes that are equally frequent (Menon et al., arXiv:2007.07314, equation 10).
        """
        setting, train = recipe.train.imbalance, source.train
        if setting not in (*_WEIGHT_POWERS, "logit-adjustment"):
            return cls()
        assert isinstance(train, ImageSplit)  # plan_imbalance has refused streams
        counts = train.class_counts(len(source.classes))
        if setting in _WEIGHT_POWERS:
            return cls(weights=torch.from_numpy(_weights(counts, _WEIGHT_POWERS[setting])).float().to(device))
        offsets = recipe.train.imbalance_tau * np.log(np.maximum(counts, 1) / counts.sum())
        return cls(offsets=torch.from_numpy(offsets).float().to(device))

    @classmethod
    def of_rows(cls, recipe: Recipe, source: ImageSource, device: torch.device) -> ClassBalance:
        """Return the balance of a loss over every row once: sampling becomes the weights that mean the same."""
        power = _SAMPLING_POWERS.get(recipe.train.imbalance)
        if power is None:
            return cls.of(recipe, source, device)
        assert isinstance(source.train, ImageSplit)  # plan_imbalance has refused streams
        counts = source.train.class_counts(len(source.classes))
        weights = epoch_quotas(counts, power) / np.maximum(counts, 1)
        return cls(weights=torch.from_numpy(weights).float().to(device))

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the summed cross-entropy, shape ().

        Args:
            logits: (B, K).
            targets: soft, with label smoothing and mixing in them, (B, K); in the precision in which to compute.
        """
        logits = logits.to(targets.dtype)
        if self.offsets is not None:
            logits = logits + self.offsets
        weights = None if self.weights is None else self.weights.to(targets.dtype)
        return F.cross_entropy(logits, targets, weight=weights, reduction="sum")


EVEN = ClassBalance()
"""The plain cross-entropy."""


def _weights(counts: np.ndarray, power: float) -> np.ndarray:
    """Return the weight of each class, (n / (K * n_c)) ** power, float64 (K,)."""
    weights: np.ndarray = (counts.sum() / (len(counts) * np.maximum(counts, 1))) ** power
    return weights

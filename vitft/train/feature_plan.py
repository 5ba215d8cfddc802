"""Decide whether the features of a frozen backbone are computed once, of which views, and what that costs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from vitft.data.images import ImageSource, ImageSplit
from vitft.errors import ModelError
from vitft.machine import all_memory
from vitft.model.block_input import BlockInput, block_input
from vitft.model.classifier import Classifier
from vitft.model.head_input import HeadInput, head_input
from vitft.quantities import size_text
from vitft.recipe.recipe import Recipe
from vitft.train.cost import forward_gflop
from vitft.train.imbalance import SAMPLING
from vitft.views.policy import varies

_MOST_OF_MEMORY = 4  # features of a block take at most this part of the memory, one in so many


@dataclass(frozen=True)
class FeaturePlan:
    """Which features of a frozen backbone are computed before the head, or the last blocks, are trained.

    Attributes:
        read: what the first module that is trained reads.
        num_train, num_validation: images of the two splits.
        num_views: random views of each training image; 0: the plain image, as it is scored.
        rest_gflop: GFLOPs of one image's forward pass through a block and what comes after it; 0 for a head.
        notes: what differs from running the backbone in every epoch.
    """

    read: HeadInput | BlockInput
    num_train: int
    num_validation: int
    num_views: int
    rest_gflop: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def num_images(self) -> int:
        """Images that go through the backbone, all views counted."""
        return self.num_train * max(1, self.num_views) + self.num_validation

    @property
    def num_bytes(self) -> int:
        """Memory of all features, in float32."""
        return 4 * self.num_images * math.prod(self.read.shape)

    @property
    def views(self) -> str:
        """What is computed of each image, in words."""
        if isinstance(self.read, BlockInput):
            return "the one view of each image"
        if self.num_views == 0:
            return "each plain image"
        return f"{self.num_views} random view{'s' * (self.num_views > 1)} of each image"


def cost_rows(
    features: FeaturePlan | None, gflop: float, total_gflop: float, is_explained: bool
) -> list[tuple[str, str, str]]:
    """Return the plan's rows on features and cost: name, value, reason.

    Args:
        features: None if there are none.
        gflop: of one image's forward pass.
        total_gflop: of the whole training.
        is_explained: whether the plan has a reason for having no features.
    """
    total = f"{total_gflop / 1e6:.3g} PFLOP in all"
    if features is None:
        off = [("features", "off", "")] if is_explained else []
        return [*off, ("cost", f"{3 * gflop:.1f} GFLOP", f"per training image, {total}")]
    size = " x ".join(map(str, (f"{features.num_train:,}", *features.read.shape)))
    what = f"computed once from {features.views}; the memory includes validation"
    cost = f"per image, each view once; {total}, without the head"
    if isinstance(features.read, BlockInput):
        what = f"what {features.read.module} reads, {what}"
        cost = f"per image once, then {3 * features.rest_gflop:.1f} each time it is trained on; {total}"
    return [("features", size_text(features.num_bytes), f"{size}, {what}"), ("cost", f"{gflop:.1f} GFLOP", cost)]


def plan_features(
    recipe: Recipe, source: ImageSource, classifier: Classifier, total_samples: int, reasons: dict[str, str]
) -> FeaturePlan | None:
    """Return the plan of the features; None, with the reason in ``reasons``, if there are none.

    If everything is trained, there is nothing to explain.
    """
    if recipe.model.train == "all":
        return None
    try:
        if why_not := "as given" if recipe.train.features == "off" else _obstacle(recipe, source, classifier.model):
            raise ModelError(why_not)
        if recipe.model.train == "head":
            return _of_head(recipe, source, classifier, total_samples)
        return _of_block(recipe, source, classifier)
    except ModelError as error:
        reasons["features"] = f"{error.wrong}; the backbone runs in every epoch"
        return None


def _of_head(recipe: Recipe, source: ImageSource, classifier: Classifier, total_samples: int) -> FeaturePlan:
    """Return the plan of the features that a head reads."""
    read = head_input(classifier.model, classifier.head, classifier.image_size)
    num_train, num_validation = _counts(source)
    num_views = recipe.train.feature_views
    if recipe.train.imbalance not in SAMPLING:  # else a rare image is shown more often than there are epochs
        num_views = min(num_views, -(-total_samples // num_train))
    return FeaturePlan(
        read, num_train, num_validation, num_views, notes=tuple(_notes(recipe, classifier.model, num_views))
    )


def _of_block(recipe: Recipe, source: ImageSource, classifier: Classifier) -> FeaturePlan:
    """Return the plan of the features that the first of the last blocks reads.

    Raises:
        ModelError: if the model does not run from there on, or the features take too much memory.
    """
    num_blocks = int(recipe.model.train.removeprefix("last:"))
    read = block_input(classifier.model, classifier.head, num_blocks, classifier.image_size)
    rest_gflop = forward_gflop(read.rest(classifier.model), read.shape)
    plan = FeaturePlan(read, *_counts(source), num_views=1, rest_gflop=rest_gflop)
    memory, whose = all_memory()
    if plan.num_bytes > memory / _MOST_OF_MEMORY:
        needed, there = size_text(plan.num_bytes), size_text(memory)
        raise ModelError(f"what {read.module} reads of all images takes {needed}, too much for {whose} with {there}")
    return plan


def _counts(source: ImageSource) -> tuple[int, int]:
    """Return the images of training and validation."""
    assert isinstance(source.train, ImageSplit)
    return len(source.train), len(source.validation) if isinstance(source.validation, ImageSplit) else 0


def _obstacle(recipe: Recipe, source: ImageSource, model: torch.nn.Module) -> str:
    """Return why features cannot be kept; empty if they can."""
    part = recipe.model.train
    if part != "head" and not part.startswith("last:"):
        return f"model.train: {part} changes what the head reads in every step"
    if not isinstance(source.train, ImageSplit) or not isinstance(source.validation, ImageSplit | None):
        return "a stream is read only once"
    if len({size for size, _ in recipe.train.resolution_schedule or ()}) > 1:
        return "the image size changes (train.resolution_schedule)"
    return "" if part == "head" else _changes_of_a_block(recipe, model)


def _changes_of_a_block(recipe: Recipe, model: torch.nn.Module) -> str:
    """Return why a block does not always read the same of an image; empty if it does."""
    if varies(recipe.augment):
        return f"random views (augment) change what {recipe.model.train} reads each time"
    if recipe.model.drop_path:
        return "model.drop_path also drops branches of frozen blocks"
    return "the model has dropout" if _has_dropout(model) else ""


def _has_dropout(model: torch.nn.Module) -> bool:
    return any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules())


def _notes(recipe: Recipe, model: torch.nn.Module, num_views: int) -> list[str]:
    """Return what differs from running the backbone in every epoch."""
    augment = recipe.augment
    has_mixing = max(augment.mixup_alpha, augment.cutmix_alpha) > 0
    if num_views == 0:
        notes = [
            "features: of the plain images, because random views would run the backbone for each; nothing in "
            "augment but label_smoothing is used (train.feature_views=N: of N random views; train.features=off: a "
            "new view in every epoch)"
        ]
    else:
        notes = [f"features: the k-th time that an image is shown, counted from 0, it is view k mod {num_views}"]
        if num_views == 1:
            notes = ["features: an image is always shown as the same random view"]
        if has_mixing:
            notes.append("features: mixup and CutMix are not used, because they blend pixels (train.features=off)")
    off = [*(["drop path"] if recipe.model.drop_path else []), *(["dropout"] if _has_dropout(model) else [])]
    if off:
        notes.append(f"features: {' and '.join(off)} in the frozen backbone: off")
    return notes

"""What the network sees in training: any sample, staged, varied and mixed as there, for a page to show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from vitft.data.batches import StagedBatch
    from vitft.data.images import ImageSplit
    from vitft.data.row_order import ClassSampling
    from vitft.data.train_batches import StepSlices
    from vitft.train.setup import Setup

_MOST_LABELS, _LEAST_SHARE = 3, 0.01


class TrainingViews:
    """The views of a training.

    Args:
        setup: what is trained.
        split: the training images; those that cannot be read have their stand-ins.
        slices: which samples are read together.
        sampling: the numbers of each class in an epoch, if the recipe asks for others than there are.

    Attributes:
        augment: the random changes; without label smoothing, which would stand at every image alike.
        batches: the staged samples.
    """

    def __init__(
        self, setup: Setup, split: ImageSplit, slices: StepSlices, sampling: ClassSampling | None = None
    ) -> None:
        from vitft.data.train_batches import TrainBatches
        from vitft.features.views import unmixed

        recipe, plan = setup.recipe, setup.plan
        augment = recipe.augment if plan.features is None else unmixed(recipe.augment)
        self._setup, self.augment = setup, augment.model_copy(update={"label_smoothing": 0.0})
        self.batches = TrainBatches(
            split,
            slices,
            seed=recipe.train.seed,
            stage_size=plan.stage_size,
            skip_bad=True,
            workers=0,
            pin=False,
            max_pixels=recipe.data.max_pixels,
            sampling=sampling,
        )

    def of(self, batch: StagedBatch, step: int) -> tuple[Tensor, Tensor]:
        """Return levels (B, 3, H, W) from 0 to 255 and targets (B, K) of a staged batch, as the step sees it."""
        from vitft.views.policy import policy

        recipe, classifier = self._setup.recipe, self._setup.classifier
        view = policy(
            self.augment,
            resize_mode=recipe.data.fit,
            image_size=self._setup.plan.phase_at(step).image_size,
            normalise=classifier.pixel_values,
            num_classes=len(self._setup.source.classes),
            seed=recipe.train.seed,
        )
        pixel_values, targets = view(batch)
        return classifier.pixel_values.levels(pixel_values), targets


def main_labels(target: Tensor, classes: Sequence[str]) -> list[tuple[str, float]]:
    """Return the classes of a target (K,) with their shares, the largest first, without the smallest."""
    best = [(share, number) for number, share in enumerate(target.tolist()) if share >= _LEAST_SHARE]
    best.sort(key=lambda each: (-each[0], each[1]))
    return [(classes[number], share) for share, number in best[:_MOST_LABELS]]


def as_image(levels: Tensor) -> Image:
    """Return levels (3, H, W) from 0 to 255 as an image."""
    import torch
    from PIL import Image

    return Image.fromarray(levels.to(torch.uint8).permute(1, 2, 0).contiguous().numpy())

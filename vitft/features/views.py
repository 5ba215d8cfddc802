"""Which views of an image a frozen backbone sees: the plain image, or random ones as a training has them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from vitft.data import order
from vitft.data.images import ImageSplit
from vitft.data.train_batches import StepSlices, TrainBatches
from vitft.features.backbone import Backbone, Seen
from vitft.recipe.keys import AugmentRecipe
from vitft.scoring.evaluation import batches_of
from vitft.views.policy import policy


def unmixed(augment: AugmentRecipe) -> AugmentRecipe:
    """Return the views of single images; mixing blends the pixels of two, which features cannot."""
    return augment.model_copy(update={"mixup_alpha": 0.0, "cutmix_alpha": 0.0})


@dataclass(frozen=True)
class PlainView:
    """The image as it is scored."""

    num_views = 1

    def facts(self) -> dict[str, Any]:
        """Return what the features depend on."""
        return {"views": 0}

    def seen(self, backbone: Backbone, split: ImageSplit) -> Iterator[Seen]:
        """Yield this process's part of a split."""
        batches = batches_of(
            split,
            backbone.classifier,
            backbone.accelerator,
            batch_size=backbone.batch_size,
            skip_bad=backbone.data.bad_images == "skip",
            workers=backbone.workers,
            max_pixels=backbone.data.max_pixels,
        )
        for batch in batches:
            pixel_values = backbone.classifier.pixel_values(batch.to(backbone.accelerator.device).images)
            yield batch, torch.zeros(len(batch), dtype=torch.int64), batch.sample_indices, pixel_values


@dataclass(frozen=True)
class RandomViews:
    """Several random views of each image: those of the first epochs of a training, without mixing.

    Attributes:
        num_views: of each image.
        augment: the random changes.
        image_size: (height, width) of a view.
        stage_size: largest side of a staged image, in pixels.
        seed: for every random choice.
    """

    num_views: int
    augment: AugmentRecipe
    image_size: tuple[int, int]
    stage_size: int
    seed: int

    def facts(self) -> dict[str, Any]:
        """Return what the features depend on."""
        augment = {"augment": self.augment.model_dump(mode="json"), "seed": self.seed}
        return {"views": self.num_views, **augment, "stage_size": self.stage_size}

    def seen(self, backbone: Backbone, split: ImageSplit) -> Iterator[Seen]:
        """Yield this process's part of all views; the next image of the order stands in for a skipped one."""
        accelerator, data = backbone.accelerator, backbone.data
        rank, world_size = accelerator.process_index, accelerator.num_processes
        total, step_size = self.num_views * len(split), backbone.batch_size * world_size
        batches = TrainBatches(
            split,
            StepSlices(len(split), step_size, backbone.batch_size, total, rank, world_size),
            seed=self.seed,
            stage_size=self.stage_size,
            skip_bad=data.bad_images == "skip",
            workers=backbone.workers,
            pin=accelerator.device.type == "cuda",
            max_pixels=data.max_pixels,
        )
        view = policy(
            unmixed(self.augment),
            resize_mode=data.fit,
            image_size=self.image_size,
            normalise=backbone.classifier.pixel_values,
            num_classes=len(backbone.classifier.classes),
            seed=self.seed,
        )
        for batch in itertools.chain.from_iterable(batches.steps(0, -(-total // step_size))):
            indices = batch.sample_indices
            rows = order.sample_at(self.seed, indices, len(split))
            yield batch, indices // len(split), rows, view(batch.to(accelerator.device))[0]

"""The recipe's ``augment`` section -> one function from a staged batch to pixel values and targets."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vitft.data import order
from vitft.data.batches import StagedBatch
from vitft.recipe.choices import ResizeMode
from vitft.recipe.keys import AugmentRecipe
from vitft.views.color import erase
from vitft.views.geometry import random_boxes
from vitft.views.mixing import draw_mixture, mix, soft_targets
from vitft.views.pixel_values import Normalisation
from vitft.views.resampling import resample

View = Callable[[StagedBatch], tuple[Tensor, Tensor]]
"""Staged batch -> pixel_values, float32 (B, 3, H, W), and targets, float32 (B, K), on the device of its images."""


def policy(
    augment: AugmentRecipe,
    *,
    resize_mode: ResizeMode,
    image_size: tuple[int, int],
    normalise: Normalisation,
    num_classes: int,
    seed: int,
) -> View:
    """Return the function that makes a run's random views.

    A view depends only on the seed, the image and its sample index (with mixing, also its partner's), never on the
    rest of the batch. Each operation draws from its own stream, so changing one does not affect the others.

    Args:
        augment: the operations and their strengths.
        resize_mode: how an image fills the view.
        image_size: height and width of the view in pixels.
        normalise: how pixels become what the model takes.
        num_classes: K.
        seed: the run's seed.

    Returns:
        A :data:`View`.
    """
    has_mixing = (augment.mixup_alpha > 0 or augment.cutmix_alpha > 0) and augment.mix_probability > 0

    @torch.no_grad()
    def view(batch: StagedBatch) -> tuple[Tensor, Tensor]:
        """Return the pixel values and soft targets of a batch."""
        device = batch.images.device

        def draw(stream: str, k: int) -> Tensor:
            return order.uniform(seed, stream, batch.sample_indices, k).to(device, non_blocking=True)

        scale, ratio = augment.crop_scale, augment.crop_ratio
        boxes = random_boxes(
            draw("crop", 4), batch.originals, image_size, scale=scale, ratio=ratio, resize_mode=resize_mode
        )
        flips = draw("flip", 1)[:, 0] < augment.flip
        pixel_values = resample(batch.images, batch.sizes, boxes, flips, image_size, normalise)
        if augment.erase:
            draws = draw("erase", 5)
            pixel_values = erase(pixel_values, draws, probability=augment.erase, area=augment.erase_area)

        targets = soft_targets(batch.labels, num_classes, augment.label_smoothing)
        if has_mixing and len(targets) > 1:
            even_slots = batch.sample_indices[: len(targets) // 2 * 2 : 2]  # one per pair
            mixture = draw_mixture(
                order.uniform(seed, "mix", even_slots, 5),
                image_size,
                mixup_alpha=augment.mixup_alpha,
                cutmix_alpha=augment.cutmix_alpha,
                probability=augment.mix_probability,
            )
            pixel_values, targets = mix(pixel_values, targets, mixture)
        return pixel_values, targets

    return view

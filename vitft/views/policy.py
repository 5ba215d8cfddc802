"""The recipe's ``augment`` section -> one function from a staged batch to what model and loss take."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vitft.data import order
from vitft.data.batches import StagedBatch
from vitft.recipe.choices import ResizeMode
from vitft.recipe.keys import AugmentRecipe
from vitft.views.color import erase
from vitft.views.geometry import random_boxes, resample
from vitft.views.mixing import draw_mixture, mix, soft_targets

View = Callable[[StagedBatch], tuple[Tensor, Tensor]]
"""Makes pixel_values, float32 (B, 3, H, W), and targets, float32 (B, K), of a staged batch, on its images' device."""


def policy(
    augment: AugmentRecipe,
    *,
    resize_mode: ResizeMode,
    image_size: tuple[int, int],
    normalise: Callable[[Tensor], Tensor],
    num_classes: int,
    seed: int,
) -> View:
    """Return the function that makes the random views of a run.

    A view is a function of the seed, the image and its sample index (mixing: and its partner's), never of what
    else is in the batch; each operation draws from a stream of its own, so changing one leaves the others as
    they were.

    Args:
        augment: which operations, how strong.
        resize_mode: how an image fills the view.
        image_size: height and width of the view in pixels.
        normalise: makes float32 of uint8 images (B, 3, S_h, S_w), channel by channel.
        num_classes: K.
        seed: of the run.

    Returns:
        A function of a staged batch that gives pixel_values, float32 (B, 3, H, W), and targets, float32 (B,
        K), on the device of the batch's images.
    """
    has_mixing = (augment.mixup_alpha > 0 or augment.cutmix_alpha > 0) and augment.mix_probability > 0

    @torch.no_grad()
    def view(batch: StagedBatch) -> tuple[Tensor, Tensor]:
        """Return pixel values and targets of the random views of a batch."""
        device = batch.images.device

        def draw(stream: str, k: int) -> Tensor:
            return order.uniform(seed, stream, batch.sample_indices, k).to(device, non_blocking=True)

        scale, ratio = augment.crop_scale, augment.crop_ratio
        boxes = random_boxes(
            draw("crop", 4), batch.originals, image_size, scale=scale, ratio=ratio, resize_mode=resize_mode
        )
        flips = draw("flip", 1)[:, 0] < augment.flip
        # Normalised first, so that the outside of a letterbox is 0, as the image processors leave it.
        pixel_values = resample(normalise(batch.images), batch.sizes, boxes, flips, image_size)
        if augment.erase:
            draws = draw("erase", 5)
            pixel_values = erase(pixel_values, draws, probability=augment.erase, area=augment.erase_area)

        targets = soft_targets(batch.labels, num_classes, augment.label_smoothing)
        if has_mixing and len(targets) > 1:
            even_slots = batch.sample_indices[: len(targets) // 2 * 2 : 2]  # they name the pairs
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

"""The recipe's ``augment`` section -> one function from a staged batch to what model and loss take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from vitft.data import order
from vitft.recipe import AugmentRecipe
from vitft.views.color import erase, normalize
from vitft.views.geometry import Fit, random_boxes, resample
from vitft.views.mixing import draw_mixture, mix, soft_targets


class StagedBatch(Protocol):
    """What a policy reads of a batch, which begins at an even slot of its step and splits no pair."""

    @property
    def images(self) -> Tensor:
        """Canvas, uint8, shape (B, 3, S_h, S_w)."""

    @property
    def sizes(self) -> Tensor:
        """Height and width of each image in the canvas, int64, shape (B, 2)."""

    @property
    def originals(self) -> Tensor:
        """Height and width of each image before staging, int64, shape (B, 2)."""

    @property
    def labels(self) -> Tensor:
        """Class ids, int64, shape (B,)."""

    @property
    def positions(self) -> Tensor:
        """Places in the order of samples, int64, shape (B,); on the CPU no draw waits for a GPU."""


def policy(
    augment: AugmentRecipe,
    *,
    fit: Fit,
    image_size: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    num_classes: int,
    seed: int,
) -> Callable[[StagedBatch], tuple[Tensor, Tensor]]:
    """Return the function that makes the random views of a run.

    A view is a function of the seed, the image and its position (mixing: and its partner's), never of what
    else is in the batch; each operation draws from a stream of its own, so changing one leaves the others as
    they were.

    Args:
        augment: which operations, how strong.
        fit: how an image fills the view.
        image_size: height and width of the view in pixels.
        mean: per channel, of values in [0, 1].
        std: per channel, of values in [0, 1].
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
            return order.uniform(seed, stream, batch.positions, k).to(device, non_blocking=True)

        scale, ratio = augment.crop_scale, augment.crop_ratio
        boxes = random_boxes(draw("crop", 4), batch.originals, image_size, scale=scale, ratio=ratio, fit=fit)
        flips = draw("flip", 1)[:, 0] < augment.flip
        # Normalised first, so that the outside of a letterbox is 0, as the image processors leave it.
        normal = normalize(batch.images, mean, std)
        pixel_values = resample(normal, batch.sizes, boxes, flips, image_size)
        if augment.erase:
            draws = draw("erase", 5)
            pixel_values = erase(pixel_values, draws, probability=augment.erase, area=augment.erase_area)

        targets = soft_targets(batch.labels, num_classes, augment.label_smoothing)
        if has_mixing and len(targets) > 1:
            even_slots = batch.positions[: len(targets) // 2 * 2 : 2]  # their positions name the pairs
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

"""The recipe's ``augment`` section -> one function from a staged batch to pixel values and targets."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vitft.data import order
from vitft.data.batches import StagedBatch
from vitft.errors import RecipeError
from vitft.recipe.choices import ResizeMode
from vitft.recipe.keys import AugmentRecipe
from vitft.recipe.sizes import show_size
from vitft.views.erasing import erase
from vitft.views.geometry import random_boxes, simple_crops
from vitft.views.mixing import draw_mixture, mix, soft_targets
from vitft.views.pixel_values import Normalisation
from vitft.views.random_ops import Drawn, draw_operations, perform
from vitft.views.resampling import resample, turn

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
        normalise: how pixels become what the model takes, and back.
        num_classes: K.
        seed: the run's seed.

    Returns:
        A :data:`View`.

    Raises:
        RecipeError: for a view that cannot be made at this size.
    """
    has_mixing = (augment.mixup_alpha > 0 or augment.cutmix_alpha > 0) and augment.mix_probability > 0
    check_view(augment, image_size)

    @torch.no_grad()
    def view(batch: StagedBatch) -> tuple[Tensor, Tensor]:
        """Return the pixel values and soft targets of a batch."""
        device = batch.images.device

        def draw(stream: str, k: int) -> Tensor:
            return order.uniform(seed, stream, batch.sample_indices, k).to(device, non_blocking=True)

        pixel_values = _cropped(augment, resize_mode, image_size, normalise, batch, draw)
        if augment.quarter_turns:
            pixel_values = turn(pixel_values, (4 * draw("quarter-turn", 1)[:, 0]).long())
        drawn = draw_operations(augment, seed, batch.sample_indices)
        rows = (drawn.operations != 0).any(1).nonzero()[:, 0]
        if len(rows):
            here = rows.to(device, non_blocking=True)
            levels = normalise.levels(pixel_values[here])
            fill = normalise.fill.to(device, non_blocking=True)
            levels = perform(levels, Drawn(drawn.operations[rows], drawn.values[rows]), fill)
            pixel_values.index_copy_(0, here, normalise(levels))
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


def varies(augment: AugmentRecipe) -> bool:
    """Whether an image does not always look the same."""
    crops = augment.crop != "random-resized" or augment.crop_scale != (1.0, 1.0)
    flips = augment.flip or augment.vertical_flip or augment.quarter_turns
    colours = augment.color_jitter or augment.grayscale or augment.blur or augment.solarize
    mixing = (augment.mixup_alpha or augment.cutmix_alpha) and augment.mix_probability
    return bool(crops or flips or colours or augment.policy != "none" or augment.erase or mixing)


def check_view(augment: AugmentRecipe, image_size: tuple[int, int]) -> None:
    """Raise for a view that the recipe cannot make at a size.

    Raises:
        RecipeError: for quarter turns of views that are not square.
    """
    if augment.quarter_turns and image_size[0] != image_size[1]:
        raise RecipeError(
            f"augment.quarter_turns: an image of {show_size(image_size)} pixels has another shape after a quarter turn",
            allowed="quarter turns of square images; flips of any",
            hint="--set augment.quarter_turns=false --set augment.vertical_flip=0.5, or a square --image-size",
        )


def _cropped(
    augment: AugmentRecipe,
    resize_mode: ResizeMode,
    image_size: tuple[int, int],
    normalise: Normalisation,
    batch: StagedBatch,
    draw: Callable[[str, int], Tensor],
) -> Tensor:
    """Return the pixel values of the random crops, flipped."""
    window = None
    if augment.crop == "simple":
        boxes, window = simple_crops(draw("simple-crop", 2), batch.originals, image_size, resize_mode)
    else:
        boxes = random_boxes(
            draw("crop", 4),
            batch.originals,
            image_size,
            scale=augment.crop_scale,
            ratio=augment.crop_ratio,
            resize_mode=resize_mode,
        )
    flips = draw("flip", 1)[:, 0] < augment.flip
    vertical = draw("vertical-flip", 1)[:, 0] < augment.vertical_flip if augment.vertical_flip else None
    return resample(
        batch.images, batch.sizes, boxes, flips, image_size, normalise, vertical_flips=vertical, window=window
    )

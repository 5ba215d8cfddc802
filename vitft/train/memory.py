"""How many images fit on a device at once: found by trial before training, halved when memory runs out in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from vitft.architectures.blocks import checkpoint_activations
from vitft.errors import TrainError
from vitft.model.classifier import Classifier
from vitft.recipe.recipe import Recipe
from vitft.resolution.multisize import MultiSize

if TYPE_CHECKING:
    from accelerate import Accelerator

Value = TypeVar("Value")


def even(number: int) -> int:
    """Return the next smaller even number, at least 2: pairs of images stay together."""
    return max(2, number // 2 * 2)


def until_it_fits(work: Callable[[int], Value], size: int, on_smaller: Callable[[int, int], None]) -> Value:
    """Do something with ``size`` images at once, or with half as many as often as memory runs out.

    Args:
        work: takes the number of images.
        size: to begin with, even.
        on_smaller: told the number that did not fit and the one that is tried next.

    Raises:
        RuntimeError: of ``work``, if not even two images fit, or if it is not about memory.
    """
    while True:
        try:
            return work(size)
        except RuntimeError as error:
            if not should_reduce_batch_size(error) or size <= 2:
                raise
        on_smaller(size, even(size // 2))  # here, where the error holds no tensors any more
        size = even(size // 2)
        clear_device_cache(garbage_collection=True)


def find_micro_batch(
    recipe: Recipe, classifier: Classifier, accelerator: Accelerator, most: int, image_size: tuple[int, int]
) -> int:
    """Return the number of images that fit, by forward and backward passes; the least of all processes counts."""
    model = classifier.to(accelerator.device).model.train()
    if recipe.train.gradient_checkpointing:
        checkpoint_activations(model)
    several = MultiSize(model, classifier.image_size, [image_size], recipe.model.resize_method)

    def attempt(size: int) -> int:
        try:
            images = torch.zeros(size, 3, *image_size, device=accelerator.device)
            with accelerator.autocast():
                several(images).logits.float().sum().backward()
            # What AdamW, averages and best weights will want later: four more copies of the weights.
            torch.empty(4 * sum(p.numel() for p in model.parameters()), device=accelerator.device)
        finally:
            model.zero_grad(set_to_none=True)
        return size

    try:
        size = until_it_fits(attempt, most, lambda *_: None)
    except RuntimeError as error:
        raise TrainError(
            f"not even 2 images fit on {accelerator.device}: {error}",
            hint="--set train.gradient_checkpointing=true",
        ) from error
    clear_device_cache(garbage_collection=True)
    return int(accelerator.gather(torch.tensor([size], device=accelerator.device)).min())

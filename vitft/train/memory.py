"""Find how many images fit on a device: by trial before training, then halved whenever memory runs out."""

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
from vitft.train.trial import left_as_it_was, trial_pass

if TYPE_CHECKING:
    from accelerate import Accelerator

Value = TypeVar("Value")


def even(number: int) -> int:
    """Round down to an even number, at least 2, so that pairs of images stay together."""
    return max(2, number // 2 * 2)


def until_it_fits(work: Callable[[int], Value], size: int, on_smaller: Callable[[int, int], None]) -> Value:
    """Call ``work`` with ``size``, halving it each time memory runs out.

    Args:
        work: takes the number of images.
        size: the number to start with, even.
        on_smaller: called with the number that did not fit and the next one to try.

    Raises:
        RuntimeError: from ``work``, if not even two images fit, or if it is not about memory.
    """
    while True:
        try:
            return work(size)
        except RuntimeError as error:
            if not should_reduce_batch_size(error) or size <= 2:
                raise
        on_smaller(size, even(size // 2))  # outside the except block, where the error no longer holds tensors
        size = even(size // 2)
        clear_device_cache(garbage_collection=True)


def find_micro_batch(
    recipe: Recipe,
    classifier: Classifier,
    accelerator: Accelerator,
    most: int,
    image_size: tuple[int, int],
    taken_bytes: int = 0,
) -> int:
    """Return the number of images that fit in a forward and backward pass: the smallest of all processes.

    ``taken_bytes`` are left for what else will be on the device.
    """
    model = classifier.to(accelerator.device).model.train()
    checkpoint_activations(model, recipe.train.gradient_checkpointing)
    several = MultiSize(model, classifier.image_size, [image_size], recipe.model.resize_method)

    def attempt(size: int) -> int:
        taken = torch.empty(taken_bytes, dtype=torch.uint8, device=accelerator.device)
        with left_as_it_was(model):
            trial_pass(several, (size, 3, *image_size), accelerator)
            # Room for AdamW, averaged and best weights later: four more copies of the weights.
            torch.empty(4 * sum(p.numel() for p in model.parameters()), device=accelerator.device)
        del taken
        return size

    try:
        size = until_it_fits(attempt, most, lambda *_: None)
    except RuntimeError as error:
        raise TrainError(
            f"not even 2 images fit on {accelerator.device}: {error}",
            hint="--set train.gradient_checkpointing=blocks",
        ) from error
    clear_device_cache(garbage_collection=True)
    return int(accelerator.gather(torch.tensor([size], device=accelerator.device)).min())

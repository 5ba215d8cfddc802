"""How many images a step and a pass take, and how many processes read them, each with its reason."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from vitft.data.images import ImageSplit, StreamSplit
from vitft.data.train_batches import StagingCost
from vitft.errors import RecipeError
from vitft.model.classifier import Classifier
from vitft.processes.accelerate_config import accelerate_settings, reconcile
from vitft.recipe.recipe import Recipe
from vitft.train.memory import even, find_micro_batch

if TYPE_CHECKING:
    from accelerate import Accelerator

_DEFAULT_BATCH = 128
_CPU_PIXELS = 32 * 224 * 224  # a micro-batch of this many pixels keeps two cores busy, and its activations are small
_SHARDED = 8  # images whose activations fit beside a large model's parts


def choose_batch_size(recipe: Recipe, num_samples: int | None, world_size: int, reasons: dict[str, str]) -> int:
    """Return the images per optimizer step over all processes.

    Raises:
        RecipeError: if it has fewer than two images for each process.
    """
    given = recipe.train.batch_size
    least = 2 * world_size
    if given != "auto":
        if given < least:
            raise RecipeError(
                f"train.batch_size: {given} is less than two images for each of the {world_size} processes",
                allowed=f"{least} or more: each process needs at least one pair of images per step",
                hint=f"--batch-size {least}, or fewer processes",
            )
        return int(given)
    if num_samples is None or num_samples // 20 >= _DEFAULT_BATCH:
        reasons["batch_size"] = f"auto: {_DEFAULT_BATCH} images per step over all processes"
        return max(_DEFAULT_BATCH, least)
    size = max(8, least, num_samples // 20 // 2 * 2)
    why = "a twentieth of" if size > max(8, least) else "the least for"
    reasons["batch_size"] = f"auto: {why} the {num_samples} training images"
    return size


def choose_micro_batch_size(
    recipe: Recipe,
    classifier: Classifier,
    accelerator: Accelerator,
    batch_size: int,
    image_size: tuple[int, int],
    taken_bytes: int,
    reasons: dict[str, str],
    *,
    is_sharded: bool = False,
) -> int:
    """Return the images per forward pass of one process; on an accelerator by trial at ``image_size``.

    ``taken_bytes`` of the device are left for other things.
    """
    part: int = -(-batch_size // accelerator.num_processes)
    part += part % 2  # pairs stay together
    said = reconcile(
        accelerate_settings(), recipe.flat(), batch_size=batch_size, num_processes=accelerator.num_processes
    ).get("train.micro_batch_size")
    if said:
        reasons["micro_batch_size"] = f"from {said.source}"
        return int(said.value)
    given = recipe.train.micro_batch_size
    if given != "auto":
        return min(even(int(given)), part)
    if accelerator.device.type == "cpu":
        height, width = image_size
        micro = min(part, max(8, even(_CPU_PIXELS // (height * width))), 128)
        reasons["micro_batch_size"] = "auto: keeps the CPU's cores busy"
        return micro
    if is_sharded:
        reasons["micro_batch_size"] = "auto: a divided model is not tried before; more may be faster"
        return min(part, _SHARDED)
    micro = find_micro_batch(recipe, classifier, accelerator, part, image_size, taken_bytes)
    reasons["micro_batch_size"] = (
        "auto: as many as fit, found by trial" if micro < part else "auto: the process's whole share fits"
    )
    return micro


def choose_workers(
    recipe: Recipe,
    train: ImageSplit | StreamSplit,
    cost: Callable[[], StagingCost],
    accelerator: Accelerator,
    reasons: dict[str, str],
) -> int:
    """Return the number of processes that read images for each training process.

    Args:
        recipe, train, accelerator: what the run is made of.
        cost: measures what staging an image takes.
        reasons: gets the reason.
    """
    given = recipe.data.workers
    if given != "auto":
        return int(given)
    cores = max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    per_process = max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", accelerator.num_processes)))
    if isinstance(train, StreamSplit):
        reasons["workers"] = "auto: a stream has one reader per process"
        return 1
    seconds = cost().seconds
    each = f"staging takes {1e3 * seconds:.1f} ms per image here"
    if seconds * len(train) < 5:
        reasons["workers"] = f"auto: {each}, not worth extra processes"
        return 0
    if accelerator.device.type == "cpu":
        reasons["workers"] = f"auto: {each}; the cores are busy training"
        return 1
    reasons["workers"] = f"auto: {each}; {per_process} core{'s' if per_process > 1 else ''} per process"
    return min(16, max(1, per_process - 1))

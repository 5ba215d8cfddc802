"""One optimizer step: the mean gradient over its samples, however processes and micro-batches divide them."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from vitft.data import order
from vitft.data.batches import StagedBatch
from vitft.errors import TrainError
from vitft.train import checkpoint
from vitft.train.memory import until_it_fits
from vitft.train.setup import Training
from vitft.train.sharding import whole

_MOST_OVERFLOWS = 30  # fp16 starts with a loss scale of 2^16 and halves it each time


class Taken(NamedTuple):
    """A step over all processes, on the device, which may still be computing it.

    Attributes:
        loss: the mean over the step's samples, shape ().
        grad_norm: the norm of its gradient before clipping, shape ().
    """

    loss: Tensor
    grad_norm: Tensor


def take_step(training: Training, step: int, batches: list[StagedBatch]) -> Taken:
    """Take one optimizer step over this process's micro-batches, without waiting for the device."""
    _note_images(training, batches)
    learning = [p for group in training.optimizer.param_groups for p in group["params"]]
    with training.clock.part("copy"):
        on_device = [batch.to(training.accelerator.device) for batch in batches]
    for _ in range(_MOST_OVERFLOWS):
        loss = _accumulate_until_it_fits(training, step, on_device)
        with training.clock.part("optimizer"):
            limit = training.recipe.optim.max_grad_norm or math.inf
            grad_norm = training.accelerator.clip_grad_norm_(learning, limit)
            training.optimizer.step()
            training.optimizer.zero_grad(set_to_none=True)
        if not training.optimizer.step_was_skipped:
            return Taken(loss, whole(grad_norm))
        if not math.isfinite(loss):  # fp16's scale cannot help
            break
        # fp16 gradients overflowed: once more, with the lower scale that accelerate has set
    raise non_finite(training, step, float(loss) if not math.isfinite(loss) else math.inf)


def _accumulate_until_it_fits(training: Training, step: int, batches: list[StagedBatch]) -> Tensor:
    """Compute the gradient of a step, in smaller micro-batches if memory runs out: the step stays the same."""

    def accumulate(micro: int) -> Tensor:
        parts = [part for batch in batches for part in (batch.split(micro) if len(batch) > micro else [batch])]
        return _accumulate(training, step, parts)

    def shrink(too_many: int, smaller: int) -> None:
        if training.plan.world_size > 1:  # the others wait for our gradients and cannot start over
            process = training.accelerator.process_index
            raise TrainError(
                f"process {process} ran out of memory at step {step + 1} with {too_many} images",
                hint=f"{training.run.resume_command} --set train.micro_batch_size={smaller}",
            )
        training.state.micro_batch_size = smaller
        training.optimizer.zero_grad(set_to_none=True)
        training.run.note(f"out of memory with {too_many} images at once; now {smaller}, with the same steps")

    return until_it_fits(accumulate, training.state.micro_batch_size, shrink)


def _accumulate(training: Training, step: int, parts: list[StagedBatch]) -> Tensor:
    """Sum the gradients of all micro-batches; processes exchange them only with the last one.

    Returns:
        The step's mean loss over all processes, shape ().
    """
    step_size = training.batches.slices.step_size(step)
    local_loss = torch.zeros((), device=training.accelerator.device)
    for number, part in enumerate(parts):
        rank = training.accelerator.process_index
        # For dropout inside transformers, which draws from torch's generator.
        torch.manual_seed(order.derived_seed(training.recipe.train.seed, "dropout", step, rank, number))
        is_last = number == len(parts) - 1
        # A divided network has nothing like DDP's no_sync: it sums in every pass, to keep only parts of gradients.
        with nullcontext() if is_last else training.accelerator.no_sync(training.network):
            loss = _loss(training, step, part)
            # DDP averages over processes; the step's loss is the sum over all samples / their number.
            with training.clock.part("backward"):
                training.accelerator.backward(loss * (training.plan.world_size / step_size))
        local_loss += loss.detach()
    for _ in range(len(parts), _num_passes(training, step)):  # the others wait for this process's part in theirs
        training.set_sample_indices(None)
        training.accelerator.backward(training.network(training.blank(step)).logits.sum() * 0)
    total: Tensor = training.accelerator.reduce(local_loss, "sum")
    return total / step_size


def _num_passes(training: Training, step: int) -> int:
    """Return the least number of passes of this process in a step.

    One, because a short last step may leave it without samples, but the others wait for its gradients. In a divided
    network, which is gathered for every pass, as many as the process with the most micro-batches takes.
    """
    if not training.plan.is_sharded:
        return 1
    slices, micro = training.batches.slices, training.state.micro_batch_size
    every = (replace(slices, rank=rank).micro_batches(step) for rank in range(slices.world_size))
    return max(sum(-(-len(batch) // micro) for batch in batches) for batches in every)


def _loss(training: Training, step: int, batch: StagedBatch) -> Tensor:
    """Return the summed loss of a micro-batch with its soft targets."""
    with training.clock.part("views"):
        pixel_values, targets = training.views[training.plan.phase_at(step).image_size](batch)
    training.set_sample_indices(batch.sample_indices.to(pixel_values.device))
    with training.clock.part("forward"):
        with training.accelerator.autocast():
            logits = training.network(pixel_values).logits
        return training.balance.loss(logits, targets)


class NonFiniteError(TrainError):
    """The loss or its gradient became infinite or NaN."""


def non_finite(training: Training, step: int, value: float) -> NonFiniteError:
    """Return the error for a loss or gradient norm that is not finite."""
    last = checkpoint.newest(training.run.checkpoints)
    good = f"the last good checkpoint is {last}" if last else "there is no checkpoint yet"
    return NonFiniteError(
        f"the loss or its gradient became {value} at step {step + 1}; {good}",
        hint=f"a learning rate below {training.recipe.optim.rate:g} (--lr), or --precision fp32",
    )


def _note_images(training: Training, batches: list[StagedBatch]) -> None:
    for batch in batches:
        training.note_bad({row.where: row.text for row in batch.skipped})
        for note in map(str, batch.notes):
            if note not in training.warned_of:
                training.warned_of.add(note)
                training.run.note(note)

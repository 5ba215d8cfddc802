"""Measure the cost of a forward pass in FLOPs, and of training in seconds on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from vitft.architectures.last_block import short_last_block
from vitft.train.trial import left_as_it_was, trial_pass

if TYPE_CHECKING:
    from accelerate import Accelerator


def forward_gflop(model: nn.Module, shape: tuple[int, ...]) -> float:
    """Return the GFLOPs of one image's forward pass, counting a multiply-add as two operations.

    Args:
        model: from images, or their features, to an output.
        shape: of one image, or of one image's features.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    was_training = model.training
    image = torch.zeros(1, *shape, device=next(model.parameters()).device)
    # On the model itself, because some families cache tensors of a forward pass for the life of the process; with
    # plain attention, because the counter does not know the CPU's fused one.
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model.eval()(image)
    model.train(was_training)
    return float(counter.get_total_flops()) / 1e9


def seconds_per_image(
    model: nn.Module, shape: tuple[int, ...], batch_size: int, accelerator: Accelerator, *, learns: bool = True
) -> float:
    """Time a forward and backward pass: the fastest of a few, in case the machine is shared.

    Args:
        model: returns an output with ``logits``.
        shape: of one image, or of one image's features.
        batch_size: images per pass.
        accelerator: gives device and precision.
        learns: whether there is a backward pass, as in a training step; if not, the model is frozen.
    """
    model.to(accelerator.device).train(learns)
    seconds: list[float] = []
    with left_as_it_was(model), short_last_block(model):  # as in training
        while len(seconds) < 3 or (len(seconds) < 12 and sum(seconds) < 3):
            seconds.append(trial_pass(model, (batch_size, *shape), accelerator, learns=learns))
            model.zero_grad(set_to_none=True)
    return min(seconds) / batch_size

"""Run a network on blank images, to see whether they fit or how long it takes, and leave it as it was."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from accelerate import Accelerator


@contextmanager
def left_as_it_was(network: nn.Module) -> Iterator[None]:
    """Undo what training passes change besides gradients, such as the running statistics of batch normalisation."""
    before = {name: buffer.detach().clone() for name, buffer in network.named_buffers()}
    try:
        yield
    finally:
        network.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, buffer in network.named_buffers():
                buffer.copy_(before[name])


def trial_pass(network: nn.Module, shape: tuple[int, ...], accelerator: Accelerator, *, learns: bool = True) -> float:
    """Do a forward pass of blank images, and a backward pass if it ``learns``; return the seconds. Gradients are left.

    Args:
        network: returns an output with ``logits``.
        shape: of the images, (B, 3, H, W), or of what else the network takes.
        accelerator: gives device and precision.
        learns: whether there is a backward pass.
    """
    begun = time.perf_counter()
    with accelerator.autocast(), torch.set_grad_enabled(learns):
        loss = network(torch.zeros(shape, device=accelerator.device)).logits.float().sum()
    if learns:
        loss.backward()
    if accelerator.device.type != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter() - begun

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


def training_pass(network: nn.Module, count: int, image_size: tuple[int, int], accelerator: Accelerator) -> float:
    """Do a forward and a backward pass of ``count`` blank images; return its seconds. Gradients are left."""
    begun = time.perf_counter()
    images = torch.zeros(count, 3, *image_size, device=accelerator.device)
    with accelerator.autocast():
        loss = network(images).logits.float().sum()
    loss.backward()
    if accelerator.device.type != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter() - begun

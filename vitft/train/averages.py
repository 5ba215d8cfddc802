"""Averaged weights, which are scored and saved instead of the last weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vitft.train.sharding import is_divided, own_part


class AveragedWeights:
    """An exponential moving average of the trained parameters, in float32 (Polyak averaging; ViT's appendix B.1.1).

    The decay after step t (from 1) is min(decay, (1 + t) / (10 + t)), so that the first steps soon stop mattering.
    Floating-point buffers are averaged too.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._live = _averaged_tensors(model)
        self.tensors: dict[str, Tensor] = {name: tensor.detach().clone() for name, tensor in self._live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Add the weights after step ``step``, counted from 1."""
        weight = 1 - min(self._decay, (1 + step) / (10 + step))
        averaged, live = ([own_part(t) for t in each.values()] for each in (self.tensors, self._live))
        torch._foreach_lerp_(averaged, live, weight)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Swap the averaged weights into the model for a while, without a copy of all."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Load saved averages."""
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, live in self._live.items():
            averaged = self.tensors[name]
            if is_divided(live):  # its weights are gathered from this memory
                mine, other = own_part(live), own_part(averaged)
                kept = mine.clone()
                mine.copy_(other)
                other.copy_(kept)
            else:
                live.data, self.tensors[name] = averaged, live.data


def _averaged_tensors(model: nn.Module) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {name: p for name, p in model.named_parameters() if p.requires_grad}
    tensors |= {name: b for name, b in model.named_buffers() if b.is_floating_point()}
    return tensors

"""Parameter groups, the learning rate as a pure function of the step, and averaged weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vitft.architectures.blocks import layer_groups
from vitft.model.trainable import has_no_decay
from vitft.recipe.choices import Schedule
from vitft.recipe.keys import OptimRecipe


def lr_at(
    step: int,
    *,
    peak: float,
    total_steps: int,
    warmup_steps: int,
    schedule: Schedule,
) -> float:
    """Return the learning rate of a step, counted from 0.

    The warmup rises linearly and reaches ``peak`` at its last step; cosine (arXiv:1608.03983) and linear then fall
    towards 0, which the step after the last would have.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
    match schedule:
        case "cosine":
            return peak * 0.5 * (1 + math.cos(math.pi * progress))
        case "linear":
            return peak * (1 - progress)
        case "constant":
            return peak


def parameter_groups(model: nn.Module, recipe: OptimRecipe, head: Iterable[str]) -> list[dict[str, Any]]:
    """Group the parameters that learn by depth and by whether weight decay applies to them.

    Layer i of L + 1 has ``lr_scale`` = layer_decay^(L + 1 - i) (BEiT, arXiv:2106.08254). Each group carries its
    parameters' names for the checkpoint.
    """
    depths = layer_groups(model, head)
    top = max(depths.values())
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        exempt = has_no_decay(name, parameter)
        group = groups.setdefault(
            (depths[name], exempt),
            {
                "params": [],
                "names": [],
                "lr_scale": recipe.layer_decay ** (top - depths[name]),
                "weight_decay": 0.0 if exempt else recipe.weight_decay,
            },
        )
        group["params"].append(parameter)
        group["names"].append(name)
    return [groups[key] for key in sorted(groups)]


def make_optimizer(groups: list[dict[str, Any]], recipe: OptimRecipe, *, fused: bool) -> torch.optim.Optimizer:
    """Return AdamW or SGD with momentum over the groups of :func:`parameter_groups`."""
    if recipe.name == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr, betas=recipe.betas, eps=recipe.eps, fused=fused)
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, fused=fused)


def set_lr(
    optimizer: torch.optim.Optimizer, recipe: OptimRecipe, step: int, total_steps: int, warmup_steps: int
) -> float:
    """Give every group its part of the learning rate of a step, and return that rate."""
    lr = lr_at(step, peak=recipe.lr, total_steps=total_steps, warmup_steps=warmup_steps, schedule=recipe.schedule)
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
    return lr


class AveragedWeights:
    """An exponential moving average of what learns, in float32 (Polyak averaging; ViT's appendix B.1.1 uses it).

    After step t (from 1) the average forgets with min(decay, (1 + t) / (10 + t)), so that the first steps do not
    weigh on it for ever. Floating-point buffers are averaged along.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._live = _averaged_tensors(model)
        self.tensors: dict[str, Tensor] = {name: tensor.detach().clone() for name, tensor in self._live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after step ``step``, counted from 1."""
        weight = 1 - min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.tensors.values()), [t.detach() for t in self._live.values()], weight)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the model have the averaged weights for a while; no copy is made."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from averages that were saved."""
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])

    def _exchange(self) -> None:
        for name, live in self._live.items():
            live.data, self.tensors[name] = self.tensors[name], live.data


def _averaged_tensors(model: nn.Module) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {name: p for name, p in model.named_parameters() if p.requires_grad}
    tensors |= {name: b for name, b in model.named_buffers() if b.is_floating_point()}
    return tensors

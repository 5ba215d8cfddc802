"""Parameter groups, and the learning rate as a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from vitft.architectures.blocks import head_modules, is_within, layer_groups
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
    towards 0, which they would reach one step after the last.
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
    """Group the trained parameters by depth and by whether weight decay applies to them.

    Layer i of L + 1 has ``lr_scale`` = layer_decay^(L + 1 - i) (BEiT, arXiv:2106.08254); that of the head is
    head_lr_factor. Each group carries its parameters' names for the checkpoint.
    """
    depths, heads = layer_groups(model, head), head_modules(head)
    top = max(depths.values())
    groups: dict[tuple[int, float, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        exempt = has_no_decay(name, parameter)
        factor = recipe.head_lr_factor if is_within(name, heads) else 1.0
        group = groups.setdefault(
            (depths[name], factor, exempt),
            {
                "params": [],
                "names": [],
                "lr_scale": factor * recipe.layer_decay ** (top - depths[name]),
                "weight_decay": 0.0 if exempt else recipe.weight_decay,
            },
        )
        group["params"].append(parameter)
        group["names"].append(name)
    return [groups[key] for key in sorted(groups)]


def make_optimizer(groups: list[dict[str, Any]], recipe: OptimRecipe, *, fused: bool) -> torch.optim.Optimizer:
    """Return AdamW or SGD with momentum over the groups of :func:`parameter_groups`."""
    if recipe.name == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.rate, betas=recipe.betas, eps=recipe.eps, fused=fused)
    return torch.optim.SGD(groups, lr=recipe.rate, momentum=recipe.momentum, fused=fused)


def set_lr(
    optimizer: torch.optim.Optimizer, recipe: OptimRecipe, step: int, total_steps: int, warmup_steps: int
) -> float:
    """Set every group's learning rate for a step; return the rate before scaling by layer."""
    lr = lr_at(step, peak=recipe.rate, total_steps=total_steps, warmup_steps=warmup_steps, schedule=recipe.schedule)
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
    return lr

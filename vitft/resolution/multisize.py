"""Train one model at several image sizes, with the parameters of the final size.

The trained position table is that of the final size. Other sizes resample it in the forward pass, so gradients
reach it, and the optimizer, averages and checkpoints only ever see one shape.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from vitft.architectures.blocks import checkpoint_activations, position_tables
from vitft.architectures.families import runs_at_any_size, vision_config
from vitft.architectures.family import Size, Table
from vitft.architectures.last_block import has_short_last_block, shorten_last_block
from vitft.architectures.timm_models import WRAPPER
from vitft.recipe.choices import ResizeMethod
from vitft.resolution.retarget import Target, retarget_config
from vitft.resolution.tables import resample

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

_HOOKS = ("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs", "_forward_hooks", "_forward_hooks_with_kwargs")


class MultiSize(nn.Module):
    """Runs images through the model, or through its twin for their size.

    Its only parameters are the model's own, under ``model``. A twin has its own modules for its size (index tables,
    grids) and shares all parameters, running statistics and hooks with the model; only its position tables are
    resampled in each forward pass.

    Raises:
        ModelError: if the family cannot have one of the sizes.
    """

    def __init__(self, model: PreTrainedModel, own_size: Size, sizes: Iterable[Size], method: ResizeMethod) -> None:
        super().__init__()
        self.model = model
        # A plain dictionary, because submodules would give every parameter a second name.
        self._twins = {size: _Twin(model, own_size, size, method) for size in dict.fromkeys(sizes) if size != own_size}

    def forward(self, pixel_values: Tensor) -> Any:
        """Return the model's output for images (B, 3, H, W) of any of the sizes."""
        height, width = pixel_values.shape[-2:]
        twin = self._twins.get((height, width))
        return self.model(pixel_values) if twin is None else twin(pixel_values)

    def train(self, mode: bool = True) -> MultiSize:
        """Put the model and its twins into training or evaluation mode."""
        super().train(mode)
        for twin in self._twins.values():
            twin.network.train(mode)
        return self


class _Twin:
    """The model at another size."""

    def __init__(self, model: PreTrainedModel, own_size: Size, size: Size, method: ResizeMethod) -> None:
        if runs_at_any_size(model.config):
            self.network = model
            self._tables: list[tuple[nn.Module, str, nn.Module, Table, Size, Size]] = []
            return
        config, _ = retarget_config(model.config, own_size, Target(size, method=method), "the model")
        self.network = _without_weights(type(model), config)
        _share(model, self.network)
        self._method: ResizeMethod = method
        self._tables = []
        for name, table, old in position_tables(model, own_size):
            new = table.grid_of(name, vision_config(config), size)
            if new and old != new:
                where, _, attribute = name.rpartition(".")
                module = self.network.get_submodule(where)
                del module._parameters[attribute]  # an ordinary tensor takes its place
                self._tables.append((module, attribute, model.get_submodule(where), table, old, new))

    def __call__(self, pixel_values: Tensor) -> Any:
        # The tables stay after the forward pass: gradient checkpointing runs blocks again in the backward pass.
        for module, attribute, source, table, old, new in self._tables:
            setattr(module, attribute, resample(table, getattr(source, attribute), old, new, self._method))
        return self.network(pixel_values)


def _without_weights(kind: type[PreTrainedModel], config: PreTrainedConfig) -> PreTrainedModel:
    """Build a model with real buffers and parameters that will be replaced by another model's."""
    if config.model_type != WRAPPER:
        with init_empty_weights(include_buffers=False):
            return kind(config)
    with torch.random.fork_rng(devices=[]):  # timm puts buffers on the parameters' device, so these must be real too
        return kind(config)


def _share(model: PreTrainedModel, twin: PreTrainedModel) -> None:
    """Give a twin the model's own parameters, saved buffers and hooks, and any modules that vitft replaced."""
    for name, module in list(model.named_modules()):
        if "parametrizations" in name.split("."):  # parts of a factored table; the twin gets the table itself
            continue
        other = _find(twin, name)
        if other is None or type(other) is not type_before_parametrizations(module):  # our drop path
            twin.set_submodule(name, module)
            continue
        other._parameters.update(module._parameters)
        other._parameters.update(dict.fromkeys(getattr(module, "parametrizations", ())))
        saved = {key for key in module._buffers if key not in module._non_persistent_buffers_set}
        other._buffers.update({key: module._buffers[key] for key in saved})
        for hooks in _HOOKS:
            setattr(other, hooks, getattr(module, hooks))
    names = ("gradient_checkpointing", "grad_checkpointing")  # transformers' and timm's
    if any(getattr(module, name, False) for module in model.modules() for name in names):
        checkpoint_activations(twin)
        for name, module in model.named_modules():
            if hasattr(module, names[0]) and (other := _find(twin, name)) is not None:
                other.gradient_checkpointing = module.gradient_checkpointing
    if has_short_last_block(model):
        shorten_last_block(twin)
    twin.to(next(model.parameters()).device).train(model.training)  # moves only the twin's own index tables


def _find(model: nn.Module, name: str) -> nn.Module | None:
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None

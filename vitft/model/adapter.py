"""Low-rank adapters in a model: added through peft, merged into its weights, or written as a folder that peft loads.

LoRA (arXiv:2106.09685) adds B A x to a frozen linear layer, with two small trained matrices. DoRA (arXiv:2402.09353)
also trains the length of each row of the sum. B starts at zero, so a new adapter changes nothing.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vitft.architectures.blocks import blocks, head_modules, is_within, modules_in_order
from vitft.architectures.families import family_of
from vitft.data import order
from vitft.errors import ModelError, one_line
from vitft.recipe.choices import ADAPTERS
from vitft.recipe.keys import ModelRecipe

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_NAME = "default"  # peft's own name for the only adapter of a model


def require_peft(recipe: ModelRecipe) -> None:
    """Check that peft can be imported, if the recipe needs it.

    Raises:
        ModelError: with the command that installs it.
    """
    if recipe.train not in ADAPTERS:
        return
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise ModelError(
            f"model.train: {recipe.train} needs the package peft, and it cannot be imported: {one_line(error)}",
            hint="pip install 'vitft[lora]'",
        ) from error


class Adapter:
    """The low-rank adapters of a model.

    Args:
        model: a classifier; its linear layers are wrapped in place, and the rest of it is frozen.
        recipe: ``train`` says which kind; ``lora_rank``, ``lora_alpha``, ``lora_dropout``, ``lora_targets``.
        seed: for A, and for the dropout.

    Raises:
        ModelError: if the model has no such layers, or runs without calling them.
    """

    def __init__(self, model: PreTrainedModel, recipe: ModelRecipe, seed: int) -> None:
        from peft import LoraConfig, inject_adapter_in_model

        self.sample_indices: Tensor | None = None
        """Sample indices of the next forward pass, int64 (B,); None drops nothing."""
        self.layers = _targets(model, recipe)
        """Names of the adapted layers."""
        self._config = LoraConfig(
            r=recipe.lora_rank,
            lora_alpha=recipe.lora_alpha,
            lora_dropout=recipe.lora_dropout,
            target_modules=self.layers,
            use_dora=recipe.train == "dora",
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(order.derived_seed(seed, "adapter"))
            inject_adapter_in_model(self._config, model, _NAME)
        for name in self.layers if recipe.lora_dropout else ():
            model.get_submodule(f"{name}.lora_dropout")[_NAME] = _Dropout(self, recipe.lora_dropout, seed, name)

    def __str__(self) -> str:
        kinds = sorted({re.sub(r"(\.\d+)+$", "", name).rpartition(".")[2] for name in self.layers})
        kind = "DoRA" if self._config.use_dora else "LoRA"
        return f"{kind} of rank {self._config.r} in {len(self.layers)} layers ({', '.join(kinds)})"

    def merge(self, model: PreTrainedModel) -> None:
        """Add the adapters to the weights and remove them: the model is a plain one again."""
        for name in self.layers:
            layer: Any = model.get_submodule(name)
            layer.merge()
            model.set_submodule(name, layer.get_base_layer())
        del model.peft_config  # left there by peft

    def merged(self, model: PreTrainedModel) -> PreTrainedModel:
        """Return a plain copy of a model, with the adapters in its weights."""
        plain = copy.deepcopy(model)
        self.merge(plain)
        return plain

    def save(self, model: PreTrainedModel, folder: Path, named: str, revision: str | None, head: Iterable[str]) -> None:
        """Write adapters and head as peft does; ``PeftModel.from_pretrained(checkpoint, folder)`` loads them.

        Args:
            model: with the adapters.
            folder: an empty one.
            named, revision: the checkpoint that they belong to, as the user typed it, and its commit on the Hub.
            head: names of the head's parameters.
        """
        from peft import get_peft_model_state_dict

        heads = sorted(head_modules(head))
        state = get_peft_model_state_dict(model, adapter_name=_NAME, save_embedding_layers=False)
        state |= {name: tensor for name, tensor in model.state_dict().items() if is_within(name, heads)}
        tensors = {f"base_model.model.{name}": tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        config = copy.copy(self._config)
        config.base_model_name_or_path, config.revision = named, revision
        config.modules_to_save, config.inference_mode = heads, True
        config.save_pretrained(folder)
        path = folder / "adapter_config.json"
        values = json.loads(path.read_text(encoding="utf-8"))
        values["target_modules"] = sorted(values["target_modules"])  # peft writes a set, in any order
        path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def is_adapter(name: str) -> bool:
    """Whether a parameter belongs to an adapter."""
    return re.search(r"\.lora_\w+\.", name) is not None


# --- layers ------------------------------------------------------------------------------------------------


def _targets(model: PreTrainedModel, recipe: ModelRecipe) -> list[str]:
    """Return the names of the linear layers to adapt, in the order of the blocks."""
    family, which = family_of(model.config), recipe.lora_targets
    pattern = ".+" if which == "all-linear" else family.queries_values if family and family.attention else ""
    linear = {
        f"{name}.{inner}": inner
        for name, block in blocks(model)
        for inner, module in block.named_modules()
        if isinstance(module, nn.Linear)
    }
    found = [name for name, inner in linear.items() if re.fullmatch(pattern, inner)]
    called = set(modules_in_order(model))  # a model may read the weights of a layer without calling it
    if chosen := [name for name in found if name in called]:
        return chosen
    kind = model.config.model_type
    what = "linear layers in the blocks" if which == "all-linear" else "layers for queries and values"
    able = which == "attention" and any(name in called for name in linear)
    raise ModelError(
        f"model.train: {recipe.train}, model.lora_targets: {which}: vitft finds no {what} of a {kind} model to adapt",
        allowed="model.lora_targets: all-linear"
        if able
        else "transformers, such as vit, deit, beit, dinov2, clip or swin",
        hint="--set model.lora_targets=all-linear" if able else "--train last:2",
    )


# --- dropout -----------------------------------------------------------------------------------------------


# Left out of what torch.compile compiles, as in drop_path.py.
_draw: Callable[..., Tensor] = torch.compiler.disable(order.lanes)  # type: ignore[no-untyped-call]
_LEVELS = 2**16


class _Dropout(nn.Module):
    """Dropout whose draws depend only on (seed, layer, sample index): the same on any number of processes."""

    def __init__(self, adapter: Adapter, rate: float, seed: int, layer: str) -> None:
        super().__init__()
        self._adapter, self._seed, self._stream = adapter, seed, f"adapter/{layer}"
        self._dropped = min(round(rate * _LEVELS), _LEVELS - 1)  # of 2^16

    def forward(self, values: Tensor) -> Tensor:
        """Drop elements of (B * parts, ..., D), where all parts of an image lie together; scale up the others."""
        indices = self._adapter.sample_indices
        if not self.training or indices is None:
            return values
        flat = values.reshape(len(indices), -1)
        drawn = _draw(self._seed, self._stream, indices, flat.shape[1]).to(values.device)
        kept = (drawn >= self._dropped - _LEVELS // 2).to(values.dtype) / (1 - self._dropped / _LEVELS)
        return (flat * kept).view_as(values)

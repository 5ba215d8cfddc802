"""Find the parts of a model: position tables, residual blocks from input to output, and the head."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import nn

from vitft.architectures.config import image_size_of, table_size
from vitft.architectures.families import family_of, vision_config
from vitft.architectures.family import Size, Table
from vitft.architectures.timm_models import PREFIX
from vitft.errors import ModelError
from vitft.recipe.choices import Recomputed

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def plain_name(name: str) -> str:
    """Return the name of a parametrized table from the name of one of its factors; other names stay."""
    return re.sub(r"\bparametrizations\.(\w+)\.original\d*$", r"\1", name)


def position_tables(model: PreTrainedModel, image_size: Size) -> Iterator[tuple[str, Table, Size]]:
    """Yield (parameter name, table entry, grid) for each position table of a model.

    Args:
        model: a classifier.
        image_size: (height, width) that it runs at, used if its configuration does not give one.
    """
    config, family = model.config, family_of(model.config)
    size, vision = table_size(config) or image_size, vision_config(config)
    for name in dict.fromkeys(plain_name(each) for each, _ in model.named_parameters()):
        for table in family.tables if family else ():
            if grid := table.grid_of(name, vision, size):
                yield name, table, grid


def blocks(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return (name, module) of each residual block, from input to output."""
    family = family_of(model.config)
    if family is None or not family.blocks:
        return _repeated_modules(model)
    return [(name, module) for name, module in model.named_modules() if re.fullmatch(family.blocks, name)]


def _repeated_modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Find the blocks of a family without an entry.

    Takes the outermost class that occurs at least three times in numbered lists and holds most of the parameters.
    """
    numbered = [(n, m) for n, m in model.named_modules() if re.search(r"\.\d+$", n) and type(m) is not nn.ModuleList]
    counts = Counter(type(module) for _, module in numbered)
    total = sum(p.numel() for p in model.parameters())
    for kind in counts:  # outer modules are listed first
        alike = [(name, module) for name, module in numbered if type(module) is kind]
        if len(alike) >= 3 and sum(p.numel() for _, module in alike for p in module.parameters()) > total / 2:
            return alike
    return []


def layer_groups(model: nn.Module, head: Iterable[str]) -> dict[str, int]:
    """Return the depth of each parameter: 0 for embeddings, 1 to L for blocks, L + 1 for later layers and the head.

    Layers between two blocks (a stage's downsampling) count with the block before them. The order is that of
    execution, which in several families differs from that of declaration.
    """
    number_of = {name: number for number, (name, _) in enumerate(blocks(model), start=1)}
    top = len(number_of) + 1
    depth_of = dict.fromkeys(head_modules(head), top)
    begun = 0
    for name in modules_in_order(model):
        block = next((number_of[part] for part in _upwards(name) if part in number_of), 0)
        begun = max(begun, block)
        depth_of.setdefault(name, block or (begun if begun < top - 1 else top))
    return {
        name: next(depth_of[part] for part in _upwards(name) if part in depth_of)
        for name, _ in model.named_parameters()
    }


def _upwards(name: str) -> list[str]:
    """Return a dotted name and the names of all its parents, ending with the model itself ("")."""
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(len(parts), -1, -1)]


def modules_in_order(model: PreTrainedModel) -> list[str]:
    """Return the names of modules in the order in which an image reaches them.

    Runs a real image, not a meta one: BEiT's forward pass caches tensors for the whole process.
    """
    names: list[str] = []
    hooks = [
        module.register_forward_pre_hook(lambda *_, name=name: names.append(name))
        for name, module in model.named_modules()
    ]
    was_training = model.training
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, *image_size_of(model.config), device=next(model.parameters()).device))
    model.train(was_training)
    for hook in hooks:
        hook.remove()
    return names


def checkpoint_activations(model: PreTrainedModel, which: Recomputed = "blocks") -> None:
    """Turn on gradient checkpointing: blocks recompute their activations in the backward pass.

    Args:
        model: a classifier.
        which: all blocks, every second one, or none.

    Raises:
        ModelError: if the family does not support it.
    """
    if which == "off":
        return
    check_activations(model, which)
    enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)  # its older name
    enable({"use_reentrant": False})
    for _, block in blocks(model)[1::2] if which == "half" else ():
        block.gradient_checkpointing = False  # type: ignore[assignment]  # an attribute of the class


def check_activations(model: PreTrainedModel, which: Recomputed) -> None:
    """Check that a model supports gradient checkpointing.

    Raises:
        ModelError: if the family does not, or only of all blocks.
    """
    if which == "off":
        return
    family = f"the family {model.config.model_type!r}"
    if not model.supports_gradient_checkpointing:
        raise ModelError(
            f"train.gradient_checkpointing is not supported for {family}",
            hint="--set train.gradient_checkpointing=off, and a smaller train.micro_batch_size",
        )
    if which == "half" and not _has_a_switch_in_each_block(model):
        raise ModelError(
            f"train.gradient_checkpointing: half is not there for {family}, whose blocks cannot be switched one by one",
            allowed="off, blocks",
            hint="--set train.gradient_checkpointing=blocks",
        )


def _has_a_switch_in_each_block(model: PreTrainedModel) -> bool:
    """Whether blocks recompute their activations one by one, and not in groups."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    switches = {module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)}
    return switches == {block for _, block in blocks(model)}


def head_modules(head: Iterable[str]) -> set[str]:
    """Return the names of the modules of a head.

    Args:
        head: names of the parameters that depend on the number of classes.
    """
    return {name.rpartition(".")[0] if name.startswith(PREFIX) else name.split(".")[0] for name in head}


def is_within(name: str, modules: Iterable[str]) -> bool:
    """Whether a parameter belongs to one of the modules."""
    return any(name.startswith(f"{module}.") for module in modules)

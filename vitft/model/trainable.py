"""Choose which parameters are trained, and which of them get weight decay."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from vitft.architectures.blocks import blocks, head_modules, is_within, layer_groups, plain_name
from vitft.architectures.families import family_of
from vitft.errors import ModelError
from vitft.model.adapter import is_adapter
from vitft.quantities import count_text


def choose_trainable(model: nn.Module, what: str, head: Iterable[str]) -> str:
    """Freeze the parameters that are not trained.

    Args:
        model: a classifier.
        what: besides the head: ``all``, ``head`` for nothing, ``last:N`` for the last N blocks and everything after
            them, ``attention`` for that of all blocks (arXiv:2203.09795), ``norms-and-biases`` (arXiv:2106.10199),
            ``all-but-embedding`` for everything but patch embedding, positions and tokens (arXiv:2211.09359), ``lora``
            and ``dora`` for the adapters that the model already has.
        head: names of the head's parameters.

    Returns:
        A sentence that says how many parameters are trained.

    Raises:
        ModelError: if the model has no more than N blocks, or no such part.
    """
    if what != "all":
        chosen, heads = _chosen(model, what, head), head_modules(head)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in chosen or is_within(name, heads))
        _keep_frozen_statistics(model)
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    return f"{count_text(learning)} of {count_text(total)} parameters are trained (model.train: {what})"


def _chosen(model: nn.Module, what: str, head: Iterable[str]) -> set[str]:
    """Return the names of the parameters that are trained besides the head."""
    match what:
        case "head":
            return set()
        case "attention":
            return _of_attention(model)
        case "norms-and-biases":
            return _norms_and_biases(model)
        case "all-but-embedding":
            return _all_but_embedding(model, head)
        case "lora" | "dora":
            return {name for name, _ in model.named_parameters() if is_adapter(name)}
    return _last_blocks(model, int(what.removeprefix("last:")), head)


def _last_blocks(model: nn.Module, num_blocks: int, head: Iterable[str]) -> set[str]:
    depth_of = layer_groups(model, head)
    top = max(depth_of.values())
    if num_blocks >= top:
        raise ModelError(
            f"model.train: last:{num_blocks}, but the model has {top - 1} blocks",
            allowed=f"head, last:1 to last:{top - 1}, or all" if top > 1 else "head, or all",
            hint="--train all",
        )
    return {name for name, depth in depth_of.items() if depth >= top - num_blocks}


def _of_attention(model: nn.Module) -> set[str]:
    family = family_of(model.config)
    pattern = re.compile(rf"({family.attention})(\..+)?" if family and family.attention else "(?!)")
    chosen = {
        f"{block_name}.{name}"
        for block_name, block in blocks(model)
        for name, _ in block.named_parameters()
        if pattern.fullmatch(name)
    }
    if not chosen:
        raise ModelError(
            f"model.train: attention: vitft knows of none in the blocks of this model ({_kind(model)})",
            allowed="all, head, last:N, norms-and-biases or all-but-embedding for this family; attention for "
            "transformers, such as vit, deit, beit, dinov2, clip or swin",
            hint="--train norms-and-biases",
        )
    return chosen


def _kind(model: nn.Module) -> str:
    config: Any = model.config
    return str(config.model_type)


def _norms_and_biases(model: nn.Module) -> set[str]:
    return {
        f"{module_name}.{name}" if module_name else name
        for module_name, module in model.named_modules()
        for name, _ in module.named_parameters(recurse=False)
        if _NORM.search(type(module).__name__) or name.endswith("bias")
    }


_NORM = re.compile("norm|GRN", re.IGNORECASE)  # GRN: ConvNeXt V2's global response normalisation
_EMBEDDED = re.compile(r"position_embedding|pos_embed|(cls|mask|distillation|register)_tokens?\b|class_embedding")


def _all_but_embedding(model: nn.Module, head: Iterable[str]) -> set[str]:
    """Return what comes after the embedding, without the positions and tokens that a later stage may have."""
    depth_of = layer_groups(model, head)
    chosen = {name for name, depth in depth_of.items() if depth > 0 and not _EMBEDDED.search(plain_name(name))}
    if 0 not in depth_of.values():
        raise ModelError(
            f"model.train: all-but-embedding: vitft does not know the embedding of this model ({_kind(model)})",
            allowed="all, head or norms-and-biases for this family",
            hint="--train all",
        )
    return chosen


def _keep_frozen_statistics(model: nn.Module) -> None:
    """Keep the running statistics of frozen layers, which model.train() would otherwise update."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and not any(
            p.requires_grad for p in module.parameters()
        ):
            module.register_forward_pre_hook(_keep_statistics)


def _keep_statistics(module: nn.Module, _: object) -> None:
    module.eval()


def freeze_unused(model: nn.Module, image_size: tuple[int, int]) -> list[str]:
    """Freeze the parameters that get no gradient, found with a probe step, and return their names.

    Examples are DINOv2's mask token and CLIP's last norm. DDP would wait for their gradients forever.

    Args:
        model: a classifier.
        image_size: (height, width) of its input.
    """
    was_training = model.training
    # eval(): running statistics must not see the probe. train() first: it clears LeViT's cache, which has no gradient.
    model.train().eval()
    device = next(model.parameters()).device
    model(torch.zeros(1, 3, *image_size, device=device)).logits.sum().backward()
    unused = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.grad is None:
            parameter.requires_grad_(False)
            unused.append(name)
        parameter.grad = None
    model.train(was_training)
    return unused


_TABLES_AND_TOKENS = re.compile(
    r"position_embedding|pos_embed|relative_position_bias_table|attention_biases|register_tokens"
)


def has_no_decay(name: str, parameter: Tensor) -> bool:
    """Whether a parameter gets no weight decay: biases, norms, scales, tokens and position tables."""
    return sum(side > 1 for side in parameter.shape) <= 1 or _TABLES_AND_TOKENS.search(name) is not None

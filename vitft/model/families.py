"""The table of families: where a checkpoint's blocks live, and what it needs to become a classifier.

A family is transformers' ``model_type``. One that has no entry is treated by the rules of :func:`family_of`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Family:
    """What vitft knows of one ``model_type``.

    Attributes:
        blocks: pattern of the module names of its residual blocks, from input to output.
        branches: submodules of a block whose output is added to the residual stream, in the order they run; a
            family with a stochastic-depth module of its own names that.
        unused: prefixes of checkpoint tensors that a classifier has no use for.
    """

    blocks: str
    branches: tuple[str, ...] = ("drop_path",)
    unused: tuple[str, ...] = ()


_PLAIN = Family(r"\w+\.layers\.\d+", ("attention", "mlp"), ("pooler", "vit.pooler", "deit.pooler"))
_ENCODER_LAYER = Family(r"\w+\.encoder\.layers?\.\d+", ("drop_path",))
_DUAL = Family(
    r"vision_model\.encoder\.layers\.\d+",
    ("self_attn", "mlp"),
    ("text_model.", "text_projection.", "visual_projection.", "logit_scale", "logit_bias"),
)
_STAGED_BLOCKS = Family(r"\w+\.(encoder\.)?(layers|stages|block)\.\d+\.(blocks|layers)\.\d+", ("drop_path",))
_CONVOLUTIONAL = Family(r"\w+\.encoder\.stages\.\d+\.layers\.\d+", ())

FAMILIES: Mapping[str, Family] = {
    "vit": _PLAIN,
    "vit_msn": _PLAIN,
    "ijepa": _PLAIN,
    "deit": _PLAIN,
    "dinov2": _ENCODER_LAYER,
    "dinov2_with_registers": _ENCODER_LAYER,
    "beit": Family(r"\w+\.(encoder\.)?layers?\.\d+", ("drop_path",)),
    "data2vec-vision": Family(r"\w+\.(encoder\.)?layers?\.\d+", ("drop_path",)),
    "clip": _DUAL,
    "metaclip_2": _DUAL,
    "siglip": _DUAL,
    "siglip2": _DUAL,
    "swin": _STAGED_BLOCKS,
    "swinv2": _STAGED_BLOCKS,
    "hiera": _STAGED_BLOCKS,
    "convnext": _STAGED_BLOCKS,
    "convnextv2": _STAGED_BLOCKS,
    "pvt": Family(r"\w+\.encoder\.block\.\d+\.\d+", ("drop_path",)),
    "pvt_v2": Family(r"\w+\.encoder\.layers\.\d+\.blocks\.\d+", ("drop_path",)),
    "resnet": _CONVOLUTIONAL,
    "regnet": Family(r"\w+\.encoder\.stages\.\d+\.layers\.\d+", ()),
}

NOT_CLASSIFIERS: Mapping[str, str] = {
    "dinov3_vit": "transformers has no classification class for DINOv3; dinov2 checkpoints are the nearest",
    "dinov3_convnext": "transformers has no classification class for DINOv3; convnext checkpoints are the nearest",
    "siglip2_vision_model": "its NaFlex input (pre-cut patches) is not supported; siglip checkpoints are the nearest",
}


def blocks(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return (name, module) of the model's residual blocks, from input to output."""
    config: Any = model.config
    family = FAMILIES.get(config.model_type)
    if family is not None:
        found = [(n, m) for n, m in model.named_modules() if re.fullmatch(family.blocks, n)]
        if found:
            return found
    return _repeated_modules(model)


def branches(model: nn.Module) -> tuple[str, ...]:
    """Return the names of a block's residual branches, empty where the family has none that are known."""
    config: Any = model.config
    family = FAMILIES.get(config.model_type)
    return family.branches if family else ()


def _repeated_modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Find the blocks of a family without an entry.

    They are the members of numbered lists that share a class, and of all such classes the outermost one that
    occurs at least three times and together holds most of the parameters.
    """
    numbered = [(n, m) for n, m in model.named_modules() if re.search(r"\.\d+$", n)]
    sizes: Counter[type[nn.Module]] = Counter()
    counts: Counter[type[nn.Module]] = Counter()
    for _, module in numbered:
        sizes[type(module)] += sum(p.numel() for p in module.parameters())
        counts[type(module)] += 1
    total = sum(p.numel() for p in model.parameters())
    for _, module in numbered:
        kind = type(module)
        if counts[kind] >= 3 and sizes[kind] > total / 2 and kind not in (nn.Sequential, nn.ModuleList):
            return [(n, m) for n, m in numbered if type(m) is kind]
    return []

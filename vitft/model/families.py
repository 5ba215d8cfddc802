"""The table of families: where a checkpoint's blocks live, and how a block's branches can be left out.

A family is transformers' ``model_type``. One that has no entry is treated by rule where a rule is safe, and refused
where it is not.
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
        branches: submodules of a block whose output is added to the residual stream without passing a module
            named ``drop_path``; those that do need no entry.
        any_size: whether every image size runs with the same weights (convolutions and the like). The size is
            then what the image processor makes; ``config.image_size``, if there is one, binds nothing.
    """

    blocks: str
    branches: tuple[str, ...] = ()
    any_size: bool = False


_PLAIN = Family(r"\w+\.layers\.\d+", branches=("attention", "mlp"))
_ENCODER_LAYER = Family(r"\w+\.(encoder\.)?layers?\.\d+")
_TOWER = Family(r"vision_model\.encoder\.layers\.\d+", branches=("self_attn", "mlp"))
_BLOCKS_OF_LAYERS = r"\w+\.encoder\.layers\.\d+\.blocks\.\d+"
_STAGED = Family(r"\w+\.encoder\.stages\.\d+\.layers\.\d+", any_size=True)
_MOBILE_VIT = Family(r"\w+\.encoder\.layer\.\d+\.(layer|transformer\.layer)\.\d+", any_size=True)
_FLAT = Family(r"\w+\.layer\.\d+", any_size=True)

FAMILIES: Mapping[str, Family] = {
    # one sequence of tokens, one width
    "vit": _PLAIN,
    "vit_msn": _PLAIN,
    "ijepa": _PLAIN,
    "deit": _PLAIN,
    "dinov2": _ENCODER_LAYER,
    "dinov2_with_registers": _ENCODER_LAYER,
    "beit": _ENCODER_LAYER,
    "data2vec-vision": _ENCODER_LAYER,
    "clip": _TOWER,
    "metaclip_2": _TOWER,
    "siglip": _TOWER,
    # stages of falling resolution
    "swin": Family(_BLOCKS_OF_LAYERS, branches=("mlp",)),
    "swinv2": Family(_BLOCKS_OF_LAYERS),
    "donut-swin": Family(_BLOCKS_OF_LAYERS, branches=("output",)),
    "hiera": Family(r"\w+\.encoder\.stages\.\d+\.layers\.\d+"),
    "pvt": Family(r"\w+\.encoder\.block\.\d+\.\d+"),
    "pvt_v2": Family(_BLOCKS_OF_LAYERS, any_size=True),
    "levit": Family(r"\w+\.encoder\.stages\.\d+\.layers\.\d+", branches=("module",)),
    "cvt": _STAGED,
    "segformer": Family(r"\w+\.(encoder\.)?(stages\.\d+\.blocks|block\.\d+)\.\d+", any_size=True),
    "poolformer": Family(r"\w+\.encoder\.block\.\d+\.\d+", any_size=True),
    "swiftformer": Family(r"\w+\.encoder\.network\.\d+\.blocks\.\d+", any_size=True),
    "focalnet": _STAGED,
    # convolutions
    "convnext": _STAGED,
    "convnextv2": _STAGED,
    "resnet": _STAGED,
    "regnet": _STAGED,
    "bit": _STAGED,
    "mobilevit": _MOBILE_VIT,
    "mobilevitv2": _MOBILE_VIT,
    "mobilenet_v1": _FLAT,
    "mobilenet_v2": _FLAT,
    "efficientnet": Family(r"\w+\.encoder\.blocks\.\d+", any_size=True),
    "textnet": Family(r"\w+\.encoder\.stages\.\d+\.stage\.\d+", any_size=True),
    "hgnet_v2": Family(r"(\w+\.)?encoder\.stages\.\d+\.blocks\.\d+", any_size=True),
}

# The image encoder of a pair, saved alone: its config.json is the ``vision_config`` of the other family's.
TOWERS: Mapping[str, str] = {
    "clip_vision_model": "clip",
    "metaclip_2_vision_model": "metaclip_2",
    "siglip_vision_model": "siglip",
}

UNSUPPORTED: Mapping[str, str] = {
    "dinov3_vit": "transformers has no classification class for DINOv3; dinov2 checkpoints are the nearest",
    "dinov3_convnext": "transformers has no classification class for DINOv3; convnext checkpoints are the nearest",
    "siglip2": "its NaFlex input (pre-cut patches) is not supported; siglip checkpoints are the nearest",
    "siglip2_vision_model": "its NaFlex input (pre-cut patches) is not supported; siglip checkpoints are the nearest",
    "imagegpt": "it reads images as colour clusters, not as pixels",
    "perceiver": "its input and its decoder follow none of the usual forms",
    "shieldgemma2": "it is a language model that judges images by a prompt",
    "pp_lcnet": "transformers' class for it returns no logits, and its pipeline fails on it",
    "timm_wrapper": "timm's models are not in this version; most have a twin among transformers' own",
}


def family_of(config: Any) -> Family | None:
    """Return the entry of a configuration's family, None where there is none."""
    return FAMILIES.get(config.model_type)


def blocks(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return (name, module) of the model's residual blocks, from input to output."""
    family = family_of(model.config)
    if family is None:
        return _repeated_modules(model)
    return [(name, module) for name, module in model.named_modules() if re.fullmatch(family.blocks, name)]


def _repeated_modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Find the blocks of a family without an entry.

    They are the members of numbered lists that share a class, and of all such classes the outermost one that
    occurs at least three times and holds most of the parameters.
    """
    numbered = [(n, m) for n, m in model.named_modules() if re.search(r"\.\d+$", n) and type(m) is not nn.ModuleList]
    counts = Counter(type(module) for _, module in numbered)
    total = sum(p.numel() for p in model.parameters())
    for kind in counts:  # in the order in which modules are listed: outer ones first
        alike = [(name, module) for name, module in numbered if type(module) is kind]
        if len(alike) >= 3 and sum(p.numel() for _, module in alike for p in module.parameters()) > total / 2:
            return alike
    return []

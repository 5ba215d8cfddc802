"""DINOv3's ViTs as timm models, because transformers has no classifier for them.

timm has the same network; only names differ, and queries, keys and values are one matrix there. The head reads the
class token, as in DINOv3's own evaluation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vitft.errors import ModelError

MODEL_TYPE = "dinov3_vit"

_WIDTHS = {384: "small", 768: "base", 1024: "large", 1280: "huge", 4096: "7b"}
# What timm's architectures have, and no argument of theirs can change.
_FIXED: Mapping[str, Any] = {"key_bias": False, "proj_bias": True, "mlp_bias": True, "layer_norm_eps": 1e-5}


def as_timm(config: Any, named: str) -> dict[str, Any]:
    """Return the config.json of the timm model that computes the same as a ``DINOv3ViTConfig``.

    Raises:
        ModelError: if timm has no such network.
    """
    gated = bool(config.use_gated_mlp)
    wanted: dict[str, Any] = {
        **_FIXED,
        "hidden_act": "silu" if gated else "gelu",
        "value_bias": config.query_bias,
        "num_channels": 3,
    }
    differs = [f"{key} {getattr(config, key)}" for key, value in wanted.items() if getattr(config, key) != value]
    if gated and config.intermediate_size % 8:
        differs.append(f"intermediate_size {config.intermediate_size}, not divisible by 8")
    if differs:
        raise ModelError(
            f"{named} is a DINOv3 model of a kind that timm does not have: {', '.join(differs)}",
            hint="a checkpoint of facebook/dinov3-vit*, such as facebook/dinov3-vits16-pretrain-lvd1689m",
        )
    size = _WIDTHS.get(config.hidden_size, "small")
    plus = "_plus" if size == "huge" or (gated and size == "small") else ""
    bias = "_qkvb" if config.query_bias and size != "7b" else ""
    arguments = {
        "img_size": config.image_size,
        "patch_size": config.patch_size,
        "embed_dim": config.hidden_size,
        "depth": config.num_hidden_layers,
        "num_heads": config.num_attention_heads,
        "mlp_ratio": _ratio(config.intermediate_size, config.hidden_size),
        "num_reg_tokens": config.num_register_tokens,
        "qkv_bias": bool(config.query_bias),
        "rope_temperature": config.rope_theta,
        "global_pool": "token",
    }
    if gated:
        arguments |= {"swiglu_mlp": True, "swiglu_align_to": 8}
    return {
        "model_type": "timm_wrapper",
        "architecture": f"vit_{size}{plus}_patch16_dinov3{bias}",
        "num_classes": 0,
        "model_args": arguments,
    }


def timm_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return DINOv3's tensors by timm's names; any other state as it is.

    The mask token is left out: it is for pretraining alone.
    """
    if "embeddings.register_tokens" not in state:
        return dict(state)
    is_gated = any(".mlp.gate_proj." in key for key in state)
    found: dict[str, Tensor] = {}
    for key, tensor in state.items():
        if match := re.fullmatch(rf"{_LAYER}attention\.([qkv])_proj\.weight", key):
            parts = [state[key.replace(f"{match[2]}_proj", f"{each}_proj")] for each in "qkv"]
            found[f"blocks.{match[1]}.attn.qkv.weight"] = torch.cat(parts)
        elif tensor.numel() and key != "embeddings.mask_token":  # without registers, theirs is empty
            found[_name(key, is_gated)] = tensor
    return found


def _name(key: str, is_gated: bool) -> str:
    """Return timm's name of a tensor; an unknown one keeps its own, and is then found to be surplus."""
    up = "fc1_x" if is_gated else "fc1"
    key = re.sub(_LAYER, r"blocks.\1.", key)
    for theirs, name in (*_NAMES.items(), (".mlp.up_proj.", f".mlp.{up}.")):
        key = key.replace(theirs, name)
    return re.sub(r"layer_scale(\d)\.lambda1$", r"gamma_\1", key)


_LAYER = r"(?:model\.)?layer\.(\d+)\."  # transformers writes the short form
_NAMES = {
    "embeddings.cls_token": "cls_token",
    "embeddings.register_tokens": "reg_token",
    "embeddings.patch_embeddings.": "patch_embed.proj.",
    ".attention.q_proj.bias": ".attn.q_bias",
    ".attention.v_proj.bias": ".attn.v_bias",
    ".attention.o_proj.": ".attn.proj.",
    ".mlp.gate_proj.": ".mlp.fc1_g.",
    ".mlp.down_proj.": ".mlp.fc2.",
}


def _ratio(hidden: int, width: int) -> float:
    """Return the factor by which timm gets ``hidden`` from ``width``; it rounds down."""
    exact = hidden / width
    return exact if int(width * exact) == hidden else (hidden + 0.5) / width

"""The table of families: where a checkpoint keeps positions, patches and blocks, and what a new size changes.

A family is transformers' ``model_type``. A family without an entry trains at its own size, with blocks found by rule;
anything that needs more knowledge of it is an error.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Literal

from vitft.architectures.family import QUERIES_VALUES, Family, Size, Table, Tokens
from vitft.architectures.timm_models import PREFIX, WRAPPER, Vision, architecture_of

# --- tables ------------------------------------------------------------------------------------------------


def _patches(config: Any, size: Size, _: int) -> Size:
    return size[0] // config.patch_size, size[1] // config.patch_size


def _windows(config: Any, _size: Size, _: int) -> Size:
    return config.window_size, config.window_size


def _hiera_units(config: Any, size: Size, _: int) -> Size:
    return size[0] // config.patch_stride[0], size[1] // config.patch_stride[1]


def _pvt_cells(config: Any, size: Size, stage: int) -> Size:
    pitch = math.prod(config.patch_sizes[: stage + 1])
    return size[0] // pitch, size[1] // pitch


def _levit_cells(config: Any, size: Size, stage: int) -> Size:
    rows, columns = _patches(config, size, stage)
    for _ in range(stage):
        rows, columns = (rows + 1) // 2, (columns + 1) // 2
    return rows, columns


def _hiera_step(config: Any) -> int:
    return int(config.patch_stride[0] * config.query_stride[0] ** config.num_query_pool)


def _pvt_step(config: Any) -> int:
    return math.prod(config.patch_sizes)


_ONE_NUMBER = "its transformers configuration has one number for both sides"
_SCRAMBLED = "transformers reads the table of a grid that is not square in the wrong order"


# --- tokens ------------------------------------------------------------------------------------------------

_BETWEEN = "tokens are merged between stages, so the layers' attention cannot be multiplied"
_POOLED = f"keys are pooled, and {_BETWEEN}"
_NO_PAIRS = "they have no attention between pairs of tokens"


def _class(_: Any) -> tuple[str, ...]:
    return ("class",)


def _class_read(_: Any) -> Literal["class"]:
    return "class"


def _beit_read(config: Any) -> Literal["class", "mean"]:
    return "mean" if config.use_mean_pooling else "class"


def _registers(config: Any) -> tuple[str, ...]:
    return ("class", *(f"register {number}" for number in range(1, config.num_register_tokens + 1)))


_CLASS_READ = Tokens(_class, _class_read, lambda config: 1)
_DISTILLED = Tokens(lambda config: ("class", "distillation"), _class_read, lambda config: 2)  # with a teacher, both
_DINO_NOTE = "the head reads the class token and the mean of the patch tokens; rollout shows the class token's row"
_CLASS_TOKEN = Tokens(_class)
_IN_WINDOWS = Tokens(no_rollout=f"attention stays within windows, and {_BETWEEN}", windows=True)
_POOLED_TOKENS = Tokens(no_rollout=_POOLED)
_POOLED_CLASS = Tokens(_class, _class_read, no_rollout=_POOLED)
_CONVOLUTIONS = Tokens(no_attention="they are made of convolutions")


# --- families ----------------------------------------------------------------------------------------------

_ATTENTION = "attention"
_PLACES = r"\w+\.embeddings\.position_embeddings"
_OFFSETS = r".*relative_position_bias_table"
_PATCH = r"\w+\.embeddings\.patch_embeddings\.projection\.weight"


def _plain(prefix: int, tokens: Tokens) -> Family:
    """Return the entry of a ViT with ``prefix`` tokens before the patch tokens."""
    return Family(
        r"\w+\.layers\.\d+",
        branches=("attention", "mlp"),
        attention=_ATTENTION,
        tables=(Table(_PLACES, _patches, fixed=prefix),),
        patch=_PATCH,
        tokens=tokens,
    )


def _tower(prefix: int, tokens: Tokens) -> Family:
    """Return the entry of the image encoder of an image-text pair."""
    return Family(
        r"vision_model\.encoder\.layers\.\d+",
        branches=("self_attn", "mlp"),
        attention="self_attn",
        tables=(Table(r"vision_model\.embeddings\.position_embedding\.weight", _patches, fixed=prefix),),
        patch=r"vision_model\.embeddings\.patch_embedding\.weight",
        square_only=_ONE_NUMBER,
        tokens=tokens,
    )


_ENCODER_LAYER = r"\w+\.(?:encoder\.)?layers?\.\d+"


def _dino(tokens: Tokens) -> Family:
    return Family(
        _ENCODER_LAYER,
        attention=_ATTENTION,
        tables=(Table(_PLACES, _patches, fixed=1),),
        patch=_PATCH,
        square_only=_SCRAMBLED,
        resamples_itself=True,
        tokens=tokens,
    )


_BEIT = Family(
    _ENCODER_LAYER,
    attention=_ATTENTION,
    tables=(Table(_PLACES, _patches, fixed=1), Table(_OFFSETS, _patches, "offsets", fixed=3)),
    patch=_PATCH,
    square_only=_SCRAMBLED,
    keeps_offsets=True,
    tokens=Tokens(_class, _beit_read, lambda config: 0 if config.use_mean_pooling else 1),
)
_SWIN = (Table(_PLACES, _patches), Table(_OFFSETS, _windows, "offsets", is_of_windows=True))
_BLOCKS_OF_LAYERS = r"\w+\.encoder\.layers\.\d+\.blocks\.\d+"
_LAYERS_OF_STAGES = r"\w+\.encoder\.stages\.\d+\.layers\.\d+"


def _free(blocks: str, tokens: Tokens, attention: str = "", queries_values: str = QUERIES_VALUES) -> Family:
    """Return the entry of a family without positions."""
    return Family(blocks, attention=attention, queries_values=queries_values, any_size=True, tokens=tokens)


_MOBILE_VIT = r"\w+\.encoder\.layer\.\d+\.(layer|transformer\.layer)\.\d+"
_STAGES = _free(_LAYERS_OF_STAGES, _CONVOLUTIONS)
_FLAT = _free(r"\w+\.layer\.\d+", _CONVOLUTIONS)

FAMILIES: Mapping[str, Family] = {
    # one sequence of tokens, one width
    "vit": _plain(1, _CLASS_READ),
    "vit_msn": _plain(1, _CLASS_READ),
    "ijepa": _plain(0, Tokens()),
    "deit": _plain(2, _DISTILLED),
    "dinov2": _dino(Tokens(_class, _class_read, note=_DINO_NOTE)),
    "dinov2_with_registers": _dino(Tokens(_registers, _class_read, note=_DINO_NOTE)),
    "beit": _BEIT,
    "data2vec-vision": _BEIT,
    "clip": _tower(1, _CLASS_TOKEN),
    "metaclip_2": _tower(1, _CLASS_TOKEN),
    "siglip": _tower(0, Tokens()),
    # stages of falling resolution
    "swin": Family(_BLOCKS_OF_LAYERS, branches=("mlp",), attention=_ATTENTION, tables=_SWIN, tokens=_IN_WINDOWS),
    "swinv2": Family(
        _BLOCKS_OF_LAYERS, attention=_ATTENTION, tables=_SWIN[:1], has_window_networks=True, tokens=_IN_WINDOWS
    ),
    "donut-swin": Family(
        _BLOCKS_OF_LAYERS, branches=("output",), attention=_ATTENTION, tables=_SWIN, tokens=_IN_WINDOWS
    ),
    "hiera": Family(
        _LAYERS_OF_STAGES,
        attention="attn",
        queries_values=r"attn\.qkv",
        tables=(Table(_PLACES, _hiera_units),),
        step=_hiera_step,
        tokens=Tokens(no_rollout="attention stays within windows, and queries are pooled"),
    ),
    "pvt": Family(
        r"\w+\.encoder\.block\.\d+\.\d+",
        attention=_ATTENTION,
        tables=(
            Table(r"\w+\.encoder\.patch_embeddings\.([012])\.position_embeddings", _pvt_cells),
            Table(r"\w+\.encoder\.patch_embeddings\.(3)\.position_embeddings", _pvt_cells, fixed=1),
        ),
        step=_pvt_step,
        square_only=_ONE_NUMBER,
        tokens=_POOLED_CLASS,
    ),
    "levit": Family(
        _LAYERS_OF_STAGES,
        branches=("module",),
        attention=r"(module\.)?(attention_biases|queries|keys_values|queries_keys_values|projection)",
        queries_values=r"(module\.)?(queries|keys_values|queries_keys_values)\.linear",
        tables=(Table(r"\w+\.encoder\.stages\.(\d+)\..*attention_biases", _levit_cells, "distances"),),
        square_only=_ONE_NUMBER,
        most_places=32 * 32,  # building it loops over all pairs in Python
        tokens=Tokens(
            note="four convolutions come before its tokens; the blocks that reduce the number of tokens have no "
            "residual path, so rollout adds none there"
        ),
    ),
    # stages without positions
    "pvt_v2": _free(_BLOCKS_OF_LAYERS, _POOLED_TOKENS, attention=_ATTENTION),
    "cvt": _free(
        _LAYERS_OF_STAGES,
        _POOLED_CLASS,
        attention=_ATTENTION,
        queries_values=r"attention\.attention\.projection_(query|value)",
    ),
    "segformer": _free(r"\w+\.(encoder\.)?(stages\.\d+\.blocks|block\.\d+)\.\d+", _POOLED_TOKENS, attention=_ATTENTION),
    "poolformer": _free(r"\w+\.encoder\.block\.\d+\.\d+", Tokens(no_attention=f"{_NO_PAIRS}, only pooling")),
    "swiftformer": _free(
        r"\w+\.encoder\.network\.\d+\.blocks\.\d+",
        Tokens(no_attention=f"{_NO_PAIRS}, only one global query"),
        attention="attn",
    ),
    "focalnet": _free(_LAYERS_OF_STAGES, Tokens(no_attention=f"{_NO_PAIRS}, only focal modulation")),
    "mobilevit": _free(
        _MOBILE_VIT,
        Tokens(no_rollout="convolutions come between groups of attention layers"),
        attention=_ATTENTION,
    ),
    "mobilevitv2": _free(
        _MOBILE_VIT, Tokens(no_attention=f"{_NO_PAIRS}, only one weight per token"), attention=_ATTENTION
    ),
    # convolutions
    "convnext": _STAGES,
    "convnextv2": _STAGES,
    "resnet": _STAGES,
    "regnet": _STAGES,
    "bit": _STAGES,
    "mobilenet_v1": _FLAT,
    "mobilenet_v2": _FLAT,
    "efficientnet": _free(r"\w+\.encoder\.blocks\.\d+", _CONVOLUTIONS),
    "textnet": _free(r"\w+\.encoder\.stages\.\d+\.stage\.\d+", _CONVOLUTIONS),
    "hgnet_v2": _free(r"(\w+\.)?encoder\.stages\.\d+\.blocks\.\d+", _CONVOLUTIONS),
}

# Image encoders saved without their text half: their config.json is the full family's ``vision_config``.
TOWERS: Mapping[str, str] = {
    "clip_vision_model": "clip",
    "metaclip_2_vision_model": "metaclip_2",
    "siglip_vision_model": "siglip",
}

_NAFLEX = (
    "its NaFlex input (patches cut before) is not supported; use a SigLIP2 checkpoint of a fixed size, such as "
    "google/siglip2-base-patch16-224"
)
UNSUPPORTED: Mapping[str, str] = {
    "dinov3_convnext": "transformers has no classifier for it; use timm's copy, such as "
    "timm/convnext_tiny.dinov3_lvd1689m",
    "siglip2": _NAFLEX,
    "siglip2_vision_model": _NAFLEX,
    "imagegpt": "it reads images as colour clusters, not pixels",
    "perceiver": "its input and decoder differ from every other family's",
    "shieldgemma2": "it is a language model that judges images by a prompt",
    "pp_lcnet": "its transformers class returns no logits, and pipeline fails on it",
}


def family_of(config: Any) -> Family | None:
    """Return the entry of a configuration's family, None if there is none.

    Raises:
        ModelError: if it is a timm model that timm cannot build.
    """
    return _wrapped(config) if config.model_type == WRAPPER else FAMILIES.get(config.model_type)


def runs_at_any_size(config: Any) -> bool:
    """Whether the same weights run at every image size."""
    family = family_of(config)
    return family is not None and family.any_size


def has_no_tables(config: Any) -> bool:
    """Whether a family is known to have no position tables."""
    family = family_of(config)
    return family is not None and not family.tables


def tokens_of(config: Any) -> Tokens:
    """Return what is known about a family's tokens, or a guess for an unknown family."""
    family = FAMILIES.get(config.model_type)
    unknown = Tokens(
        is_known=False,
        note=f"{config.model_type} is an unknown family: its tokens are taken as one sequence, with a class token "
        "unless all of them fill a grid",
    )
    return family.tokens if family and family.tokens else unknown


def _wrapped(config: Any) -> Family:
    """Return the entry of a timm model, made from its architecture."""
    known = architecture_of(config)
    return Family(
        known.blocks,
        attention="attn",
        queries_values=r"attn\.(qkv|[qv]_proj|q|v|kv)",
        tables=tuple(Table(name, _patches, entries, fixed) for name, (entries, fixed) in known.tables.items()),
        step=lambda vision: int(vision.step),
        patch=rf"{re.escape(PREFIX)}patch_embed\.proj\.weight" if known.has_plain_patch else "",
        fixed=known.fixed,
        any_size=known.image_size is None,
    )


def vision_config(config: Any) -> Any:
    """Return the image part of a configuration: all of it, except for image-text pairs and timm models."""
    if config.model_type == WRAPPER:
        return Vision(config)
    return getattr(config, "vision_config", config)

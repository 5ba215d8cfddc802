"""The table of families: where a checkpoint keeps positions, patches and blocks, and what a new size means for it.

A family is transformers' ``model_type``. One that has no entry trains at its own size, by rule where a rule is
safe; what is not known of it is refused.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from vitft.model.position import Method, resample_distance_table, resample_relative_table, resample_table
from vitft.model.wrapped import PREFIX, WRAPPER, Vision, architecture_of

Size = tuple[int, int]
"""(height, width) in pixels, or (rows, columns) of a grid."""


@dataclass(frozen=True)
class Table:
    """Parameters whose shape follows a grid.

    Attributes:
        name: pattern of their names in memory; what a group of it matches is the number of a stage.
        grid: (vision configuration, image size, stage) -> (rows, columns).
        layout: one entry per place, per signed offset of two places, or per distance (absolute offset).
        fixed: entries that stand for no place: class tokens before the places, or after the offsets.
    """

    name: str
    grid: Callable[[Any, Size, int], Size]
    layout: Literal["places", "offsets", "distances"] = "places"
    fixed: int = 0

    def grid_of(self, name: str, config: Any, size: Size) -> Size | None:
        """Return the grid of the parameter ``name`` at an image size, None if it is none of these tables."""
        match = re.fullmatch(self.name, name)
        return self.grid(config, size, int(match[1]) if match.groups() else 0) if match else None

    def resample(self, table: Tensor, old: Size, new: Size, method: Method) -> Tensor:
        """Return the table on another grid; ValueError if it is not of the old one."""
        match self.layout:
            case "places":
                return resample_table(table, old, new, prefix=self.fixed, method=self.method(method))
            case "offsets":
                return resample_relative_table(table, old, new, extra=self.fixed, method=method)
            case "distances":
                return resample_distance_table(table, old, new, method=method)

    def method(self, wanted: Method) -> Method:
        """Return the method that serves this table where ``wanted`` is chosen for all of a model."""
        return "bicubic" if wanted == "geometric" and self.layout == "places" else wanted


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


def _patch_step(config: Any) -> int:
    return int(config.patch_size)


def _hiera_step(config: Any) -> int:
    return int(config.patch_stride[0] * config.query_stride[0] ** config.num_query_pool)


def _pvt_step(config: Any) -> int:
    return math.prod(config.patch_sizes)


_ONE_NUMBER = "transformers' configuration of it takes one number for both sides"
_SCRAMBLED = "transformers reads a table of a grid that is not square in the wrong order"


@dataclass(frozen=True)
class Family:
    """What vitft knows of one ``model_type``.

    Attributes:
        blocks: pattern of the module names of its residual blocks, from input to output; empty if they are to be
            found by rule.
        branches: submodules of a block whose output is added to the residual stream without passing a module
            named ``drop_path``; those that do need no entry.
        tables: its position tables; all other parameters are the same at every size.
        step: vision configuration -> number of pixels that must divide both sides of an image.
        patch: pattern of the name of a patch embedding that is a plain convolution (kernel = stride), in memory.
        square_only: why only square images are possible, if so.
        fixed: why its image size cannot change, if so.
        any_size: whether every image size runs with the same weights (convolutions and the like). The size is
            then what the image processor makes; ``config.image_size``, if there is one, binds nothing.
        resamples_itself: whether transformers resamples the table in every forward pass, so that the image
            processor says the size and ``config.image_size`` only that of the table.
        has_window_networks: whether biases come from a network over coordinates that are scaled by the window
            (SwinV2), which must go on being that of the pretraining.
    """

    blocks: str
    branches: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    step: Callable[[Any], int] = _patch_step
    patch: str = ""
    square_only: str = ""
    fixed: str = ""
    any_size: bool = False
    resamples_itself: bool = False
    has_window_networks: bool = False

    @property
    def has_windows(self) -> bool:
        """Whether attention stays within windows whose size can be chosen."""
        return any(table.grid is _windows for table in self.tables)


_PLACES = r"\w+\.embeddings\.position_embeddings"
_OFFSETS = r".*relative_position_bias_table"
_PATCH = r"\w+\.embeddings\.patch_embeddings\.projection\.weight"


def _plain(prefix: int) -> Family:
    """Return the entry of a ViT with ``prefix`` tokens before those of the patches."""
    return Family(
        r"\w+\.layers\.\d+",
        branches=("attention", "mlp"),
        tables=(Table(_PLACES, _patches, fixed=prefix),),
        patch=_PATCH,
    )


def _tower(prefix: int) -> Family:
    """Return the entry of the image half of a pair."""
    return Family(
        r"vision_model\.encoder\.layers\.\d+",
        branches=("self_attn", "mlp"),
        tables=(Table(r"vision_model\.embeddings\.position_embedding\.weight", _patches, fixed=prefix),),
        patch=r"vision_model\.embeddings\.patch_embedding\.weight",
        square_only=_ONE_NUMBER,
    )


_ENCODER_LAYER = r"\w+\.(?:encoder\.)?layers?\.\d+"
_DINO = Family(
    _ENCODER_LAYER,
    tables=(Table(_PLACES, _patches, fixed=1),),
    patch=_PATCH,
    square_only=_SCRAMBLED,
    resamples_itself=True,
)
_BEIT = Family(
    _ENCODER_LAYER,
    tables=(Table(_PLACES, _patches, fixed=1), Table(_OFFSETS, _patches, "offsets", fixed=3)),
    patch=_PATCH,
    square_only=_SCRAMBLED,
)
_SWIN = (Table(_PLACES, _patches), Table(_OFFSETS, _windows, "offsets"))
_BLOCKS_OF_LAYERS = r"\w+\.encoder\.layers\.\d+\.blocks\.\d+"
_STAGED = Family(r"\w+\.encoder\.stages\.\d+\.layers\.\d+", any_size=True)
_MOBILE_VIT = Family(r"\w+\.encoder\.layer\.\d+\.(layer|transformer\.layer)\.\d+", any_size=True)
_FLAT = Family(r"\w+\.layer\.\d+", any_size=True)

FAMILIES: Mapping[str, Family] = {
    # one sequence of tokens, one width
    "vit": _plain(prefix=1),
    "vit_msn": _plain(prefix=1),
    "ijepa": _plain(prefix=0),
    "deit": _plain(prefix=2),
    "dinov2": _DINO,
    "dinov2_with_registers": _DINO,
    "beit": _BEIT,
    "data2vec-vision": _BEIT,
    "clip": _tower(prefix=1),
    "metaclip_2": _tower(prefix=1),
    "siglip": _tower(prefix=0),
    # stages of falling resolution
    "swin": Family(_BLOCKS_OF_LAYERS, branches=("mlp",), tables=_SWIN),
    "swinv2": Family(_BLOCKS_OF_LAYERS, tables=_SWIN[:1], has_window_networks=True),
    "donut-swin": Family(_BLOCKS_OF_LAYERS, branches=("output",), tables=_SWIN),
    "hiera": Family(
        r"\w+\.encoder\.stages\.\d+\.layers\.\d+", tables=(Table(_PLACES, _hiera_units),), step=_hiera_step
    ),
    "pvt": Family(
        r"\w+\.encoder\.block\.\d+\.\d+",
        tables=(
            Table(r"\w+\.encoder\.patch_embeddings\.([012])\.position_embeddings", _pvt_cells),
            Table(r"\w+\.encoder\.patch_embeddings\.(3)\.position_embeddings", _pvt_cells, fixed=1),
        ),
        step=_pvt_step,
        square_only=_ONE_NUMBER,
    ),
    "levit": Family(
        r"\w+\.encoder\.stages\.\d+\.layers\.\d+",
        branches=("module",),
        tables=(Table(r"\w+\.encoder\.stages\.(\d+)\..*attention_biases", _levit_cells, "distances"),),
        square_only=_ONE_NUMBER,
    ),
    # stages without positions
    "pvt_v2": Family(_BLOCKS_OF_LAYERS, any_size=True),
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
}


def family_of(config: Any) -> Family | None:
    """Return the entry of a configuration's family, None where there is none.

    Raises:
        ModelError: if it is a model of timm, which cannot build it.
    """
    return _wrapped(config) if config.model_type == WRAPPER else FAMILIES.get(config.model_type)


def _wrapped(config: Any) -> Family:
    """Return the entry of a timm model, made of what its architecture says."""
    known = architecture_of(config)
    return Family(
        known.blocks,
        tables=tuple(Table(name, _patches, layout, fixed) for name, (layout, fixed) in known.tables.items()),
        step=lambda vision: int(vision.step),
        patch=rf"{re.escape(PREFIX)}patch_embed\.proj\.weight" if known.has_plain_patch else "",
        fixed=known.fixed,
        any_size=known.image_size is None,
    )


def vision_config(config: Any) -> Any:
    """Return the part of a configuration that is about images: all of it, but for the families of pairs and timm's."""
    if config.model_type == WRAPPER:
        return Vision(config)
    return getattr(config, "vision_config", config)


def head_modules(head: Iterable[str]) -> set[str]:
    """Return the names of the modules that a head is made of.

    Args:
        head: names of the parameters that depend on the number of classes.
    """
    return {name.rpartition(".")[0] if name.startswith(PREFIX) else name.split(".")[0] for name in head}


def is_within(name: str, modules: Iterable[str]) -> bool:
    """Whether a parameter lies in one of some modules."""
    return any(name.startswith(f"{module}.") for module in modules)


def blocks(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return (name, module) of the model's residual blocks, from input to output."""
    family = family_of(model.config)
    if family is None or not family.blocks:
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

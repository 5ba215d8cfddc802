"""timm models in transformers' wrapper: their image size, position tables and blocks.

Their configuration holds only the architecture's name and arguments, so the rest is found by building the model on
the meta device, without memory for its weights.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from vitft.errors import ModelError, one_line

WRAPPER = "timm_wrapper"
PREFIX = "timm_model."
"""Prefix of parameter names in memory; files may lack it."""

Entries = Literal["places", "offsets"]

_TRANSFORMS = "pretrained_cfg"
_PLACES = "pos_embed"
_ELSEWHERE = {"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"}
_OFFSETS = re.compile(r".*relative_position_bias_table")
# Blocks of ViTs, of networks in stages, and of ResNets.
_BLOCKS = re.compile(r"(blocks|(stages|layers)\.\d+\.blocks|layer\d)\.\d+")


@dataclass(frozen=True)
class Architecture:
    """What is known about a timm architecture, built with certain arguments.

    Attributes:
        name: timm's name for it.
        image_size: (height, width) of its input; None if the same weights run at every size.
        patch_size: pixels from one grid position to the next.
        step: number of pixels that must divide both sides of an image.
        tables: patterns of its position tables' names -> (entries, number of entries without a position).
        has_plain_patch: whether its patch embedding is a plain convolution (kernel = stride).
        blocks: pattern of the module names of its residual blocks; empty to find them by rule.
        fixed: why its image size cannot change; empty if it can.
        drop_path: highest rate of its own drop path.
        transforms: mean, std, interpolation and crop of the images that it expects.
    """

    name: str
    image_size: tuple[int, int] | None
    patch_size: int
    step: int
    tables: Mapping[str, tuple[Entries, int]]
    has_plain_patch: bool
    blocks: str
    fixed: str
    drop_path: float
    transforms: Mapping[str, Any]


class Vision:
    """A wrapped model's configuration, with the attribute names of transformers' own families."""

    def __init__(self, config: Any) -> None:
        self._config = config

    @property
    def image_size(self) -> list[int] | None:
        """[height, width] in pixels; None if nothing depends on it."""
        size = architecture_of(self._config).image_size
        return None if size is None else list(size)

    @image_size.setter
    def image_size(self, size: int | list[int]) -> None:
        self._set("img_size", size)

    @property
    def patch_size(self) -> int:
        """Pixels from one grid position to the next."""
        return architecture_of(self._config).patch_size

    @patch_size.setter
    def patch_size(self, side: int) -> None:
        self._set("patch_size", side)

    @property
    def step(self) -> int:
        """Number of pixels that must divide both sides of an image."""
        return architecture_of(self._config).step

    @property
    def drop_path_rate(self) -> float:
        """Highest rate of its own drop path."""
        return architecture_of(self._config).drop_path

    @drop_path_rate.setter
    def drop_path_rate(self, rate: float) -> None:
        self._set("drop_path_rate", rate)

    def _set(self, argument: str, value: Any) -> None:
        self._config.model_args = {**(self._config.model_args or {}), argument: value}


def require_timm(named: str, what: str = "is a timm model") -> None:
    """Check that timm can be imported; ``what`` says why it is needed.

    Raises:
        ModelError: if it is not installed, or its torchvision does not match torch.
    """
    try:
        import timm  # noqa: F401
    except ImportError as error:
        raise ModelError(
            f"{named} {what}, and timm cannot be imported: {one_line(error)}", hint="pip install 'vitft[timm]'"
        ) from error
    except Exception as error:  # a torchvision for another torch fails in many ways
        raise ModelError(
            f"{named} {what}, and timm needs a torchvision that fits torch {torch.__version__}; the installed "
            f"one does not: {one_line(error)}",
            hint="install the torchvision built for this torch, then pip install 'vitft[timm]'",
        ) from error


def is_wrapped(values: Mapping[str, Any]) -> bool:
    """Whether a config.json describes a timm model; timm's own files have no model_type."""
    return bool(values.get("model_type", WRAPPER if _TRANSFORMS in values else None) == WRAPPER)


def read_wrapped(values: dict[str, Any], named: str) -> Any:
    """Return the configuration of a timm model from the values in its config.json.

    Raises:
        ModelError: if timm cannot be imported or cannot build the architecture, or would read files elsewhere.
    """
    require_timm(named)
    elsewhere = sorted(_ELSEWHERE & (values.get("model_args") or {}).keys())
    if elsewhere or re.search("[:/]", str(values.get("architecture"))):
        raise ModelError(
            f"the config.json of {named} sends timm elsewhere: {', '.join(elsewhere) or values['architecture']}",
            allowed="the name of an architecture, and arguments to build it with",
            hint="fix its config.json",
        )
    from transformers import TimmWrapperConfig

    config = TimmWrapperConfig.from_dict(copy.deepcopy(values))  # it removes keys from its argument
    if not config.num_labels:
        config.num_labels = 2  # transformers' default for encoders without a head
    # Newer timm writes num_classes here too; transformers passes its own, and two would be an error.
    config.model_args = {key: value for key, value in (config.model_args or {}).items() if key != "num_classes"}
    architecture_of(config)
    return config


def set_label_names(config: Any, classes: Iterable[str]) -> None:
    """Write class names where the wrapper looks for them; it ignores ``id2label``."""
    config.label_names = list(classes)


def take_transforms(config: Any, folder: Path) -> tuple[dict[str, Any], str] | None:
    """Remove timm's description of input images from a configuration and return it.

    If it stayed, transformers would use timm's transforms and ignore the image processor saved with the model.

    Returns:
        The keys of ``timm.data.resolve_data_config``, with the model's own ``input_size`` if it has one, and a note
        on their source; None if the folder has an image processor's file instead.
    """
    from timm.data import resolve_data_config

    architecture = architecture_of(config)
    given = vars(config).pop(_TRANSFORMS, None)
    if not given and (folder / "preprocessor_config.json").is_file():
        return None
    transforms: dict[str, Any] = resolve_data_config(pretrained_cfg=dict(given or architecture.transforms))
    if architecture.image_size:
        transforms["input_size"] = (3, *architecture.image_size)
    if given:
        return transforms, f"{_TRANSFORMS} is left out of config.json, where it would replace the image processor"
    return transforms, f"config.json has no {_TRANSFORMS}, so images are made as for timm's {architecture.name}"


def written(values: Mapping[str, Any], config: Any) -> dict[str, Any]:
    """Return a timm model's config.json, updated from its configuration."""
    kept = {key: value for key, value in values.items() if key != _TRANSFORMS}
    return kept | {"model_type": WRAPPER, "model_args": config.model_args}


def architecture_of(config: Any) -> Architecture:
    """Return what is known about a configuration's architecture.

    Raises:
        ModelError: if timm cannot build it.
    """
    return _inspect(config.architecture, json.dumps(config.model_args or {}, sort_keys=True))


def misfits(old: Any, new: Any) -> list[str]:
    """Return the tensors whose shape differs between two configurations, except position tables and patch kernels."""
    models = (_build(each.architecture, each.model_args or {}) for each in (old, new))
    known = architecture_of(old)
    return [
        PREFIX + name
        for name in _of_other_shape(*models)
        if not any(re.fullmatch(pattern, PREFIX + name) for pattern in known.tables)
        and not (known.has_plain_patch and name == "patch_embed.proj.weight")
    ]


@cache
def _inspect(name: str, model_args: str) -> Architecture:
    arguments = json.loads(model_args)
    model = _build(name, arguments)
    described: dict[str, Any] = getattr(model, "pretrained_cfg", None) or {}
    embed = getattr(model, "patch_embed", None)
    given = getattr(embed, "img_size", None) or arguments.get("img_size") or described.get("input_size", 224)
    image_size = (given, given) if isinstance(given, int) else (int(given[-2]), int(given[-1]))
    grid = getattr(embed, "grid_size", None)
    reduction = int(model.feature_info[-1]["reduction"]) if getattr(model, "feature_info", None) else 0
    tables: dict[str, tuple[Entries, int]] = {}
    fixed = ""
    is_free = not described.get("fixed_input_size")
    if is_free:
        if any(part.endswith(_PLACES) for part, _ in model.named_parameters()):
            fixed = "timm resamples its positions in every forward pass"
    elif grid is None or not reduction or not hasattr(model, "set_input_size"):
        fixed = "timm cannot set another size"
    else:
        tables, fixed = _tables(model, _build(name, {**arguments, "img_size": [2 * side for side in image_size]}), grid)
    found = any(_BLOCKS.fullmatch(part) for part, _ in model.named_modules())
    return Architecture(
        name=name,
        image_size=None if is_free and not fixed else image_size,
        patch_size=image_size[0] // max(grid[0], 1) if grid else max(reduction, 1),
        step=max(reduction, 1),
        tables=tables,
        has_plain_patch=not fixed and grid is not None and _is_plain(model, reduction),
        blocks=rf"{re.escape(PREFIX)}{_BLOCKS.pattern}" if found else "",
        fixed=fixed,
        drop_path=max((round(p.drop_prob, 6) for p in model.modules() if type(p).__name__ == "DropPath"), default=0.0),
        transforms=described,
    )


def _build(name: str, arguments: Mapping[str, Any]) -> Any:
    """Build an architecture on the meta device, with a head of two classes."""
    import timm

    try:
        with torch.device("meta"):
            return timm.create_model(name, pretrained=False, num_classes=2, **arguments)
    except Exception as error:  # each architecture fails on wrong arguments in its own way
        raise ModelError(
            f"timm {timm.__version__} cannot build the architecture {name!r} with {dict(arguments)}: {one_line(error)}",
            hint="pip install --upgrade timm" if "Unknown model" in str(error) else "fix its config.json",
        ) from error


def _tables(model: Any, doubled: Any, grid: tuple[int, int]) -> tuple[dict[str, tuple[Entries, int]], str]:
    """Return a model's position tables; if anything else depends on the size, none and the reason."""
    tables: dict[str, tuple[Entries, int]] = {}
    state = dict(model.named_parameters())
    for name in _of_other_shape(model, doubled):
        shape = list(state[name].shape) if name in state else []
        extra = shape[0] - (2 * grid[0] - 1) * (2 * grid[1] - 1) if len(shape) == 2 else -1
        if name == _PLACES and len(shape) == 3:
            tables[rf"{re.escape(PREFIX)}{_PLACES}"] = ("places", shape[1] - grid[0] * grid[1])
        elif _OFFSETS.fullmatch(name) and extra in (0, 3):
            tables[rf"{re.escape(PREFIX)}{_OFFSETS.pattern}"] = ("offsets", extra)
        else:
            return {}, f"its {name} depends on the image size in an unknown way"
    return tables, ""


def _of_other_shape(one: nn.Module, other: nn.Module) -> list[str]:
    """Return the names of tensors whose shape differs and that cannot simply be recomputed.

    Index tables, masks and rotary angles are recomputed for any size. Coordinates that a bias network reads are not:
    it was trained on the ones it had.
    """
    shapes = dict(other.named_parameters()) | dict(other.named_buffers())
    persistent = one.state_dict().keys()
    return [
        name
        for name, tensor in [*one.named_parameters(), *one.named_buffers()]
        if name not in shapes or tensor.shape != shapes[name].shape
        if (name in persistent and not name.endswith("relative_position_index")) or "coord" in name
    ]


def _is_plain(model: Any, reduction: int) -> bool:
    """Whether a model turns each patch into one token with one plain convolution."""
    kernel = getattr(model.patch_embed, "proj", None)
    side = (reduction, reduction)
    return isinstance(kernel, nn.Conv2d) and kernel.kernel_size == kernel.stride == side

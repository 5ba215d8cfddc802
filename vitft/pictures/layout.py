"""Where the tokens of an attention matrix stand in the image, for every family with attention.

Legend: W windows (1 where attention is global), Q queries, K keys, N tokens of a global attention.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vitft.model.families import Size, blocks, vision_config

_BETWEEN = "tokens are merged between their stages, so that the layers' matrices have no product"
_POOLED = f"keys stand for pooled places, and {_BETWEEN}"
_NO_PAIRS = "they have no attention between pairs of tokens"


@dataclass(frozen=True)
class Tokens:
    """What vitft knows of a family's tokens.

    Attributes:
        special: configuration -> names of the tokens before those of the patches.
        reads: configuration -> what the head reads: the ``class`` token, or the ``mean`` of the patches' tokens.
        no_rollout: why the layers' attention cannot be multiplied, if so.
        no_attention: why there is no attention to be read, if so.
        windows: whether attention stays within square windows that are alike.
        note: what else is to be known of it.
    """

    special: Callable[[Any], tuple[str, ...]] = lambda config: ()
    reads: Callable[[Any], Literal["class", "mean"]] = lambda config: "mean"
    no_rollout: str = ""
    no_attention: str = ""
    windows: bool = False
    note: str = ""


def _class(_: Any) -> tuple[str, ...]:
    return ("class",)


def _class_read(_: Any) -> Literal["class"]:
    return "class"


def _beit_read(config: Any) -> Literal["class", "mean"]:
    return "mean" if config.use_mean_pooling else "class"


def _registers(config: Any) -> tuple[str, ...]:
    return ("class", *(f"register {number}" for number in range(1, config.num_register_tokens + 1)))


_VIT = Tokens(_class, _class_read)
_DINO_NOTE = "its head reads the mean of the patches' tokens beside the class token; rows are the class token's"
_BEIT = Tokens(_class, _beit_read)
_TOWER = Tokens(_class)
_SWIN = Tokens(no_rollout=f"attention stays within windows, and {_BETWEEN}", windows=True)
_PYRAMID = Tokens(no_rollout=_POOLED)
_CONVOLUTIONS = Tokens(no_attention="they are made of convolutions")

TOKENS: Mapping[str, Tokens] = {
    "vit": _VIT,
    "vit_msn": _VIT,
    "ijepa": Tokens(),
    "deit": Tokens(lambda config: ("class", "distillation"), _class_read),
    "dinov2": Tokens(_class, _class_read, note=_DINO_NOTE),
    "dinov2_with_registers": Tokens(_registers, _class_read, note=_DINO_NOTE),
    "beit": _BEIT,
    "data2vec-vision": _BEIT,
    "clip": _TOWER,
    "metaclip_2": _TOWER,
    "siglip": Tokens(),
    "levit": Tokens(note="four layers of convolutions stand before its tokens; where it thins out its tokens, "
                         "its blocks have no residual path, and rollout adds none"),
    "swin": _SWIN,
    "swinv2": _SWIN,
    "donut-swin": _SWIN,
    "hiera": Tokens(no_rollout="attention stays within windows, and queries are pooled in them"),
    "pvt": Tokens(_class, _class_read, no_rollout=_POOLED),
    "pvt_v2": _PYRAMID,
    "segformer": _PYRAMID,
    "cvt": Tokens(_class, _class_read, no_rollout=_POOLED),
    "mobilevit": Tokens(no_rollout="convolutions stand between the groups of attention layers"),
    "mobilevitv2": Tokens(no_attention=f"{_NO_PAIRS}: one weight per token takes its place"),
    "swiftformer": Tokens(no_attention=f"{_NO_PAIRS}: one global query takes its place"),
    "focalnet": Tokens(no_attention=f"{_NO_PAIRS}: focal modulation takes its place"),
    "poolformer": Tokens(no_attention=f"{_NO_PAIRS}: pooling takes its place"),
    **dict.fromkeys(
        (
            "convnext", "convnextv2", "resnet", "regnet", "bit", "mobilenet_v1", "mobilenet_v2", "efficientnet",
            "textnet", "hgnet_v2",
        ),
        _CONVOLUTIONS,
    ),
}  # fmt: skip


def tokens_of(config: Any) -> Tokens:
    """Return what is known of a family's tokens; of an unknown family that its tokens stand in one sequence."""
    unknown = Tokens(note=f"{config.model_type} is unknown here: its tokens are taken for one sequence, one of them "
                          "a class token if they do not fill a grid alone")  # fmt: skip
    return TOKENS.get(config.model_type, unknown)


@dataclass(frozen=True)
class Layout:
    """Where the tokens of one attention stand.

    Attributes:
        prefix: tokens before the places, among queries and keys alike.
        queries: (row, column) in pixels of the queries' centres, float64 (W or 1, Q - prefix, 2).
        keys: the same of the keys, (W or 1, K - prefix, 2).
        grid: (rows, columns) of the queries, None if they do not fill one.
    """

    prefix: int
    queries: Tensor
    keys: Tensor
    grid: Size | None

    @property
    def distances(self) -> Tensor:
        """Distances in pixels between queries and keys, float64 (W or 1, Q - prefix, K - prefix)."""
        return ((self.queries[:, :, None] - self.keys[:, None]) ** 2).sum(-1).sqrt()


def grid_layout(grid: Size, image_size: Size, prefix: int = 0) -> Layout:
    """Return the layout of a global attention among patches that fill an image."""
    places = _centres(grid, image_size)[None]
    return Layout(prefix, places, places, grid)


def layout_of(model: nn.Module, index: int, block: str, shape: tuple[int, ...], image_size: Size) -> Layout:
    """Return where the tokens of an attention stand.

    Args:
        model: the classifier.
        index: number of the attention in a forward pass.
        block: name of the residual block that it lies in.
        shape: of its probabilities, (B, W, A, Q, K).
        image_size: (height, width) of the input in pixels.

    Raises:
        ValueError: if the tokens fill no grid.
    """
    config: Any = model.config
    if config.model_type == "hiera":
        return _hiera_layouts(model, image_size)[index]
    tokens, vision = tokens_of(config), vision_config(config)
    if tokens.windows:
        side = math.isqrt(shape[-1])
        pitch = vision.patch_size << _stage(block)
        return grid_layout((side, side), (side * pitch, side * pitch))
    known = len(tokens.special(vision))
    for prefix in (known, 0) if config.model_type in TOKENS else (0, 1):
        queries, keys = (fill_grid(count - prefix, image_size) for count in shape[-2:])
        if queries and keys:
            return Layout(prefix, _centres(queries, image_size)[None], _centres(keys, image_size)[None], queries)
    raise ValueError(f"{shape[-1]} tokens fill no grid on {image_size[0]}x{image_size[1]} pixels")


def fill_grid(count: int, image_size: Size) -> Size | None:
    """Return the (rows, columns) with ``count`` cells and about the shape of the image, None if there are none."""
    if count < 1:
        return None
    aspect = image_size[0] / image_size[1]
    near = round(math.sqrt(count * aspect))
    fitting = [(rows, count // rows) for rows in range(max(1, near - 2), near + 3) if count % rows == 0]
    best = min(fitting, key=lambda grid: abs(math.log(grid[0] / grid[1] / aspect)), default=None)
    # Rounding up at each stage may make a grid a little longer than the image is.
    return best if best and abs(best[0] - best[1] * aspect) <= 1 + 0.1 * best[0] else None


def _centres(grid: Size, image_size: Size) -> Tensor:
    """Return the centres of the cells that divide an image, float64 (rows * columns, 2)."""
    rows, columns = (
        (torch.arange(count, dtype=torch.float64) + 0.5) * side / count
        for count, side in zip(grid, image_size, strict=True)
    )
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)


def _stage(block: str) -> int:
    found = re.search(r"layers\.(\d+)\.blocks", block)
    return int(found[1]) if found else 0


def _hiera_layouts(model: nn.Module, image_size: Size) -> list[Layout]:
    """Follow the places of Hiera's tokens through its reordering, windows and pooled queries (arXiv:2306.00989)."""
    config: Any = model.config
    grid = (image_size[0] // config.patch_stride[0], image_size[1] // config.patch_stride[1])
    places = _centres(grid, image_size).reshape(1, *grid, 2)
    for _ in config.depths[:-1]:  # tokens that will be pooled together come to stand far apart
        (count, rows, columns, _), (down, across) = places.shape, config.query_stride
        places = places.reshape(count, rows // down, down, columns // across, across, 2)
        places = places.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
    places = places.reshape(-1, 2)
    layouts = []
    for _, block in blocks(model):
        attention: Any = block.attn
        size = attention.query_stride * attention.window_size if attention.use_mask_unit_attn else len(places)
        keys = places.reshape(size, -1, 2).transpose(0, 1)  # the window is the faster index
        queries = keys.reshape(len(keys), attention.query_stride, -1, 2).mean(1)
        layouts.append(Layout(0, queries, keys, None))
        places = queries.transpose(0, 1).reshape(-1, 2)
    return layouts

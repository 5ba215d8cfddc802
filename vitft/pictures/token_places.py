"""Find the image positions of the tokens in an attention matrix, for every family with attention.

Legend: W windows (1 where attention is global), Q queries, K keys, N tokens of a global attention.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vitft.architectures.blocks import blocks
from vitft.architectures.families import tokens_of, vision_config
from vitft.architectures.family import Size

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


@dataclass(frozen=True)
class TokenPlaces:
    """Image positions of the tokens in one attention matrix.

    Attributes:
        prefix: number of tokens without a position, first among both queries and keys.
        queries: (row, column) in pixels of the queries' centres, float64 (W or 1, Q - prefix, 2).
        keys: the same for the keys, (W or 1, K - prefix, 2).
        grid: (rows, columns) of the queries, None if they do not fill a grid.
    """

    prefix: int
    queries: Tensor
    keys: Tensor
    grid: Size | None

    @property
    def distances(self) -> Tensor:
        """Distances in pixels between queries and keys, float64 (W or 1, Q - prefix, K - prefix)."""
        return ((self.queries[:, :, None] - self.keys[:, None]) ** 2).sum(-1).sqrt()


def global_places(grid: Size, image_size: Size, prefix: int = 0) -> TokenPlaces:
    """Return the positions for global attention between patches that fill an image."""
    places = _centres(grid, image_size)[None]
    return TokenPlaces(prefix, places, places, grid)


def places_of(model: nn.Module, index: int, block: str, shape: tuple[int, ...], image_size: Size) -> TokenPlaces:
    """Return the image positions of the tokens in an attention matrix.

    Args:
        model: the classifier.
        index: number of the attention layer in a forward pass.
        block: name of its residual block.
        shape: shape of its probabilities, (B, W, A, Q, K).
        image_size: (height, width) of the input in pixels.

    Raises:
        ValueError: if the tokens do not fill a grid.
    """
    config: PreTrainedConfig = model.config
    if config.model_type == "hiera":
        return _hiera_places(model, image_size)[index]
    tokens, vision = tokens_of(config), vision_config(config)
    if tokens.windows:
        side = math.isqrt(shape[-1])
        pitch = vision.patch_size << _stage(block)
        return global_places((side, side), (side * pitch, side * pitch))
    known = len(tokens.special(vision))
    for prefix in (known, 0) if tokens.is_known else (0, 1):
        queries, keys = (fill_grid(count - prefix, image_size) for count in shape[-2:])
        if queries and keys:
            return TokenPlaces(prefix, _centres(queries, image_size)[None], _centres(keys, image_size)[None], queries)
    raise ValueError(f"{shape[-1]} tokens do not fill a grid on {image_size[0]}x{image_size[1]} pixels")


def fill_grid(count: int, image_size: Size) -> Size | None:
    """Return the (rows, columns) with ``count`` cells and about the image's aspect ratio, None if there is none."""
    if count < 1:
        return None
    aspect = image_size[0] / image_size[1]
    near = round(math.sqrt(count * aspect))
    fitting = [(rows, count // rows) for rows in range(max(1, near - 2), near + 3) if count % rows == 0]
    best = min(fitting, key=lambda grid: abs(math.log(grid[0] / grid[1] / aspect)), default=None)
    # Rounding up at each stage can make a grid a little longer than the image.
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


def _hiera_places(model: nn.Module, image_size: Size) -> list[TokenPlaces]:
    """Track Hiera's tokens through its reordering, windows and pooled queries (arXiv:2306.00989)."""
    config: PreTrainedConfig = model.config
    grid = (image_size[0] // config.patch_stride[0], image_size[1] // config.patch_stride[1])
    places = _centres(grid, image_size).reshape(1, *grid, 2)
    for _ in config.depths[:-1]:  # moves tokens that will be pooled together far apart
        (count, rows, columns, _), (down, across) = places.shape, config.query_stride
        places = places.reshape(count, rows // down, down, columns // across, across, 2)
        places = places.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
    places = places.reshape(-1, 2)
    places_by_layer = []
    for _, block in blocks(model):
        attention: Any = block.attn
        size = attention.query_stride * attention.window_size if attention.use_mask_unit_attn else len(places)
        keys = places.reshape(size, -1, 2).transpose(0, 1)  # the window is the faster index
        queries = keys.reshape(len(keys), attention.query_stride, -1, 2).mean(1)
        places_by_layer.append(TokenPlaces(0, queries, keys, None))
        places = queries.transpose(0, 1).reshape(-1, 2)
    return places_by_layer

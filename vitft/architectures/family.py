"""The entry of a family of architectures: its position tables, blocks and tokens."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Size = tuple[int, int]
"""(height, width) in pixels, or (rows, columns) of a grid."""


@dataclass(frozen=True)
class Table:
    """Parameters whose shape depends on a grid.

    Attributes:
        name: pattern of their names in memory; a group in it matches the number of a stage.
        grid: (vision configuration, image size, stage) -> (rows, columns).
        entries: one per position (``places``), per signed offset between two positions, or per absolute offset.
        fixed: entries without a position: class tokens before the positions, or after the offsets.
        is_of_windows: whether the grid is an attention window, whose size can be chosen.
    """

    name: str
    grid: Callable[[Any, Size, int], Size]
    entries: Literal["places", "offsets", "distances"] = "places"
    fixed: int = 0
    is_of_windows: bool = False

    def grid_of(self, name: str, config: Any, size: Size) -> Size | None:
        """Return the grid of the parameter ``name`` at an image size, None if it is not such a table."""
        match = re.fullmatch(self.name, name)
        return self.grid(config, size, int(match[1]) if match.groups() else 0) if match else None


@dataclass(frozen=True)
class Tokens:
    """What vitft knows about a family's tokens.

    Attributes:
        special: configuration -> names of the tokens before the patch tokens.
        reads: configuration -> what the head reads: the ``class`` token, or the ``mean`` of the patch tokens.
        num_read: configuration -> how many of the first tokens are all that the head reads after the last block;
            0 if it reads patch tokens too, or if that is unknown.
        no_rollout: why the layers' attention cannot be multiplied; empty if it can.
        no_attention: why there is no attention to read; empty if there is.
        windows: whether attention stays within square windows of one size.
        is_known: False if this is only a guess.
        note: a remark for the user.
    """

    special: Callable[[Any], tuple[str, ...]] = lambda config: ()
    reads: Callable[[Any], Literal["class", "mean"]] = lambda config: "mean"
    num_read: Callable[[Any], int] = lambda config: 0
    no_rollout: str = ""
    no_attention: str = ""
    windows: bool = False
    is_known: bool = True
    note: str = ""


QUERIES_VALUES = r"(.*\.)?([qv]_proj|query|value)"
"""How most families name the layers that make queries and values."""


def _patch_step(config: Any) -> int:
    return int(config.patch_size)


@dataclass(frozen=True)
class Family:
    """What vitft knows about one ``model_type``.

    Attributes:
        blocks: pattern of the module names of its residual blocks; empty to find them by rule.
        branches: submodules of a block whose output is added to the residual stream without passing through a
            module named ``drop_path``.
        attention: pattern, within a block, of the parts that attend: modules, or parameters of the block itself; empty
            if there are none.
        queries_values: pattern, within a block, of the linear layers that make queries and values, or all three of
            queries, keys and values at once; empty if there are none.
        tables: its position tables; all other parameters are the same at every size.
        step: vision configuration -> number of pixels that must divide both sides of an image.
        patch: pattern of the name in memory of a patch embedding that is a plain convolution (kernel = stride).
        square_only: why only square images are possible; empty if others are too.
        fixed: why its image size cannot change; empty if it can.
        any_size: whether the same weights run at every image size (convolutional networks, for example). The image
            processor then sets the size, and ``config.image_size`` is ignored.
        resamples_itself: whether transformers resamples the table in every forward pass. The image processor then
            sets the size, and ``config.image_size`` is only the table's.
        has_window_networks: whether a network computes biases from coordinates scaled by the window size (SwinV2),
            which must stay the window size of pretraining.
        keeps_offsets: whether a forward pass caches the position offsets for every model in the process.
        most_places: most positions in a grid for which the model builds in reasonable time; 0 for no limit.
        tokens: its tokens; None if unknown.
    """

    blocks: str
    branches: tuple[str, ...] = ()
    attention: str = ""
    queries_values: str = QUERIES_VALUES
    tables: tuple[Table, ...] = ()
    step: Callable[[Any], int] = _patch_step
    patch: str = ""
    square_only: str = ""
    fixed: str = ""
    any_size: bool = False
    resamples_itself: bool = False
    has_window_networks: bool = False
    keeps_offsets: bool = False
    most_places: int = 0
    tokens: Tokens | None = None

    @property
    def has_windows(self) -> bool:
        """Whether attention stays within windows whose size can be chosen."""
        return any(table.is_of_windows for table in self.tables)

"""What can be known of a family of architectures: its position tables, its blocks, its tokens."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Size = tuple[int, int]
"""(height, width) in pixels, or (rows, columns) of a grid."""


@dataclass(frozen=True)
class Table:
    """Parameters whose shape follows a grid.

    Attributes:
        name: pattern of their names in memory; what a group of it matches is the number of a stage.
        grid: (vision configuration, image size, stage) -> (rows, columns).
        entries: one for each place, each signed offset of two places, or each distance (absolute offset).
        fixed: entries that stand for no place: class tokens before the places, or after the offsets.
        is_of_windows: whether the grid is an attention window, whose size can be chosen.
    """

    name: str
    grid: Callable[[Any, Size, int], Size]
    entries: Literal["places", "offsets", "distances"] = "places"
    fixed: int = 0
    is_of_windows: bool = False

    def grid_of(self, name: str, config: Any, size: Size) -> Size | None:
        """Return the grid of the parameter ``name`` at an image size, None if it is none of these tables."""
        match = re.fullmatch(self.name, name)
        return self.grid(config, size, int(match[1]) if match.groups() else 0) if match else None


@dataclass(frozen=True)
class Tokens:
    """What vitft knows of a family's tokens.

    Attributes:
        special: configuration -> names of the tokens before those of the patches.
        reads: configuration -> what the head reads: the ``class`` token, or the ``mean`` of the patches' tokens.
        no_rollout: why the layers' attention cannot be multiplied, if so.
        no_attention: why there is no attention to be read, if so.
        windows: whether attention stays within square windows that are alike.
        is_known: whether this is knowledge of the family, and not a guess.
        note: what else is to be known of it.
    """

    special: Callable[[Any], tuple[str, ...]] = lambda config: ()
    reads: Callable[[Any], Literal["class", "mean"]] = lambda config: "mean"
    no_rollout: str = ""
    no_attention: str = ""
    windows: bool = False
    is_known: bool = True
    note: str = ""


def _patch_step(config: Any) -> int:
    return int(config.patch_size)


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
        keeps_offsets: whether a forward pass keeps the offsets between places for all models of the process.
        most_places: the most places of a grid for which the model can be built in reasonable time; 0: no limit.
        tokens: what its attention is between; None where that is not known.
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
    keeps_offsets: bool = False
    most_places: int = 0
    tokens: Tokens | None = None

    @property
    def has_windows(self) -> bool:
        """Whether attention stays within windows whose size can be chosen."""
        return any(table.is_of_windows for table in self.tables)

"""Replace a checkpoint's position encoding, for experiments (ViT, arXiv:2010.11929, appendix D.4, table 8).

The saved model always has an ordinary table that plain transformers loads: a fixed table is simply not trained, and a
factored one is written out by :func:`write_out_positions` before the model is saved.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from vitft.architectures.blocks import position_tables
from vitft.architectures.families import FAMILIES, family_of, vision_config
from vitft.architectures.family import Family, Size
from vitft.errors import ModelError
from vitft.recipe.choices import Initialisation, PositionKind
from vitft.recipe.sizes import show_size

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


def _has_one_table(family: Family) -> bool:
    return [table.entries for table in family.tables] == ["places"] and not family.has_window_networks


def _has_biases(family: Family) -> bool:
    return any(table.entries != "places" for table in family.tables)


# --- before the model is built -----------------------------------------------------------------------------


def choose_architecture(
    config: PreTrainedConfig, kind: PositionKind | None, init: Initialisation, named: str
) -> PreTrainedConfig:
    """Return the configuration of a model that can use this position encoding: ``config`` itself, or a BEiT's.

    Args:
        config: the checkpoint's configuration.
        kind: the position encoding, None for the checkpoint's own.
        init: where the weights come from.
        named: the checkpoint as the user typed it.

    Raises:
        ModelError: if the family cannot use it.
    """
    family, model_type = family_of(config), config.model_type
    if kind is None:
        return config
    if kind != "relative":
        if family is None or not _has_one_table(family):
            raise ModelError(
                f"model.position.kind: {kind} needs a single table of positions, and a {model_type} model has none",
                allowed=f"checkpoints of {_named(_has_one_table)}",
                hint="leave model.position.kind out",
            )
        _check_width(vision_config(config), kind)
        return config
    if init == "random" and model_type == "vit":
        return _as_beit(config, named)
    if family is None or not _has_biases(family):
        raise ModelError(
            f"model.position.kind: relative: transformers has no relative positions for a {model_type} model",
            allowed=f"checkpoints of {_named(_has_biases)}; a vit with model.init: random, which is trained as a BEiT",
            hint="--set model.init=random" if model_type == "vit" else "--model microsoft/beit-base-patch16-224-pt22k",
        )
    if model_type in ("beit", "data2vec-vision"):
        if init == "random":
            config.use_relative_position_bias, config.use_absolute_position_embeddings = True, False
        elif not (config.use_relative_position_bias or config.use_shared_relative_position_bias):
            raise ModelError(
                f"model.position.kind: relative: {named} was trained without relative positions",
                hint="--set model.init=random, or another checkpoint",
            )
    return config


def _named(has: Callable[[Family], bool]) -> str:
    return ", ".join(sorted(name for name, family in FAMILIES.items() if has(family)))


def _check_width(config: PreTrainedConfig, kind: PositionKind) -> None:
    """Reject a width that the encoding cannot split: in half for rows and columns, in quarters for waves."""
    width, parts = getattr(config, "hidden_size", None), {"learned-2d": 2, "sincos-2d": 4}.get(kind, 1)
    if width and width % parts:
        raise ModelError(
            f"model.position.kind: {kind} needs a width that is divisible by {parts}, but this model's is {width}",
            allowed="learned-1d or none",
        )


def _as_beit(config: PreTrainedConfig, named: str) -> PreTrainedConfig:
    """Return a BEiT configuration that differs from a ViT only in its positions (and has no key bias)."""
    from transformers import BeitConfig

    if isinstance(config.image_size, list | tuple) and config.image_size[0] != config.image_size[1]:
        raise ModelError(
            f"model.position.kind: relative trains {named} as a BEiT, and transformers scrambles the positions of a "
            "BEiT that is not square",
            hint="a square model.image_size",
        )
    same = (
        "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act", "layer_norm_eps",
        "hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range", "image_size", "patch_size",
        "num_channels", "id2label", "label2id",
    )  # fmt: skip
    return BeitConfig(
        **{key: getattr(config, key) for key in same},
        use_relative_position_bias=True,
        use_mean_pooling=False,  # the head reads the class token, as in a ViT
        layer_scale_init_value=0.0,
        drop_path_rate=0.0,
    )


# --- on the model ------------------------------------------------------------------------------------------


def encode_positions(model: PreTrainedModel, kind: PositionKind, image_size: Size, *, is_new: bool, was: str) -> str:
    """Change a model's position encoding in place; return a sentence that says how.

    ``learned-1d`` and ``relative`` are what the model already has. Entries of class tokens are kept; in a fixed table
    they are not trained, and zero in a new model.

    Args:
        model: a classifier whose configuration comes from :func:`choose_architecture`.
        kind: the position encoding.
        image_size: (height, width) that it runs at.
        is_new: whether its weights are random.
        was: its family before :func:`choose_architecture`.
    """
    if kind == "relative":
        by = "the checkpoint's own"
        if model.config.model_type != was:
            by = f"a BEiT of the same size is trained, because transformers has no relative positions for {was}"
        elif is_new:
            by = "new ones"
        return f"positions: relative, one bias per offset: {by}"
    name, grid, fixed = find_table(model, image_size)
    where, _, attribute = name.rpartition(".")
    module, table = model.get_submodule(where), model.get_parameter(name)
    what = f"positions: {kind}, {show_size(grid)} grid"
    if kind == "learned-1d":
        return f"{what}: {'a new table' if is_new else 'the table of the checkpoint is trained further'} ({name})"
    if kind == "learned-2d":
        nearest = _factor(module, attribute, grid, fixed, is_new)
        return f"{what}: one vector per row and one per column{nearest} ({name})"
    with torch.no_grad():
        flat = table.view(-1, table.shape[-1])
        flat[fixed:] = sincos_table(grid, flat.shape[-1]) if kind == "sincos-2d" else 0
        if is_new:
            flat[:fixed] = 0
    table.requires_grad_(False)
    instead = "" if is_new else " instead of the checkpoint's"
    of = "fixed waves" if kind == "sincos-2d" else "zeros"
    return f"{what}: a table of {of}{instead}, not trained ({name})"


@torch.no_grad()
def _factor(module: nn.Module, attribute: str, grid: Size, fixed: int, is_new: bool) -> str:
    """Replace a table by row and column vectors; return how closely they match the old table."""
    table = module.get_parameter(attribute)
    places = table.view(-1, table.shape[-1])[fixed:]
    half, own = table.shape[-1] // 2, places.view(*grid, -1)
    # Means over a random table would be too small, so a new table takes one of its rows and columns.
    rows = own[:, 0, half:] if is_new else own[..., half:].mean(1)
    columns = own[0, :, :half] if is_new else own[..., :half].mean(0)
    factored = factored_table(rows, columns)
    kept = 1 - float((places - factored).square().sum() / places.square().sum().clamp(min=1e-12))
    places.copy_(factored)
    parametrize.register_parametrization(module, attribute, _Factored(tuple(table.shape), grid, fixed))
    return "" if is_new else f", which keep {100 * kept:.0f} % of the checkpoint's table"


def find_table(model: PreTrainedModel, image_size: Size) -> tuple[str, Size, int]:
    """Return a model's position table: its name, its (rows, columns), and how many entries precede them."""
    [(name, table, grid)] = position_tables(model, image_size)
    return name, grid, table.fixed


def sincos_table(grid: Size, width: int, *, inclusive: bool = False) -> Tensor:
    """Return MAE's fixed sine and cosine table for a grid, float32 (rows * columns, D) (arXiv:2111.06377).

    An entry is [sin, cos] of the column, then of the row, times D/4 frequencies from 1 down to 1/10000.

    Args:
        grid: (rows, columns).
        width: D, divisible by 4.
        inclusive: end at the frequency 1/10000 itself, as in big_vision (arXiv:2205.01580), not one step before.
    """
    quarter = width // 4
    frequencies = 10_000.0 ** -(torch.arange(quarter, dtype=torch.float64) / max(quarter - inclusive, 1))
    rows, columns = (torch.arange(side, dtype=torch.float64)[:, None] * frequencies for side in grid)
    rows, columns = (torch.cat([angles.sin(), angles.cos()], dim=1) for angles in (rows, columns))
    return factored_table(rows, columns).float()


def factored_table(rows: Tensor, columns: Tensor) -> Tensor:
    """Return the table (H * W, D) whose entry is [column; row], from (H, D/2) and (W, D/2) (ViT, appendix D.4)."""
    height, width = len(rows), len(columns)
    return torch.cat([columns.expand(height, -1, -1), rows[:, None].expand(-1, width, -1)], dim=-1).flatten(0, 1)


class _Factored(nn.Module):
    """Builds a table from its trained parts: entries before the grid, row vectors and column vectors."""

    def __init__(self, shape: tuple[int, ...], grid: Size, fixed: int) -> None:
        super().__init__()
        self._shape, self._grid, self._fixed = shape, grid, fixed

    def forward(self, before: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        return torch.cat([before, factored_table(rows, columns)]).view(self._shape)

    def right_inverse(self, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        flat = table.view(-1, table.shape[-1])
        places = flat[self._fixed :].view(*self._grid, -1)
        half = flat.shape[-1] // 2
        return flat[: self._fixed].clone(), places[:, 0, half:].clone(), places[0, :, :half].clone()


# --- after training ----------------------------------------------------------------------------------------


def write_out_positions(model: nn.Module) -> None:
    """Replace factored tables with ordinary ones; the model's output stays the same, bit for bit."""
    for module in list(model.modules()):
        for attribute in list(getattr(module, "parametrizations", ())):
            parametrize.remove_parametrizations(module, attribute, leave_parametrized=True)
            table = getattr(module, attribute).detach().clone()
            delattr(module, attribute)  # otherwise an untrained table would become a buffer
            module.register_parameter(attribute, nn.Parameter(table))


def with_written_positions(model: PreTrainedModel) -> PreTrainedModel:
    """Return a model with ordinary tables: the model itself, or a copy if it has factored ones."""
    factored = [(name, each) for name, each in model.named_modules() if parametrize.is_parametrized(each)]
    if not factored:
        return model
    state = {key: tensor for key, tensor in model.state_dict().items() if "parametrizations" not in key.split(".")}
    for name, module in factored:
        state |= {f"{name}.{attribute}": getattr(module, attribute) for attribute in module.parametrizations}
    copy = type(model)(model.config)  # a deep copy would share its parametrizations with the original
    copy.load_state_dict(state)
    return copy

"""Another position encoding than the checkpoint's, as an experiment (ViT, arXiv:2010.11929, appendix D.4, table 8).

Whatever is trained, what is saved is an ordinary table that plain transformers loads: a fixed table is one that does
not learn, and a factored one is written out by :func:`write_out_positions` before the model is saved.
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
    """Return the configuration of a model that can have its positions encoded so: ``config`` itself, or a BEiT's.

    Args:
        config: of the checkpoint.
        kind: of the encoding, None for the checkpoint's own.
        init: where the weights are to come from.
        named: how the user called the checkpoint.

    Raises:
        ModelError: if the family cannot.
    """
    family, model_type = family_of(config), config.model_type
    if kind is None:
        return config
    if kind != "relative":
        if family is None or not _has_one_table(family):
            raise ModelError(
                f"model.position.kind: {kind} needs one table of places, which a {model_type} model has not",
                allowed=f"checkpoints of {_named(_has_one_table)}",
                hint="leave model.position.kind out",
            )
        _check_width(vision_config(config), kind)
        return config
    if init == "random" and model_type == "vit":
        return _as_beit(config, named)
    if family is None or not _has_biases(family):
        raise ModelError(
            f"model.position.kind: relative: plain transformers has no relative positions for a {model_type} model",
            allowed=f"checkpoints of {_named(_has_biases)}; a vit with model.init: random, which becomes a BEiT",
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
    """Refuse a width that the encoding cannot share out: half for rows and columns, a quarter for each wave."""
    width, parts = getattr(config, "hidden_size", None), {"learned-2d": 2, "sincos-2d": 4}.get(kind, 1)
    if width and width % parts:
        raise ModelError(
            f"model.position.kind: {kind} needs a width that is divisible by {parts}, and this model's is {width}",
            allowed="learned-1d or none",
        )


def _as_beit(config: PreTrainedConfig, named: str) -> PreTrainedConfig:
    """Return the BEiT that differs from a ViT in its positions alone (and has no bias of the keys)."""
    from transformers import BeitConfig

    if isinstance(config.image_size, list | tuple) and config.image_size[0] != config.image_size[1]:
        raise ModelError(
            f"model.position.kind: relative becomes a BEiT, and transformers scrambles one that is not square as "
            f"{named} is",
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
        use_mean_pooling=False,  # the class token makes the logits, as in a ViT
        layer_scale_init_value=0.0,
        drop_path_rate=0.0,
    )


# --- on the model ------------------------------------------------------------------------------------------


def encode_positions(model: PreTrainedModel, kind: PositionKind, image_size: Size, *, is_new: bool, was: str) -> str:
    """Encode a model's positions in another way, in place; return a sentence that says how.

    ``learned-1d`` and ``relative`` are what the model has by itself. The entries of class tokens stand for no place:
    they are kept and, in a fixed table, do not learn; a new model's are zero there.

    Args:
        model: a classifier that :func:`choose_architecture` has let pass.
        kind: of the encoding.
        image_size: (height, width) that it runs at.
        is_new: whether its weights are random.
        was: its family before.
    """
    if kind == "relative":
        by = "the checkpoint's own"
        if model.config.model_type != was:
            by = f"a BEiT of the same size is trained, since transformers has none for {was}"
        elif is_new:
            by = "new ones"
        return f"positions: relative, a bias for each offset: {by}"
    name, grid, fixed = find_table(model, image_size)
    where, _, attribute = name.rpartition(".")
    module, table = model.get_submodule(where), model.get_parameter(name)
    what = f"positions: {kind}, {show_size(grid)} places"
    if kind == "learned-1d":
        return f"{what}: {'a new table' if is_new else 'the table of the checkpoint goes on learning'} ({name})"
    if kind == "learned-2d":
        nearest = _factor(module, attribute, grid, fixed, is_new)
        return f"{what}: a vector for each row and one for each column{nearest} ({name})"
    with torch.no_grad():
        flat = table.view(-1, table.shape[-1])
        flat[fixed:] = sincos_table(grid, flat.shape[-1]) if kind == "sincos-2d" else 0
        if is_new:
            flat[:fixed] = 0
    table.requires_grad_(False)
    instead = "" if is_new else " instead of the checkpoint's"
    of = "fixed waves" if kind == "sincos-2d" else "zeros"
    return f"{what}: a table of {of}{instead}, which does not learn ({name})"


@torch.no_grad()
def _factor(module: nn.Module, attribute: str, grid: Size, fixed: int, is_new: bool) -> str:
    """Let vectors of rows and columns make a table; say how near they come to the old one."""
    table = module.get_parameter(attribute)
    places = table.view(-1, table.shape[-1])[fixed:]
    half, own = table.shape[-1] // 2, places.view(*grid, -1)
    # Means of random entries would be too small; of a new table one row and one column are as good as any.
    rows = own[:, 0, half:] if is_new else own[..., half:].mean(1)
    columns = own[0, :, :half] if is_new else own[..., :half].mean(0)
    factored = factored_table(rows, columns)
    kept = 1 - float((places - factored).square().sum() / places.square().sum().clamp(min=1e-12))
    places.copy_(factored)
    parametrize.register_parametrization(module, attribute, _Factored(tuple(table.shape), grid, fixed))
    return "" if is_new else f", nearest to the checkpoint's table, of which they keep {100 * kept:.0f} %"


def find_table(model: PreTrainedModel, image_size: Size) -> tuple[str, Size, int]:
    """Return the name of a model's table of places, its (rows, columns), and how many entries stand before them."""
    [(name, table, grid)] = position_tables(model, image_size)
    return name, grid, table.fixed


def sincos_table(grid: Size, width: int, *, inclusive: bool = False) -> Tensor:
    """Return fixed waves over the places of a grid, float32 (rows * columns, D), as MAE has them (arXiv:2111.06377).

    An entry is [sin, cos] of the column, then of the row, times D/4 frequencies from 1 down to 1/10000.

    Args:
        grid: (rows, columns).
        width: D, divisible by 4.
        inclusive: whether the last frequency is 1/10000 itself, as in big_vision (arXiv:2205.01580), or the one before.
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
    """Makes a table of what learns: entries before the places, vectors of the rows, and vectors of the columns."""

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


# --- when it is trained ------------------------------------------------------------------------------------


def write_out_positions(model: nn.Module) -> None:
    """Put ordinary tables in the place of factored ones; what the model computes stays, bit for bit."""
    for module in list(model.modules()):
        for attribute in list(getattr(module, "parametrizations", ())):
            parametrize.remove_parametrizations(module, attribute, leave_parametrized=True)
            table = getattr(module, attribute).detach().clone()
            delattr(module, attribute)  # a table that did not learn would have become a buffer
            module.register_parameter(attribute, nn.Parameter(table))


def with_written_positions(model: PreTrainedModel) -> PreTrainedModel:
    """Return a model with ordinary tables: the model itself, or a copy of one that goes on learning factored ones."""
    factored = [(name, each) for name, each in model.named_modules() if parametrize.is_parametrized(each)]
    if not factored:
        return model
    state = {key: tensor for key, tensor in model.state_dict().items() if "parametrizations" not in key.split(".")}
    for name, module in factored:
        state |= {f"{name}.{attribute}": getattr(module, attribute) for attribute in module.parametrizations}
    copy = type(model)(model.config)  # removing a parametrization from a deep copy would take it from both
    copy.load_state_dict(state)
    return copy

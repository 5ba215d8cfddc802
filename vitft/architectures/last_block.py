"""Run the last block only for the tokens that the head reads.

A head that reads the class token throws away what the last block computes for the patch tokens. Keys and values need
every token; queries, the attention's output, both residual paths and the MLP need only the class token. The logits and
all gradients stay the same up to rounding. Modules, parameters and hooks stay as they are; only ``forward`` of two
modules is replaced.

Legend: B images, N tokens, R of them read by the head, D width, A heads.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from vitft.architectures.blocks import blocks
from vitft.architectures.families import tokens_of

if TYPE_CHECKING:
    pass

_PROJECTIONS = {"q_proj", "k_proj", "v_proj", "o_proj"}


def shorten_last_block(model: nn.Module) -> bool:
    """Let the last block return only the tokens that the head reads, (B, R, D); return whether it does now.

    A model is left as it is if its head reads patch tokens, if its attention is not of the kind that ViT, DeiT, ViT-MSN
    and BEiT have, or if other code has already replaced a ``forward``.
    """
    if has_short_last_block(model):
        return True
    block = _last_block(model)
    if not _is_known(block):
        return False
    config: Any = model.config
    if config._attn_implementation not in ("eager", "sdpa"):
        return False
    block.forward = partial(_run, block, tokens_of(config).num_read(config))
    block.attention.forward = partial(_attend, block.attention)
    return True


def restore_last_block(model: nn.Module) -> None:
    """Let the last block return all tokens again."""
    if has_short_last_block(model):
        block = _last_block(model)
        for module in (block, block.attention):
            del module.__dict__["forward"]  # the method of its class is seen again


def has_short_last_block(model: nn.Module) -> bool:
    """Whether the last block returns only the tokens that the head reads."""
    forward = getattr(_last_block(model), "__dict__", {}).get("forward")
    return isinstance(forward, partial) and forward.func is _run


@contextmanager
def short_last_block(model: nn.Module) -> Iterator[None]:
    """Shorten the last block where possible; afterwards it is as before."""
    was_short = has_short_last_block(model)
    shorten_last_block(model)
    try:
        yield
    finally:
        if not was_short:
            restore_last_block(model)


@contextmanager
def whole_last_block(model: nn.Module) -> Iterator[None]:
    """Run the last block for all tokens; afterwards it is as before."""
    was_short = has_short_last_block(model)
    restore_last_block(model)
    try:
        yield
    finally:
        if was_short:
            shorten_last_block(model)


def _last_block(model: nn.Module) -> Any:
    """Return the last block; None if the head also reads other tokens than the first ones, or stands alone."""
    if not hasattr(model, "config") or not tokens_of(model.config).num_read(model.config):
        return None
    found = blocks(model)
    return found[-1][1] if found else None


def _is_known(block: Any) -> bool:
    """Whether a block normalises first, its attention has just the four projections, and nobody has replaced either."""
    attention = getattr(block, "attention", None)
    if not isinstance(attention, nn.Module) or not hasattr(block, "layernorm_before"):
        return False
    is_replaced = "forward" in vars(block) or "forward" in vars(attention)  # as accelerate's hooks do
    return not is_replaced and {name for name, _ in attention.named_children()} == _PROJECTIONS


def _run(block: Any, num_read: int, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Run a block's own code on the first R tokens of (B, N, D); its attention also gets all of them, normalised."""
    # Looked up in the class at each call, which keeps transformers' gradient checkpointing and FSDP's subclasses.
    whole = block.layernorm_before(hidden_states)
    made: Tensor = type(block).forward(block, hidden_states[:, :num_read], *args, whole=whole, **kwargs)
    return made


def _attend(
    attention: Any, hidden_states: Tensor, attention_mask: Tensor | None = None, *, whole: Tensor, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """Let the tokens read, (B, R, D), attend to all tokens.

    Args:
        attention: the module, with its projections.
        hidden_states: normalised tokens, (B, R, D).
        attention_mask: added to the products of all queries and keys, broadcasts to (B, A, N, N).
        whole: all normalised tokens, (B, N, D).
        kwargs: for the attention function.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    eager = sys.modules[type(attention).__module__].eager_attention_forward  # each family has its own
    function = ALL_ATTENTION_FUNCTIONS.get_interface(attention.config._attn_implementation, eager)
    query, key, value = (
        projected.unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
        for projected in (attention.q_proj(hidden_states), attention.k_proj(whole), attention.v_proj(whole))
    )
    mask = None if attention_mask is None else attention_mask[..., : query.shape[2], :]
    dropout = attention.attention_dropout if attention.training else 0.0
    made, weights = function(attention, query, key, value, mask, dropout=dropout, scaling=attention.scaling, **kwargs)
    return attention.o_proj(made.flatten(2)), weights

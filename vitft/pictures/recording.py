"""Read a model's attention while it runs, without changing its output.

Families that use transformers' ``AttentionInterface`` run a function of ours, which computes the probabilities and then
calls sdpa. For the others, calls to torch's softmax or sdpa inside their blocks are intercepted. Either way, a layer's
attention is passed on at once and not kept.

Legend: B images, W windows (1 where attention is global), A heads, Q queries, K keys, E width of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vitft.architectures.blocks import blocks
from vitft.architectures.family import Size
from vitft.architectures.last_block import whole_last_block
from vitft.pictures.token_places import TokenPlaces, places_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_NAME = "vitft-recording"


@dataclass(frozen=True)
class Attention:
    """The attention of one layer for a batch of images.

    Attributes:
        index: number of the layer, from 0.
        block: name of its residual block.
        probs: shape (B, W, A, Q, K); rows sum to 1.
        places: positions of its tokens in the image.
    """

    index: int
    block: str
    probs: Tensor
    places: TokenPlaces


Taker = Callable[[Attention], None]
"""Function that gets each layer's attention. It must not keep a reference to the probabilities."""


def attention_probs(query: Tensor, key: Tensor, mask: Tensor | None, scaling: float | None) -> Tensor:
    """Return softmax(q k^T * scaling + mask), in float32 or better.

    Args:
        query: shape (B, A, Q, E).
        key: shape (B, A, K, E).
        mask: added to the products, or boolean and True where they count; broadcasts to (B, A, Q, K).
        scaling: by default E ** -0.5.
    """
    wide = torch.promote_types(query.dtype, torch.float32)
    scores = query.to(wide) @ key.to(wide).transpose(-2, -1) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(-1)


@contextmanager
def recording(model: PreTrainedModel, *takers: Taker, in_graph: bool = False) -> Iterator[str]:
    """Pass every layer's attention to ``takers`` while the model runs.

    Args:
        model: a classifier in evaluation mode; its output is bit for bit the same as without recording.
        takers: called for each layer in turn, in every forward pass.
        in_graph: make the output depend on the recorded tensors, so that they have gradients. sdpa is then computed
            step by step, and the output differs by rounding (about 1e-5).

    Yields:
        How the attention is read, for the user.
    """
    reader = _Reader(model, takers, in_graph)
    hooks = [model.register_forward_pre_hook(reader.start, with_kwargs=True)]
    for name, block in blocks(model):
        hooks.append(block.register_forward_pre_hook(lambda *_, name=name: reader.inside.append(name)))
        hooks.append(block.register_forward_hook(lambda *_: reader.inside.pop() and None))
    try:
        if getattr(model, "_supports_attention_backend", False) and model.config._attn_implementation == "sdpa":
            with whole_last_block(model), _through_interface(model, reader):
                yield "a function in transformers' AttentionInterface, which then calls sdpa"
        else:
            with whole_last_block(model), _Watching(reader):
                yield f"the softmax in {type(model).__name__}'s own attention (it does not use AttentionInterface)"
    finally:
        for hook in hooks:
            hook.remove()


@dataclass
class _Reader:
    """Counts the layers of a forward pass and passes their attention on."""

    model: PreTrainedModel
    takers: tuple[Taker, ...]
    in_graph: bool
    inside: list[str] = field(default_factory=list)
    index: int = 0
    batch: int = 0
    image_size: Size = (0, 0)

    def start(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        pixels = args[0] if args else kwargs["pixel_values"]
        self.index, self.batch, self.image_size = 0, len(pixels), tuple(pixels.shape[-2:])
        self.inside.clear()

    def take(self, probs: Tensor) -> Tensor:
        """Pass on probabilities (B * W, A, Q, K), or Hiera's (B, A, W, Q, K); return what was passed, reshaped."""
        seen = probs.movedim(2, 1) if probs.ndim == 5 else probs.reshape(self.batch, -1, *probs.shape[1:])
        places = places_of(self.model, self.index, self.inside[-1], tuple(seen.shape), self.image_size)
        for taker in self.takers:
            taker(Attention(self.index, self.inside[-1], seen, places))
        self.index += 1
        return seen.movedim(1, 2) if probs.ndim == 5 else seen.flatten(0, 1)

    @property
    def is_inside(self) -> bool:
        return bool(self.inside)


@contextmanager
def _through_interface(model: PreTrainedModel, reader: _Reader) -> Iterator[None]:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    def record(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **more: Any
    ) -> tuple[Tensor, None]:
        if reader.is_inside:
            probs = reader.take(attention_probs(query, key, attention_mask, more.get("scaling")))
            if reader.in_graph:
                return (probs.to(value.dtype) @ value).transpose(1, 2).contiguous(), None
            del probs
        done: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **more)
        return done

    AttentionInterface.register(_NAME, record)
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    try:
        model.set_attn_implementation(_NAME)
        yield
    finally:
        model.set_attn_implementation("sdpa")
        for registry in (AttentionInterface, AttentionMaskInterface):
            registry._global_mapping.pop(_NAME, None)


class _Watching(TorchFunctionMode):
    """Intercepts calls to torch's softmax and sdpa inside residual blocks."""

    def __init__(self, reader: _Reader) -> None:
        super().__init__()
        self.reader = reader

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self.reader.is_inside:
            return func(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            return self._sdpa(*args, **kwargs)
        made = func(*args, **kwargs)
        if func in (F.softmax, torch.softmax, Tensor.softmax):
            seen = self.reader.take(made)
            return seen if self.reader.in_graph else made
        return made

    def _sdpa(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
        is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
    ) -> Tensor:  # fmt: skip
        assert not is_causal
        assert not enable_gqa
        probs = self.reader.take(attention_probs(query, key, attn_mask, scale))
        if self.reader.in_graph:
            return probs.to(value.dtype) @ value
        del probs
        return F.scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, scale=scale)

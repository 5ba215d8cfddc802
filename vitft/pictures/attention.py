"""What attention says: how far heads look, how widely, and what the output token attends to.

Everything is reduced layer by layer while the model runs, so that memory does not grow with layers or images.

Legend: B images, W windows (1 where attention is global), A heads, Q queries, K keys, N tokens, P patches.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from vitft.pictures.recording import Attention, recording

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SINK = 10.0
"""A patch token is called a sink where it receives more than so many times the uniform share of attention."""


# --- definitions -------------------------------------------------------------------------------------------


def attention_distance(probs: Tensor, distances: Tensor, *, prefix: int = 0, renormalise: bool = False) -> Tensor:
    """Return the mean attention distance of each head (ViT, arXiv:2010.11929, figures 7 and 11).

    The distance between the query's patch and all others, weighted by the attention, averaged over queries and
    images. The paper does not say what becomes of the class token. Its row is left out here; its column is either
    dropped, so that attention on it counts as no distance at all, or taken out and the rest renormalised.

    Args:
        probs: shape (B, W, A, Q, K).
        distances: in pixels between the patches of queries and keys, shape (W or 1, Q - prefix, K - prefix).
        prefix: tokens before those of the patches.
        renormalise: whether each row is divided by its sum over patches.

    Returns:
        Shape (A,), in the unit of ``distances``.
    """
    among = probs[..., prefix:, prefix:]
    weighted = torch.einsum("bwaqk,wqk->bwaq", among, distances.to(among).expand(probs.shape[1], -1, -1))
    if renormalise:
        weighted = weighted / among.sum(-1).clamp_min(torch.finfo(among.dtype).tiny)
    return weighted.mean((0, 1, 3))


def entropy(probs: Tensor, *, prefix: int = 0) -> Tensor:
    """Return the mean entropy of each head's rows in nats, over the queries of patches, shape (A,).

    Args:
        probs: shape (B, W, A, Q, K); all keys count.
        prefix: queries before those of the patches, which do not count.
    """
    nats: Tensor = torch.special.entr(probs[..., prefix:, :])
    return nats.sum(-1).mean((0, 1, 3))


def rollout_step(rollout: Tensor | None, attention: Tensor, *, residual: bool) -> Tensor:
    """Multiply the attention of one more layer onto a rollout (Abnar and Zuidema, arXiv:2005.00928).

    Args:
        rollout: of the layers below, shape (B, K, N); None before the first.
        attention: mean over the heads, shape (B, Q, K).
        residual: mix each row half and half with the identity, for the residual path. The ViT paper (appendix D.8)
            does not speak of it. Where Q and K differ there is no such path, and nothing is mixed in.

    Returns:
        Shape (B, Q, N); rows sum to 1.
    """
    if residual and attention.shape[-2] == attention.shape[-1]:
        attention = (attention + torch.eye(attention.shape[-1]).to(attention)) / 2
        attention = attention / attention.sum(-1, keepdim=True)
    return attention if rollout is None else attention @ rollout


def output_row(matrix: Tensor, reads: Literal["class", "mean"], prefix: int) -> Tensor:
    """Return the row of what the head reads, without the columns of special tokens.

    Args:
        matrix: shape (..., Q, K).
        reads: the ``class`` token, which is the first, or the ``mean`` over the tokens of patches.
        prefix: tokens before those of the patches, among queries and keys alike.

    Returns:
        Shape (..., K - prefix).
    """
    row = matrix[..., 0, :] if reads == "class" and prefix else matrix[..., prefix:, :].mean(-2)
    return row[..., prefix:]


# --- over many images --------------------------------------------------------------------------------------


@dataclass
class _Sums:
    """Sums over images of one layer; see :class:`Layer` for their meaning."""

    block: str
    count: int = 0
    values: dict[str, Tensor] = field(default_factory=dict)
    uniform_distance: float = 0.0
    uniform_entropy: float = 0.0

    def add(self, count: int, **means: Tensor) -> None:
        self.count += count
        for name, mean in means.items():
            new = count * mean.detach().cpu().double()
            self.values[name] = self.values[name] + new if name in self.values else new


@dataclass(frozen=True)
class Layer:
    """The heads of one layer, over all images.

    Attributes:
        block: name of its residual block.
        distance_dropped, distance_renormalised: mean attention distance in pixels by head, the class token's
            column dropped, or taken out and the rest renormalised.
        uniform_distance: the distance of a head that attends to all patches alike.
        entropy: in nats, by head.
        uniform_entropy: log of the number of keys.
        on_special: share of the patches' attention that goes to each special token, by head: (heads, tokens).
        on_sinks: share of the patches' attention that goes to sinks among the patches; None in windows.
        sinks: number of such patches per image; None in windows.
    """

    block: str
    distance_dropped: list[float]
    distance_renormalised: list[float]
    uniform_distance: float
    entropy: list[float]
    uniform_entropy: float
    on_special: list[list[float]]
    on_sinks: float | None
    sinks: float | None


class Summary:
    """A taker of attention that keeps a few numbers per head."""

    def __init__(self) -> None:
        self._layers: list[_Sums] = []
        self._distances: dict[int, Tensor] = {}

    def __call__(self, seen: Attention) -> None:
        """Add a layer of a batch."""
        probs, prefix = seen.probs.detach(), seen.places.prefix
        if seen.index == len(self._layers):
            distances = seen.places.distances
            self._distances[seen.index] = distances.to(probs)  # float32 is plenty for pixels
            self._layers.append(_Sums(seen.block))
            self._layers[-1].uniform_distance = float(distances.mean())
            self._layers[-1].uniform_entropy = float(torch.tensor(float(probs.shape[-1])).log())
        distances = self._distances[seen.index]
        means = {
            "distance_dropped": attention_distance(probs, distances, prefix=prefix),
            "distance_renormalised": attention_distance(probs, distances, prefix=prefix, renormalise=True),
            "entropy": entropy(probs, prefix=prefix),
            "on_special": probs[..., prefix:, :prefix].mean((0, 1, 3)),
        }
        if seen.places.grid and probs.shape[1] == 1 and probs.shape[-1] == probs.shape[-2]:
            received = received_attention(probs)[:, prefix:]
            is_sink = received > SINK
            means["sinks"] = is_sink.sum(-1).double().mean()
            to_patches = probs[..., prefix:, prefix:].mean((1, 2, 3))
            means["on_sinks"] = (to_patches * is_sink).sum(-1).mean()
        self._layers[seen.index].add(len(probs), **means)

    @property
    def layers(self) -> list[Layer]:
        """The layers, from input to output."""
        made = []
        for sums in self._layers:
            means: dict[str, Any] = {name: (value / sums.count).tolist() for name, value in sums.values.items()}
            means.setdefault("sinks", None)
            means.setdefault("on_sinks", None)
            made.append(
                Layer(
                    block=sums.block,
                    uniform_distance=sums.uniform_distance,
                    uniform_entropy=sums.uniform_entropy,
                    **means,
                )
            )
        return made


def received_attention(probs: Tensor) -> Tensor:
    """Return how much attention each key receives, 1 being the uniform share, shape (B, K).

    Args:
        probs: shape (B, 1, A, Q, K); heads and queries are averaged.
    """
    return probs.mean((1, 2, 3)) * probs.shape[-1]


# --- of single images --------------------------------------------------------------------------------------


class Rollout:
    """A taker of attention that multiplies the layers of one batch, both ways.

    Attributes:
        with_residual, without_residual: rollout of all layers, float64 where the device has it, (B, Q, N).
        places: of the first layer, whose keys the columns stand for.
        last: attention of each head in the last layer, output row only, (B, A, K - prefix).
        received: how much attention each patch receives in each layer, 1 being uniform, (layers, B, K - prefix).
    """

    def __init__(self, reads: Literal["class", "mean"], *, multiply: bool = True) -> None:
        self.reads, self.multiply = reads, multiply
        self.with_residual: Tensor | None = None
        self.without_residual: Tensor | None = None
        self.places: Any = None
        self.last_layout: Any = None
        self.last: Tensor | None = None
        self.received: list[Tensor] = []

    def __call__(self, seen: Attention) -> None:
        """Multiply one more layer."""
        if seen.index == 0:
            self.with_residual = self.without_residual = None
            self.places, self.received = seen.places, []
        probs = seen.probs.detach()
        self.last_layout, self.last = seen.places, None
        if probs.shape[1] > 1:
            return
        probs = probs[:, 0]
        self.last = output_row(probs, self.reads, seen.places.prefix).cpu().clone()  # a view would keep all alive
        if probs.shape[-1] == probs.shape[-2]:
            self.received.append(received_attention(probs[:, None])[:, seen.places.prefix :].cpu())
        if self.multiply:
            mean = probs.mean(1).to(_widest(probs))
            self.with_residual = rollout_step(self.with_residual, mean, residual=True)
            self.without_residual = rollout_step(self.without_residual, mean, residual=False)

    def maps(self, *, residual: bool) -> Tensor:
        """Return the attention of the output token to the input, on the grid of patches: (B, rows, columns)."""
        rollout = self.with_residual if residual else self.without_residual
        assert rollout is not None
        prefix = self.places.prefix
        row = rollout[:, 0] if self.reads == "class" and prefix else rollout[:, prefix:].mean(1)
        return row[:, prefix:].cpu().reshape(-1, *self.places.grid)


def relevance(model: PreTrainedModel, pixel_values: Tensor, classes: Tensor, reads: Literal["class", "mean"]) -> Tensor:
    """Return which patches speak for a class, gradient-weighted (Chefer et al., arXiv:2103.15679, equations 5 and 6).

    R <- R + mean over heads of max(0, gradient * attention) R, from the identity, layer by layer.

    Args:
        model: a classifier of one sequence of tokens, in evaluation mode.
        pixel_values: shape (B, 3, H, W).
        classes: whose logits are explained, (B,).
        reads: what the head reads.

    Returns:
        Shape (B, rows, columns), not negative, in no unit.
    """
    kept: list[Tensor] = []
    places_by_layer = []

    def keep(seen: Attention) -> None:
        kept.append(seen.probs)
        places_by_layer.append(seen.places)

    with torch.enable_grad(), recording(model, keep, in_graph=True):
        # Where parameters are frozen the graph begins at the image.
        logits = model(pixel_values.detach().requires_grad_()).logits
        chosen = logits.gather(1, classes[:, None].to(logits.device)).sum()
        gradients = torch.autograd.grad(chosen, kept)
    prefix, grid = places_by_layer[0].prefix, places_by_layer[0].grid
    relevances: Tensor | None = None
    for probs, gradient in zip(kept, gradients, strict=True):
        weighted = (gradient * probs).detach().clamp_min(0).mean((1, 2))
        if relevances is None:
            relevances = torch.eye(weighted.shape[-1]).to(weighted).expand_as(weighted)
        relevances = relevances + weighted @ relevances
    assert relevances is not None
    assert grid is not None
    return output_row(relevances, reads, prefix).cpu().reshape(-1, *grid)


def _widest(tensor: Tensor) -> torch.dtype:
    return torch.float32 if tensor.device.type == "mps" else torch.float64

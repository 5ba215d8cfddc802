"""Measure attention: how far and how widely heads look, and what the output token attends to.

Everything is reduced layer by layer while the model runs, so memory does not grow with layers or images.

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
"""A patch token is called a sink if it receives more than this many times the uniform share of attention."""


# --- definitions -------------------------------------------------------------------------------------------


def attention_distance(probs: Tensor, distances: Tensor, *, prefix: int = 0, renormalise: bool = False) -> Tensor:
    """Return the mean attention distance of each head (ViT, arXiv:2010.11929, figures 7 and 11).

    The distance from the query's patch to all patches, weighted by attention, averaged over queries and images. The
    paper does not say how to treat the class token. Its row is left out here; its column is dropped, so attention on
    it counts as distance 0, or dropped with the rest of the row renormalised.

    Args:
        probs: shape (B, W, A, Q, K).
        distances: in pixels between query and key patches, shape (W or 1, Q - prefix, K - prefix).
        prefix: number of tokens before the patch tokens.
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
    """Return the mean entropy of each head's attention in nats, over the patch queries, shape (A,).

    Args:
        probs: shape (B, W, A, Q, K); all keys count.
        prefix: number of queries before the patch queries, left out.
    """
    nats: Tensor = torch.special.entr(probs[..., prefix:, :])
    return nats.sum(-1).mean((0, 1, 3))


def rollout_step(rollout: Tensor | None, attention: Tensor, *, residual: bool) -> Tensor:
    """Multiply the attention of one more layer onto a rollout (Abnar and Zuidema, arXiv:2005.00928).

    Args:
        rollout: rollout of the layers below, shape (B, K, N); None before the first layer.
        attention: mean over the heads, shape (B, Q, K).
        residual: average each row with the identity, for the residual path, which the ViT paper (appendix D.8) does
            not mention. If Q and K differ there is no residual path, and nothing is averaged.

    Returns:
        Shape (B, Q, N); rows sum to 1.
    """
    if residual and attention.shape[-2] == attention.shape[-1]:
        attention = (attention + torch.eye(attention.shape[-1]).to(attention)) / 2
        attention = attention / attention.sum(-1, keepdim=True)
    return attention if rollout is None else attention @ rollout


def output_row(matrix: Tensor, reads: Literal["class", "mean"], prefix: int) -> Tensor:
    """Return the attention of the output token, which the head reads, to the patches.

    Args:
        matrix: shape (..., Q, K).
        reads: what the head reads: the ``class`` token, which is the first, or the ``mean`` of the patch tokens.
        prefix: number of tokens before the patch tokens, among queries and keys.

    Returns:
        Shape (..., K - prefix).
    """
    row = matrix[..., 0, :] if reads == "class" and prefix else matrix[..., prefix:, :].mean(-2)
    return row[..., prefix:]


# --- over many images --------------------------------------------------------------------------------------


@dataclass
class _Sums:
    """Sums over images for one layer; see :class:`Layer`."""

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
    """Numbers for the heads of one layer, averaged over all images.

    Attributes:
        block: name of its residual block.
        distance_dropped, distance_renormalised: mean attention distance in pixels per head, with the class token's
            column dropped, or dropped and the rest renormalised.
        uniform_distance: the distance of a head that attends to all patches equally.
        entropy: in nats, per head.
        uniform_entropy: log of the number of keys.
        on_special: share of the patches' attention on each special token, (heads, tokens).
        on_sinks: share of the patches' attention on sinks among the patches; None in windows.
        sinks: number of sinks per image; None in windows.
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
    """Collects a few numbers per head from recorded attention."""

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
        """The means of each layer, from input to output."""
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
    """Return how much attention each key receives, relative to the uniform share, shape (B, K).

    Args:
        probs: shape (B, 1, A, Q, K); heads and queries are averaged.
    """
    return probs.mean((1, 2, 3)) * probs.shape[-1]


# --- of single images --------------------------------------------------------------------------------------


class Rollout:
    """Multiplies the attention of all layers for one batch, with and without the residual path.

    Attributes:
        with_residual, without_residual: rollout of all layers, in float64 if the device has it, (B, Q, N).
        places: token places in the first layer, whose keys are the columns.
        last: attention of the output token in the last layer, by head, (B, A, K - prefix).
        received: attention that each patch receives in each layer, 1 is uniform, (layers, B, K - prefix).
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
        self.last = output_row(probs, self.reads, seen.places.prefix).cpu().clone()  # not a view, to free the rest
        if probs.shape[-1] == probs.shape[-2]:
            self.received.append(received_attention(probs[:, None])[:, seen.places.prefix :].cpu())
        if self.multiply:
            mean = probs.mean(1).to(_widest(probs))
            self.with_residual = rollout_step(self.with_residual, mean, residual=True)
            self.without_residual = rollout_step(self.without_residual, mean, residual=False)

    def maps(self, *, residual: bool) -> Tensor:
        """Return the attention of the output token to the input patches, (B, rows, columns)."""
        rollout = self.with_residual if residual else self.without_residual
        assert rollout is not None
        prefix = self.places.prefix
        row = rollout[:, 0] if self.reads == "class" and prefix else rollout[:, prefix:].mean(1)
        return row[:, prefix:].cpu().reshape(-1, *self.places.grid)


def relevance(model: PreTrainedModel, pixel_values: Tensor, classes: Tensor, reads: Literal["class", "mean"]) -> Tensor:
    """Return how much each patch supports a class, by gradients (Chefer et al., arXiv:2103.15679, equations 5 and 6).

    R <- R + mean over heads of max(0, gradient * attention) R, from the identity, layer by layer.

    Args:
        model: a classifier with one sequence of tokens, in evaluation mode.
        pixel_values: shape (B, 3, H, W).
        classes: the class to explain for each image, (B,).
        reads: what the head reads.

    Returns:
        Shape (B, rows, columns), not negative, without a unit.
    """
    kept: list[Tensor] = []
    places_by_layer = []

    def keep(seen: Attention) -> None:
        kept.append(seen.probs)
        places_by_layer.append(seen.places)

    with torch.enable_grad(), recording(model, keep, in_graph=True):
        # The image requires gradients, so that frozen parameters do not matter.
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

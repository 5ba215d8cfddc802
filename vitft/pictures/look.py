"""Look inside one model: compute everything that the figures show, or say why the model cannot show it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from vitft.architectures.families import has_no_tables, tokens_of, vision_config
from vitft.architectures.family import Size
from vitft.errors import UsageError, did_you_mean
from vitft.model.classifier import Classifier
from vitft.pictures.attention import Layer, Rollout, Summary, relevance
from vitft.pictures.filters import Filters, first_convolution, principal_filters
from vitft.pictures.positions import Positions, positions_of
from vitft.pictures.recording import Attention, recording
from vitft.pictures.token_places import fill_grid
from vitft.pictures.tokens import Nearest, colours_of, watching

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

KINDS = {
    "filters": "principal components of the first layer's filters",
    "positions": "similarity of positions, or attention bias by offset",
    "distance": "how far each head looks",
    "entropy": "how widely each head looks",
    "sinks": "attention on the class token, registers and sinks",
    "rollout": "what the output attends to, through all layers",
    "heads": "what the output attends to in the last layer, by head",
    "relevance": "which patches support a class (gradients)",
    "tokens": "the last patch tokens as colours",
    "neighbours": "the nearest training images by features",
}
"""The kinds of pictures, in the order of the page."""

OF_WEIGHTS = ("filters", "positions")
OF_ATTENTION = ("distance", "entropy", "sinks", "rollout", "heads", "relevance")
_FLOATS_AT_ONCE = 8_000_000  # values of a layer's attention; with intermediate results about 150 MB


@dataclass(frozen=True)
class Photo:
    """An image as the model gets it.

    Attributes:
        name: name to show.
        pixels: uint8 RGB (3, H, W).
        label: its class, if known.
    """

    name: str
    pixels: Tensor
    label: str | None = None


@dataclass
class Shown:
    """What is shown for one image; maps are on the grid of patches, (rows, columns).

    Attributes:
        photo: the image.
        predictions: (class, probability), most probable first; empty without a trained head.
        rollout, rollout_plain: attention of the output to the patches, with and without the residual path.
        heads: attention of the output in the last layer, (A, rows, columns).
        received: attention that each patch receives in each layer, 1 is uniform, (layers, rows, columns).
        norms: norm of each patch's last token.
        relevance: gradient-weighted relevance for ``relevant_class``.
        tokens, colours: the last patch tokens, (rows, columns, D), and their colours, (rows, columns, 3).
        features: the features that the head reads, (K,).
        neighbours: (similarity, photo) of the nearest images, nearest first.
    """

    photo: Photo
    predictions: list[tuple[str, float]] = field(default_factory=list)
    rollout: Tensor | None = None
    rollout_plain: Tensor | None = None
    heads: Tensor | None = None
    received: Tensor | None = None
    norms: Tensor | None = None
    relevance: Tensor | None = None
    relevant_class: str = ""
    tokens: Tensor | None = None
    colours: Tensor | None = None
    features: Tensor | None = None
    neighbours: list[tuple[float, Photo]] = field(default_factory=list)


@dataclass
class Look:
    """What was found inside a model.

    Attributes:
        named: the checkpoint as the user typed it.
        family: transformers' ``model_type``.
        image_size: (height, width) that it ran at.
        special: names of the tokens before the patch tokens.
        reads: ``class`` or ``mean``, what the head reads.
        how: how the attention was read; empty if it was not.
        note: a remark on the family's tokens.
        filters, positions, layers, shown: the results; empty if not wanted or not possible.
        images: where the images come from, for captions.
        num_images: number of images that ``layers`` averages over.
        explained: share of the tokens' variance that their colours explain.
        compared: number of images searched for neighbours.
        reasons: why a kind of picture that was wanted is missing, by kind.
    """

    named: str
    family: str
    image_size: Size
    special: tuple[str, ...] = ()
    reads: Literal["class", "mean"] = "mean"
    how: str = ""
    note: str = ""
    filters: Filters | None = None
    positions: list[Positions] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)
    shown: list[Shown] = field(default_factory=list)
    images: str = ""
    num_images: int = 0
    explained: float = 0.0
    compared: int = 0
    reasons: dict[str, str] = field(default_factory=dict)


def check_kinds(kinds: Iterable[str]) -> list[str]:
    """Return the kinds of pictures in the order of the page; raise UsageError for unknown ones."""
    wanted = list(kinds)
    unknown = [kind for kind in wanted if kind not in KINDS]
    if unknown:
        guess = did_you_mean(unknown[0], KINDS)
        raise UsageError(
            f"there is no picture called {', '.join(unknown)}",
            allowed="; ".join(f"{kind}: {what}" for kind, what in KINDS.items()),
            hint=f"--only {guess}" if guess else None,
        )
    return [kind for kind in KINDS if kind in wanted]


@torch.no_grad()
def look(
    classifier: Classifier,
    kinds: Sequence[str],
    photos: Iterable[Photo] = (),
    *,
    show: int = 4,
    target_class: int | None = None,
    pool: Iterable[Photo] = (),
) -> Look:
    """Look inside a model.

    Args:
        classifier: in evaluation mode, on its device.
        kinds: kinds of pictures, from :data:`KINDS`.
        photos: images for everything but filters and positions; each is read once and not kept.
        show: how many of them to show one by one.
        target_class: class to show relevance for; by default each image's predicted class.
        pool: images to search for neighbours.
    """
    model, tokens = classifier.model, tokens_of(classifier.config)
    vision = vision_config(model.config)
    seen = Look(classifier.name, model.config.model_type, classifier.image_size, note=tokens.note)
    seen.special, seen.reads = tokens.special(vision), tokens.reads(vision)
    if "filters" in kinds:
        first = first_convolution(model)
        if first:
            is_bgr = classifier.pixel_values.is_bgr
            seen.filters = principal_filters(first[1].weight, name=first[0], bgr=is_bgr)
        else:
            seen.reasons["filters"] = "this model has no convolution over three colour channels"
    if "positions" in kinds:
        seen.positions = positions_of(model, classifier.image_size)
        if not seen.positions:
            seen.reasons["positions"] = "this model has no position table that vitft knows"
    seen.reasons |= {kind: reason for kind in kinds if (reason := _refusal(kind, model.config))}
    wanted = [kind for kind in kinds if kind not in OF_WEIGHTS and kind not in seen.reasons]
    if wanted:
        _look_at_photos(classifier, seen, wanted, iter(photos), show, target_class)
    if "neighbours" in wanted and seen.shown:
        _find_neighbours(classifier, seen, pool)
    return seen


def drawable(config: PreTrainedConfig) -> list[str]:
    """Return the kinds of pictures that a family supports."""
    return [kind for kind in KINDS if not _refusal(kind, config)]


def _refusal(kind: str, config: PreTrainedConfig) -> str:
    """Return why a family does not support a kind of picture, empty if it does."""
    tokens, family = tokens_of(config), config.model_type
    if kind == "positions" and has_no_tables(config):
        return f"{family} models have no position table"
    if kind in OF_ATTENTION and tokens.no_attention:
        return f"not possible for {family} models: {tokens.no_attention}"
    if kind in ("rollout", "relevance") and tokens.no_rollout:
        return f"not defined for {family} models: {tokens.no_rollout}"
    return ""


def _look_at_photos(
    classifier: Classifier, seen: Look, kinds: list[str], photos: Iterator[Photo], show: int, target: int | None
) -> None:
    """Run the model over the photos: all of them for the means, the first ones also for pictures."""
    has_attention = any(kind in OF_ATTENTION for kind in kinds)
    first = list(islice(photos, show))
    if not first:
        seen.reasons |= dict.fromkeys(kinds, "there are no images")
        return
    size = _batch_size(classifier, first[0]) if has_attention else 16
    summary = Summary()
    for start in range(0, len(first), size):
        seen.shown += _look_closely(classifier, seen, first[start : start + size], summary, has_attention)
    seen.num_images = len(first)
    if has_attention and not summary.layers:  # an unknown family, such as a timm network
        missing = [kind for kind in kinds if kind in OF_ATTENTION]
        seen.reasons |= dict.fromkeys(missing, f"no attention was found in this {seen.family} model")
        kinds = [kind for kind in kinds if kind not in missing]
    if any(kind in ("distance", "entropy", "sinks") for kind in kinds):
        with recording(classifier.model, summary):
            while batch := list(islice(photos, size)):
                classifier.model(_pixels(classifier, batch))
                seen.num_images += len(batch)
    seen.layers = summary.layers
    if "tokens" in kinds:
        _colour(seen)
    if "relevance" in kinds:
        for each in seen.shown:
            _explain(classifier, seen, each, target)
    if "heads" in kinds and all(each.heads is None for each in seen.shown):
        seen.reasons["heads"] = "its last layer attends only within groups of tokens, not over the whole image"
    if "sinks" in kinds and not seen.special and any(layer.on_sinks is None for layer in seen.layers):
        seen.reasons["sinks"] = "it has no special tokens, and not every layer attends over the whole image"


def _look_closely(
    classifier: Classifier, seen: Look, photos: list[Photo], summary: Summary, has_attention: bool
) -> list[Shown]:
    """Run the model over photos that are shown one by one."""
    rollout = Rollout(seen.reads, multiply=not tokens_of(classifier.config).no_rollout)
    pixels = _pixels(classifier, photos)
    with watching(classifier.model, classifier.head_module) as watched:
        if has_attention:
            with recording(classifier.model, summary, rollout) as seen.how:
                logits = classifier.model(pixels).logits
        else:
            logits = classifier.model(pixels).logits
    shown = [Shown(photo) for photo in photos]
    probs = logits.float().softmax(-1).cpu()
    best = probs.topk(min(3, probs.shape[-1])) if classifier.has_head else None
    last = watched.grid(len(seen.special), classifier.image_size)
    if last is None and rollout.places is not None:  # unknown family: attention shows its special tokens
        last = watched.grid(rollout.places.prefix, classifier.image_size)
    for number, each in enumerate(shown):
        if best is not None:
            ranked = zip(best.indices[number].tolist(), best.values[number].tolist(), strict=True)
            each.predictions = [(classifier.classes[label], value) for label, value in ranked]
        each.features = watched.features[number] if watched.features is not None else None
        if last is not None:
            each.tokens, each.norms = last[number], last[number].norm(dim=-1)
    if has_attention and rollout.places is not None:
        _spread(shown, rollout, classifier.image_size)
    return shown


def _spread(shown: list[Shown], rollout: Rollout, image_size: Size) -> None:
    """Give each image its part of a batch's results."""
    if rollout.with_residual is not None:
        with_residual, without = rollout.maps(residual=True), rollout.maps(residual=False)
        for number, each in enumerate(shown):
            each.rollout, each.rollout_plain = with_residual[number], without[number]
    grid = fill_grid(rollout.last.shape[-1], image_size) if rollout.last is not None else None
    if rollout.last is not None and grid:
        for number, each in enumerate(shown):
            each.heads = rollout.last[number].reshape(-1, *grid)
    of_places = math.prod(rollout.places.grid or (0,))
    if rollout.received and all(layer.shape[-1] == of_places for layer in rollout.received):
        received = torch.stack(rollout.received, 1)
        for number, each in enumerate(shown):
            each.received = received[number].reshape(-1, *rollout.places.grid)


def _colour(seen: Look) -> None:
    tokens = [each.tokens for each in seen.shown if each.tokens is not None]
    if not tokens:
        seen.reasons["tokens"] = f"the last tokens of this {seen.family} model do not fill a grid"
        return
    colours, seen.explained = colours_of(torch.stack(tokens))
    for each, its in zip(seen.shown, colours, strict=True):
        each.colours = its


def _explain(classifier: Classifier, seen: Look, shown: Shown, target: int | None) -> None:
    """Add an image's relevance; one image at a time, because all layers' attention is kept for gradients."""
    if not classifier.has_head:
        seen.reasons["relevance"] = "the checkpoint has no trained head, so no class has a logit"
        return
    pixels = _pixels(classifier, [shown.photo])
    number = int(classifier.model(pixels).logits.argmax()) if target is None else target
    shown.relevance = relevance(classifier.model, pixels, torch.tensor([number]), seen.reads)[0]
    shown.relevant_class = classifier.classes[number]


def _find_neighbours(classifier: Classifier, seen: Look, pool: Iterable[Photo]) -> None:
    features = [each.features for each in seen.shown if each.features is not None]
    photos, nearest = iter(pool), Nearest(torch.stack(features))
    with watching(classifier.model, classifier.head_module) as watched:
        while batch := list(islice(photos, 16)):
            classifier.model(_pixels(classifier, batch))
            assert watched.features is not None
            nearest.add(watched.features, batch)
    seen.compared = nearest.passed
    if not nearest.passed:
        seen.reasons["neighbours"] = "there are no training images; name them with --dataset"
    for each, found in zip(seen.shown, nearest.found, strict=False):
        each.neighbours = found


def _pixels(classifier: Classifier, photos: Sequence[Photo]) -> Tensor:
    images = torch.stack([photo.pixels for photo in photos])
    return classifier.pixel_values(images.to(classifier.device))


def _batch_size(classifier: Classifier, photo: Photo) -> int:
    """Return how many images fit in a batch without using too much memory, measured with one image."""
    largest = 1

    def measure(seen: Attention) -> None:
        nonlocal largest
        largest = max(largest, seen.probs.numel())

    with recording(classifier.model, measure):
        classifier.model(_pixels(classifier, [photo]))
    return max(1, min(16, _FLOATS_AT_ONCE // largest))

"""What a model makes of an image: its patches' last tokens as colours, and the training images nearest to it.

Legend: B images, N tokens, D width, K features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vitft.architectures.blocks import blocks
from vitft.architectures.family import Size
from vitft.pictures.token_places import fill_grid

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def colours_of(tokens: Tensor) -> tuple[Tensor, float]:
    """Return tokens as colours: their first three principal components (DINOv2, arXiv:2304.07193, figure 1).

    The components are those of all the images together, so that a colour means the same in each. Tokens are scaled
    to length 1 before, or a few sinks, which are many times longer, would be all that is seen; each component is
    scaled from its 1st to its 99th percentile.

    Args:
        tokens: of patches, shape (B, rows, columns, D).

    Returns:
        Values in [0, 1], shape (B, rows, columns, 3), and the part of the variance that they explain.
    """
    samples = nn.functional.normalize(tokens.double().flatten(0, 2), dim=-1)
    samples = samples - samples.mean(0)
    _, lengths, components = torch.linalg.svd(samples, full_matrices=False)
    found = nn.functional.pad(components[:3], (0, 0, 0, max(0, 3 - len(components))))
    scores = samples @ found.T
    low, high = torch.quantile(scores, torch.tensor([0.01, 0.99], dtype=torch.float64), dim=0)
    colours = ((scores - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
    explained = float((lengths[:3] ** 2).sum() / (lengths**2).sum().clamp_min(1e-30))
    return colours.reshape(*tokens.shape[:3], 3), explained


@dataclass
class Seen:
    """What a forward pass showed on its way.

    Attributes:
        tokens: output of the last block, shape (B, N, D), special tokens included.
        features: what the head reads, shape (B, K).
    """

    tokens: Tensor | None = None
    features: Tensor | None = None

    def grid(self, prefix: int, image_size: Size) -> Tensor | None:
        """Return the tokens of the patches on their grid, (B, rows, columns, D), None if they fill none."""
        tokens = self.tokens
        if tokens is None:
            return None
        if tokens.ndim == 4:  # (B, D, rows, columns)
            return tokens.movedim(1, -1)
        for special in dict.fromkeys((prefix, 0)):
            grid = fill_grid(tokens.shape[1] - special, image_size) if tokens.ndim == 3 else None
            if grid:
                return tokens[:, special:].reshape(len(tokens), *grid, -1)
        return None


@contextmanager
def watching(model: PreTrainedModel, head: str) -> Iterator[Seen]:
    """Keep, of each forward pass, the last block's output and what the head reads.

    Args:
        model: the classifier.
        head: name of the module that makes logits of features.
    """
    seen = Seen()

    def keep_tokens(_module: nn.Module, _inputs: Any, output: Any) -> None:
        tensor = output[0] if isinstance(output, tuple) else output
        seen.tokens = tensor.detach().float().cpu() if isinstance(tensor, Tensor) else None

    def keep_features(_module: nn.Module, inputs: Any) -> None:
        seen.features = inputs[0].detach().float().flatten(1).cpu()

    hooks = [model.get_submodule(head).register_forward_pre_hook(keep_features)]
    found = blocks(model)
    if found:
        hooks.append(found[-1][1].register_forward_hook(keep_tokens))
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@dataclass
class Nearest:
    """The nearest of many images by cosine similarity of their features, kept as they pass by.

    Attributes:
        features: whose neighbours are wanted, shape (B, K).
        count: neighbours of each.
        found: for each, (similarity, what was added with it), nearest first.
        passed: images that were compared.
    """

    features: Tensor
    count: int = 5
    found: list[list[tuple[float, Any]]] = field(default_factory=list)
    passed: int = 0

    def add(self, features: Tensor, items: Sequence[Any]) -> None:
        """Compare with a batch of images.

        Args:
            features: shape (B', K).
            items: what stands for each of them.
        """
        self.found = self.found or [[] for _ in self.features]
        similarity = nn.functional.normalize(self.features, dim=-1) @ nn.functional.normalize(features, dim=-1).T
        for place, row in enumerate(similarity.tolist()):
            both = [*self.found[place], *zip(row, items, strict=True)]
            self.found[place] = sorted(both, key=lambda each: -each[0])[: self.count]
        self.passed += len(items)

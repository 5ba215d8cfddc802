"""Show an image's last patch tokens as colours, and find the training images nearest to it.

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
from vitft.architectures.last_block import whole_last_block
from vitft.pictures.token_places import fill_grid

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def colours_of(tokens: Tensor) -> tuple[Tensor, float]:
    """Return the first three principal components of tokens as colours (DINOv2, arXiv:2304.07193, figure 1).

    All images share the components, so a colour means the same in each. Tokens are first scaled to length 1, because a
    few much longer sinks would otherwise dominate; each component is scaled from its 1st to its 99th percentile.

    Args:
        tokens: patch tokens, shape (B, rows, columns, D).

    Returns:
        Values in [0, 1], shape (B, rows, columns, 3), and the share of the variance that they explain.
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
    """Tokens and features recorded in a forward pass.

    Attributes:
        tokens: output of the last block, shape (B, N, D), including special tokens.
        features: input of the head, shape (B, K).
    """

    tokens: Tensor | None = None
    features: Tensor | None = None

    def grid(self, prefix: int, image_size: Size) -> Tensor | None:
        """Return the patch tokens on their grid, (B, rows, columns, D), None if they do not fill one."""
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
    """Record the last block's output and the head's input in each forward pass.

    Args:
        model: the classifier.
        head: name of the module that turns features into logits.
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
        with whole_last_block(model):
            yield seen
    finally:
        for hook in hooks:
            hook.remove()


@dataclass
class Nearest:
    """Finds the nearest images by cosine similarity of features, batch by batch.

    Attributes:
        features: features to find neighbours for, shape (B, K).
        count: number of neighbours for each.
        found: for each, (similarity, item), nearest first.
        passed: number of images compared.
    """

    features: Tensor
    count: int = 5
    found: list[list[tuple[float, Any]]] = field(default_factory=list)
    passed: int = 0

    def add(self, features: Tensor, items: Sequence[Any]) -> None:
        """Compare with a batch of images.

        Args:
            features: shape (B', K).
            items: what to return for each image, such as a photo.
        """
        self.found = self.found or [[] for _ in self.features]
        similarity = nn.functional.normalize(self.features, dim=-1) @ nn.functional.normalize(features, dim=-1).T
        for place, row in enumerate(similarity.tolist()):
            both = [*self.found[place], *zip(row, items, strict=True)]
            self.found[place] = sorted(both, key=lambda each: -each[0])[: self.count]
        self.passed += len(items)

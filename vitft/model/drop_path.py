"""Stochastic depth that gives the same draws after a resume and with any number of processes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vitft.architectures.blocks import blocks as residual_blocks
from vitft.architectures.blocks import modules_in_order
from vitft.architectures.families import family_of
from vitft.data import order
from vitft.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def check_drop_path(model: nn.Module) -> tuple[str, ...]:
    """Return the residual branches of a model's blocks that have no drop path module of their own.

    Raises:
        ModelError: if vitft does not know the branches of this family.
    """
    config: PreTrainedConfig = model.config
    family = family_of(config)
    branches = family.branches if family else ()
    blocks = [block for _, block in residual_blocks(model)]
    if not any(_own_drop_paths(block) or any(hasattr(block, name) for name in branches) for block in blocks):
        raise ModelError(
            f"model.drop_path is not supported for the family {config.model_type!r}",
            allowed="0 for every family; above 0 for vit, deit, dinov2, beit, clip, siglip, swin, convnext, ...",
            hint="--set model.drop_path=0",
        )
    return branches


def _own_drop_paths(block: nn.Module) -> list[str]:
    return [name for name, _ in block.named_modules() if re.fullmatch(r"drop_path\d?", name.rpartition(".")[2])]


class DropPath:
    """Stochastic depth whose draws depend only on (seed, block, branch, sample index).

    Drops a residual branch for some samples of the batch and scales it up for the others (Huang et al.,
    arXiv:1603.09382). Block b of L, counted from 0, has the rate ``rate * b / (L - 1)``. transformers' own modules
    draw from a global generator, which a resumed run or another number of processes would not reproduce.

    Raises:
        ModelError: if vitft does not know the branches of this family.
    """

    def __init__(self, model: nn.Module, rate: float, seed: int) -> None:
        self.sample_indices: Tensor | None = None
        """Sample indices of the next forward pass, int64 (B,); None keeps every branch."""
        self._seed = seed
        branches = check_drop_path(model)
        blocks = residual_blocks(model)
        modules = modules_in_order(model)
        for depth, (name, block) in enumerate(blocks):
            block_rate = rate * depth / max(len(blocks) - 1, 1)
            first = next(each for each in modules if each.startswith(f"{name}."))
            self._replace(block, model.get_submodule(first), depth, block_rate)
            self._hook(block, branches, depth, block_rate)

    def _replace(self, block: nn.Module, first: nn.Module, depth: int, rate: float) -> None:
        """Replace a block's own drop path with ours."""
        for name in _own_drop_paths(block):
            ours = _Branches(self._scale, f"drop_path/{depth}/{name}", rate)
            block.set_submodule(name, ours)
            # Counting restarts each time the block runs. The hook is on the block's first submodule because gradient
            # checkpointing repeats a block without the block's own hooks.
            first.register_forward_pre_hook(ours.restart)

    def _hook(self, block: nn.Module, branches: Iterable[str], depth: int, rate: float) -> None:
        """Scale the output of the branches that have no drop path module."""
        for name in filter(partial(hasattr, block), branches):
            hook = _branch_hook(self._scale, f"drop_path/{depth}/{name}", rate)
            block.get_submodule(name).register_forward_hook(hook)

    def _scale(self, branch: Tensor, stream: str, rate: float) -> Tensor:
        """Drop or scale up the samples of one residual branch, (B, ...)."""
        if rate == 0 or self.sample_indices is None:
            return branch
        draws = _draw(self._seed, stream, self.sample_indices).to(branch.device)
        kept = (draws >= rate).to(branch.dtype) / (1 - rate)
        return branch * kept.view(-1, *[1] * (branch.ndim - 1))


# Left out of what torch.compile compiles, whose C++ has no words for arithmetic that wraps around.
_draw: Callable[..., Tensor] = torch.compiler.disable(order.uniform)  # type: ignore[no-untyped-call]
_Scale = Callable[[Tensor, str, float], Tensor]


class _Branches(nn.Module):
    """Replaces a block's own drop path, which all its branches call in turn; has no parameters."""

    def __init__(self, scale: _Scale, stream: str, rate: float) -> None:
        super().__init__()
        self._scale, self._stream, self._rate, self._number = scale, stream, rate, 0

    def restart(self, *_: object) -> None:
        self._number = 0

    def forward(self, branch: Tensor) -> Tensor:
        number, self._number = self._number, self._number + 1
        return self._scale(branch, f"{self._stream}/{number}", self._rate) if self.training else branch


def _branch_hook(scale: _Scale, stream: str, rate: float) -> Callable[[nn.Module, object, Any], Any]:
    """Return a forward hook for a submodule that is one branch; attention modules return (branch, weights)."""

    def hook(module: nn.Module, _: object, output: Any) -> Any:
        if not module.training:
            return output
        if isinstance(output, tuple):
            return (scale(output[0], stream, rate), *output[1:])
        return scale(output, stream, rate)

    return hook

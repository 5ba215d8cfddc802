"""What is trained: which parameters, in which groups, and with which blocks left out at random."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from vitft.data import order
from vitft.errors import ModelError
from vitft.model import families

# --- which parameters --------------------------------------------------------------------------------------


def choose_trainable(model: nn.Module, what: str, head: Iterable[str]) -> str:
    """Freeze what does not learn.

    Args:
        model: a classifier.
        what: ``all``, ``head``, or ``last:N`` for the head and the last N blocks with all that follows them.
        head: names of the head's parameters.

    Returns:
        A sentence that says what learns.
    """
    if what != "all":
        keep = set(_head_modules(head))
        groups = layer_groups(model, head)
        depth = max(groups.values())
        num_blocks = int(what.removeprefix("last:")) if what != "head" else 0
        if num_blocks >= depth:
            raise ModelError(
                f"model.train: {what}, but the model has {depth - 1} blocks",
                allowed=f"head, last:1 to last:{depth - 1}, or all",
                hint="--train all",
            )
        for name, parameter in model.named_parameters():
            after = what != "head" and groups[name] >= depth - num_blocks
            parameter.requires_grad_(after or name.split(".")[0] in keep)
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    return f"{learning / 1e6:.2f} M of {total / 1e6:.2f} M parameters learn (model.train: {what})"


def freeze_unused(model: nn.Module, image_size: tuple[int, int]) -> list[str]:
    """Find by a probe step the parameters that no image reaches, freeze and name them.

    DINOv2's mask token and CLIP's last norm are such; DDP would wait for their gradients for ever.
    """
    was_training = model.training
    model.eval()  # running statistics must not see the probe
    device = next(model.parameters()).device
    model(torch.zeros(1, 3, *image_size, device=device)).logits.sum().backward()
    unused = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    for name, parameter in model.named_parameters():
        parameter.grad = None
        if name in set(unused):
            parameter.requires_grad_(False)
    model.train(was_training)
    return unused


def layer_groups(model: nn.Module, head: Iterable[str]) -> dict[str, int]:
    """Return the depth of each parameter: 0 embeddings, b + 1 block b, L + 1 the last norm and the head.

    What stands between two blocks (a stage's downsampling) belongs to the block before it.
    """
    names = [name for name, _ in families.blocks(model)]
    depth_of = {name: number + 1 for number, name in enumerate(names)}
    keep = set(_head_modules(head))
    groups: dict[str, int] = {}
    current = 0
    parameters = [name for name, _ in model.named_parameters()]
    blocks = {name: _block_of(name, depth_of) for name in parameters}
    last = max((i for i, name in enumerate(parameters) if blocks[name]), default=-1)
    for index, name in enumerate(parameters):
        current = blocks[name] or current
        groups[name] = len(names) + 1 if index > last or name.split(".")[0] in keep else current
    return groups


def _head_modules(head: Iterable[str]) -> list[str]:
    return [name.split(".")[0] for name in head]


def _block_of(parameter: str, depth_of: dict[str, int]) -> int:
    parts = parameter.split(".")
    return next((depth_of[p] for i in range(len(parts)) if (p := ".".join(parts[:i])) in depth_of), 0)


def has_no_decay(name: str, parameter: Tensor) -> bool:
    """Whether weight decay would pull at something that is no matrix: biases, norms, tokens, position tables."""
    tables = r"(position_embedding|pos_embed|cls_token|mask_token|register_tokens|distillation_token|relative_position)"
    return parameter.ndim <= 1 or re.search(tables, name) is not None


# --- stochastic depth --------------------------------------------------------------------------------------


class DropPath:
    """Stochastic depth whose draws are a function of (seed, block, branch, position).

    A residual branch is left out for some samples of the batch and scaled up for the others (Huang et al.,
    arXiv:1603.09382); block b of L has the rate ``rate * b / (L - 1)``. transformers' own modules draw from a
    global generator, which neither resuming nor another number of processes would reproduce.

    Raises:
        ModelError: if the family's blocks or branches are not known.
    """

    def __init__(self, model: nn.Module, rate: float, seed: int) -> None:
        self.positions: Tensor | None = None
        """Positions of the samples in the next forward pass, int64 (B,); None lets every branch through."""
        self._seed = seed
        found, branches = families.blocks(model), families.branches(model)
        if not found or not branches:
            config: Any = model.config
            known = sorted(name for name, family in families.FAMILIES.items() if family.branches)
            raise ModelError(
                f"model.drop_path is not known for the family {config.model_type!r}",
                allowed=f"drop path for {', '.join(known)}; 0 for every family",
                hint="--set model.drop_path=0",
            )
        for depth, (_, block) in enumerate(found):
            self._install(block, depth, rate * depth / max(len(found) - 1, 1), branches)

    def _install(self, block: nn.Module, depth: int, rate: float, branches: tuple[str, ...]) -> None:
        if branches == ("drop_path",):  # one module that serves every branch of the block in turn
            module = _Branches(self, depth, rate)
            block.drop_path = module
            # Counting starts anew with each pass of the block, also when gradient checkpointing repeats it.
            block.register_forward_pre_hook(lambda *_: module.restart())
            return
        for number, name in enumerate(branches):
            hook = _branch_hook(self, depth, number, rate)
            getattr(block, name).register_forward_hook(hook)

    def scale(self, branch: Tensor, depth: int, number: int, rate: float) -> Tensor:
        """Drop or scale the samples of one residual branch, (B, ...)."""
        if rate == 0 or self.positions is None:
            return branch
        drawn = order.uniform(self._seed, f"drop_path/{depth}/{number}", self.positions)[:, 0]
        kept = (drawn >= rate).to(branch.dtype) / (1 - rate)
        repeats = branch.shape[0] // len(kept)  # windowed attention has several rows per sample
        return branch * kept.repeat_interleave(repeats).view(-1, *[1] * (branch.ndim - 1))


class _Branches(nn.Module):
    """Takes the place of a block's own drop path; it has no parameters."""

    def __init__(self, owner: DropPath, depth: int, rate: float) -> None:
        super().__init__()
        self._owner, self._depth, self._rate, self._number = owner, depth, rate, 0

    def restart(self) -> None:
        self._number = 0

    def forward(self, branch: Tensor) -> Tensor:
        number, self._number = self._number, self._number + 1
        return self._owner.scale(branch, self._depth, number, self._rate) if self.training else branch


def _branch_hook(owner: DropPath, depth: int, number: int, rate: float) -> Any:
    def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
        if not module.training:
            return output
        if isinstance(output, tuple):
            return (owner.scale(output[0], depth, number, rate), *output[1:])
        return owner.scale(output, depth, number, rate)

    return hook

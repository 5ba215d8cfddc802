"""What is trained: which parameters, in which groups, and with which branches left out at random."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vitft.data import order
from vitft.errors import ModelError
from vitft.model import families
from vitft.model.retarget import image_size_of

# --- which parameters --------------------------------------------------------------------------------------


def choose_trainable(model: nn.Module, what: str, head: Iterable[str]) -> str:
    """Freeze what does not learn.

    Args:
        model: a classifier.
        what: ``all``, ``head``, or ``last:N`` for the head and the last N blocks with all that follows them.
        head: names of the head's parameters.

    Returns:
        A sentence that says what learns.

    Raises:
        ModelError: if the model has fewer blocks than that.
    """
    if what != "all":
        _freeze_below(model, int(what.removeprefix("last:")) if what != "head" else 0, head)
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    return f"{learning / 1e6:.2f} M of {total / 1e6:.2f} M parameters learn (model.train: {what})"


def _freeze_below(model: nn.Module, num_blocks: int, head: Iterable[str]) -> None:
    """Let only the head learn, and the last ``num_blocks`` blocks with all that follows them."""
    depth_of = layer_groups(model, head)
    top = max(depth_of.values())
    if num_blocks >= top:
        raise ModelError(
            f"model.train: last:{num_blocks}, but the model has {top - 1} blocks",
            allowed=f"head, last:1 to last:{top - 1}, or all" if top > 1 else "head, or all",
            hint="--train all",
        )
    heads = families.head_modules(head)
    for name, parameter in model.named_parameters():
        after = num_blocks > 0 and depth_of[name] >= top - num_blocks
        parameter.requires_grad_(after or families.is_within(name, heads))
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and not any(
            p.requires_grad for p in module.parameters()
        ):
            # model.train() would let the statistics of a frozen part follow the new images.
            module.register_forward_pre_hook(_keep_statistics)


def _keep_statistics(module: nn.Module, _: object) -> None:
    module.eval()


def freeze_unused(model: nn.Module, image_size: tuple[int, int]) -> list[str]:
    """Find by a probe step the parameters that no image reaches; freeze and name them.

    DINOv2's mask token and CLIP's last norm are such; DDP would wait for their gradients for ever.

    Args:
        model: a classifier.
        image_size: (height, width) of its input.
    """
    was_training = model.training
    # Running statistics must not see the probe; and what LeViT keeps for later passes of an evaluation has no gradient.
    model.train().eval()
    device = next(model.parameters()).device
    model(torch.zeros(1, 3, *image_size, device=device)).logits.sum().backward()
    unused = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.grad is None:
            parameter.requires_grad_(False)
            unused.append(name)
        parameter.grad = None
    model.train(was_training)
    return unused


def checkpoint_activations(model: Any) -> None:
    """Let the blocks forget their activations and compute them again in the backward pass.

    Raises:
        ModelError: if the family cannot.
    """
    check_activations(model)
    enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)  # its older name
    enable({"use_reentrant": False})


def check_activations(model: Any) -> None:
    """Make sure that a model's blocks can forget their activations.

    Raises:
        ModelError: if the family cannot.
    """
    if not model.supports_gradient_checkpointing:
        raise ModelError(
            f"train.gradient_checkpointing is not there for the family {model.config.model_type!r}",
            hint="--set train.gradient_checkpointing=false, and a smaller train.micro_batch_size",
        )


def layer_groups(model: nn.Module, head: Iterable[str]) -> dict[str, int]:
    """Return the depth of each parameter: 0 embeddings, 1 to L the blocks, L + 1 what follows them and the head.

    What runs between two blocks (a stage's downsampling) belongs to the block before it. The order is that of
    execution, not of declaration, in which several families differ.
    """
    number_of = {name: number for number, (name, _) in enumerate(families.blocks(model), start=1)}
    top = len(number_of) + 1
    depth_of = dict.fromkeys(families.head_modules(head), top)
    begun = 0
    for name in _modules_in_order(model):
        block = next((number_of[part] for part in _upwards(name) if part in number_of), 0)
        begun = max(begun, block)
        depth_of.setdefault(name, block or (begun if begun < top - 1 else top))
    return {
        name: next(depth_of[part] for part in _upwards(name) if part in depth_of)
        for name, _ in model.named_parameters()
    }


def _upwards(name: str) -> list[str]:
    """Return a dotted name and those of all that it lies in, the model itself ("") last."""
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(len(parts), -1, -1)]


def _modules_in_order(model: Any) -> list[str]:
    """Return the names of modules in the order in which an image enters them.

    A real image on the real model: BEiT's forward pass caches tensors for the whole process, which must not be
    those of a meta device.
    """
    names: list[str] = []
    hooks = [
        module.register_forward_pre_hook(lambda *_, name=name: names.append(name))
        for name, module in model.named_modules()
    ]
    was_training = model.training
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, *image_size_of(model.config), device=next(model.parameters()).device))
    model.train(was_training)
    for hook in hooks:
        hook.remove()
    return names


_TABLES = re.compile(r"position_embedding|pos_embed|relative_position_bias_table|attention_biases|register_tokens")


def has_no_decay(name: str, parameter: Tensor) -> bool:
    """Whether weight decay would pull at what is no matrix: biases, norms, scales, tokens, position tables."""
    return sum(side > 1 for side in parameter.shape) <= 1 or _TABLES.search(name) is not None


# --- stochastic depth --------------------------------------------------------------------------------------


def check_drop_path(model: nn.Module) -> None:
    """Make sure that it is known which branches a model's blocks have.

    Raises:
        ModelError: if it is not.
    """
    config: Any = model.config
    family = families.family_of(config)
    branches = family.branches if family else ()
    blocks = [block for _, block in families.blocks(model)]
    if not any(_own_drop_paths(block) or any(hasattr(block, name) for name in branches) for block in blocks):
        raise ModelError(
            f"model.drop_path is not known for the family {config.model_type!r}",
            allowed="0 for every family; more for vit, deit, dinov2, beit, clip, siglip, swin, convnext, ...",
            hint="--set model.drop_path=0",
        )


def _own_drop_paths(block: nn.Module) -> list[str]:
    return [name for name, _ in block.named_modules() if re.fullmatch(r"drop_path\d?", name.rpartition(".")[2])]


class DropPath:
    """Stochastic depth whose draws are a function of (seed, block, branch, position).

    A residual branch is left out for some samples of the batch and scaled up for the others (Huang et al.,
    arXiv:1603.09382); block b of L, from 0, has the rate ``rate * b / (L - 1)``. transformers' own modules draw
    from a global generator, which neither resuming nor another number of processes would reproduce.

    Raises:
        ModelError: if it is not known which branches the family's blocks have.
    """

    def __init__(self, model: nn.Module, rate: float, seed: int) -> None:
        self.positions: Tensor | None = None
        """Positions of the samples in the next forward pass, int64 (B,); None lets every branch through."""
        self._seed = seed
        config: Any = model.config
        family = families.family_of(config)
        branches = family.branches if family else ()
        blocks = families.blocks(model)
        modules = _modules_in_order(model)
        check_drop_path(model)
        for depth, (name, block) in enumerate(blocks):
            block_rate = rate * depth / max(len(blocks) - 1, 1)
            first = next(each for each in modules if each.startswith(f"{name}."))
            self._replace(block, model.get_submodule(first), depth, block_rate)
            self._hook(block, branches, depth, block_rate)

    def _replace(self, block: nn.Module, first: nn.Module, depth: int, rate: float) -> None:
        """Put ours in the place of a block's own drop path."""
        for name in _own_drop_paths(block):
            ours = _Branches(self._scale, f"drop_path/{depth}/{name}", rate)
            block.set_submodule(name, ours)
            # Counting starts anew with each pass of the block. Gradient checkpointing repeats a block without its
            # own hooks, but with those of what is inside.
            first.register_forward_pre_hook(ours.restart)

    def _hook(self, block: nn.Module, branches: Iterable[str], depth: int, rate: float) -> None:
        """Scale the output of a block's branches that pass no drop path."""
        for name in filter(partial(hasattr, block), branches):
            hook = _branch_hook(self._scale, f"drop_path/{depth}/{name}", rate)
            block.get_submodule(name).register_forward_hook(hook)

    def _scale(self, branch: Tensor, stream: str, rate: float) -> Tensor:
        """Drop or scale up the samples of one residual branch, (B, ...)."""
        if rate == 0 or self.positions is None:
            return branch
        draws = order.uniform(self._seed, stream, self.positions).to(branch.device)
        kept = (draws >= rate).to(branch.dtype) / (1 - rate)
        return branch * kept.view(-1, *[1] * (branch.ndim - 1))


_Scale = Callable[[Tensor, str, float], Tensor]


class _Branches(nn.Module):
    """Takes the place of a block's own drop path, which serves its branches in turn; it has no parameters."""

    def __init__(self, scale: _Scale, stream: str, rate: float) -> None:
        super().__init__()
        self._scale, self._stream, self._rate, self._number = scale, stream, rate, 0

    def restart(self, *_: object) -> None:
        self._number = 0

    def forward(self, branch: Tensor) -> Tensor:
        number, self._number = self._number, self._number + 1
        return self._scale(branch, f"{self._stream}/{number}", self._rate) if self.training else branch


def _branch_hook(scale: _Scale, stream: str, rate: float) -> Callable[[nn.Module, object, Any], Any]:
    """Return a forward hook for a submodule that is one branch; attention returns (branch, weights)."""

    def hook(module: nn.Module, _: object, output: Any) -> Any:
        if not module.training:
            return output
        if isinstance(output, tuple):
            return (scale(output[0], stream, rate), *output[1:])
        return scale(output, stream, rate)

    return hook

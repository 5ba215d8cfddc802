"""What is trained: which parameters learn, and which of them decay."""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from vitft.architectures.blocks import head_modules, is_within, layer_groups
from vitft.errors import ModelError
from vitft.quantities import count_text


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
    return f"{count_text(learning)} of {count_text(total)} parameters learn (model.train: {what})"


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
    heads = head_modules(head)
    for name, parameter in model.named_parameters():
        after = num_blocks > 0 and depth_of[name] >= top - num_blocks
        parameter.requires_grad_(after or is_within(name, heads))
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


_TABLES_AND_TOKENS = re.compile(
    r"position_embedding|pos_embed|relative_position_bias_table|attention_biases|register_tokens"
)


def has_no_decay(name: str, parameter: Tensor) -> bool:
    """Whether weight decay would pull at what is no matrix: biases, norms, scales, tokens, position tables."""
    return sum(side > 1 for side in parameter.shape) <= 1 or _TABLES_AND_TOKENS.search(name) is not None

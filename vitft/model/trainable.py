"""Choose which parameters are trained, and which of them get weight decay."""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from vitft.architectures.blocks import head_modules, is_within, layer_groups
from vitft.errors import ModelError
from vitft.quantities import count_text


def choose_trainable(model: nn.Module, what: str, head: Iterable[str]) -> str:
    """Freeze the parameters that are not trained.

    Args:
        model: a classifier.
        what: ``all``, ``head``, or ``last:N`` for the last N blocks and everything after them.
        head: names of the head's parameters.

    Returns:
        A sentence that says how many parameters are trained.

    Raises:
        ModelError: if the model has no more than N blocks.
    """
    if what != "all":
        _freeze_below(model, int(what.removeprefix("last:")) if what != "head" else 0, head)
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    return f"{count_text(learning)} of {count_text(total)} parameters are trained (model.train: {what})"


def _freeze_below(model: nn.Module, num_blocks: int, head: Iterable[str]) -> None:
    """Freeze everything but the head and, if ``num_blocks`` > 0, the last blocks and what follows them."""
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
            # Otherwise model.train() would update the running statistics of frozen layers.
            module.register_forward_pre_hook(_keep_statistics)


def _keep_statistics(module: nn.Module, _: object) -> None:
    module.eval()


def freeze_unused(model: nn.Module, image_size: tuple[int, int]) -> list[str]:
    """Freeze the parameters that get no gradient, found with a probe step, and return their names.

    Examples are DINOv2's mask token and CLIP's last norm. DDP would wait for their gradients forever.

    Args:
        model: a classifier.
        image_size: (height, width) of its input.
    """
    was_training = model.training
    # eval(): running statistics must not see the probe. train() first: it clears LeViT's cache, which has no gradient.
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
    """Whether a parameter gets no weight decay: biases, norms, scales, tokens and position tables."""
    return sum(side > 1 for side in parameter.shape) <= 1 or _TABLES_AND_TOKENS.search(name) is not None

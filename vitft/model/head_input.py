"""What a model's head reads, and the head on its own: for training it alone, without running the backbone again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from vitft.architectures.blocks import head_modules
from vitft.architectures.family import Size
from vitft.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class HeadInput:
    """The input of a head.

    Attributes:
        module: name of the head's module.
        shape: of one image's features, without the batch.
    """

    module: str
    shape: tuple[int, ...]

    def rest(self, model: PreTrainedModel) -> HeadAlone:
        """Return the network from features to logits."""
        return HeadAlone(model, self.module)


def head_input(model: PreTrainedModel, head: Iterable[str], image_size: Size) -> HeadInput:
    """Find what a model's head reads, with a probe of two images.

    The head must be one module that is called once with one tensor, and its output must be the logits. The probe
    replaces that output by numbers of its own, because a new head returns nothing but zeros.

    Args:
        model: a classifier.
        head: names of the parameters that depend on the number of classes.
        image_size: (height, width) of its input.

    Raises:
        ModelError: if the head is anything else; says what it is.
    """
    names = sorted(head_modules(head))
    if len(names) != 1:
        raise ModelError(f"its head is {len(names)} modules ({', '.join(names)})")
    given: list[Any] = []
    marked: list[Tensor] = []

    def look(_: nn.Module, positional: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
        given.append(positional[0] if len(positional) == 1 and not named else None)
        if not isinstance(output, Tensor):
            return output
        marked.append(torch.arange(1, output.numel() + 1, device=output.device).reshape(output.shape).to(output.dtype))
        return marked[-1]

    hook = model.get_submodule(names[0]).register_forward_hook(look, with_kwargs=True)
    was_training = model.training
    device = next(model.parameters()).device
    try:
        with torch.no_grad():
            logits = model.eval()(torch.zeros(2, 3, *image_size, device=device)).logits
    finally:
        hook.remove()
        model.train(was_training)
    if len(given) != 1 or not isinstance(given[0], Tensor) or len(given[0]) != 2:
        raise ModelError(f"its head ({names[0]}) does not read one tensor, once per image")
    if len(marked) != 1 or not torch.equal(logits, marked[0]):
        raise ModelError(f"the output of its head ({names[0]}) is changed before it becomes the logits")
    return HeadInput(names[0], tuple(given[0].shape[1:]))


@torch.no_grad()
def features_of(model: nn.Module, module: str, pixel_values: Tensor) -> Tensor:
    """Run a model and return what its head, or another module that runs once, reads.

    Args:
        model: a classifier; in eval mode, so that an image's features do not depend on the others.
        module: name of the module.
        pixel_values: (B, 3, H, W).

    Returns:
        float32 (B, ...), on the model's device.
    """
    read: list[Tensor] = []
    hook = model.get_submodule(module).register_forward_pre_hook(lambda _, given: read.append(given[0]))
    try:
        model(pixel_values)
    finally:
        hook.remove()
    return read[0].float()


class HeadOutput(NamedTuple):
    """The output of :class:`HeadAlone`."""

    logits: Tensor
    """(B, K)."""


class HeadAlone(nn.Module):
    """A model's head as a network from features to logits; its parameters are the model's own."""

    def __init__(self, model: PreTrainedModel, module: str) -> None:
        super().__init__()
        self.head = model.get_submodule(module)

    def forward(self, features: Tensor) -> HeadOutput:
        """Return the logits (B, K) of features (B, ...)."""
        return HeadOutput(self.head(features))

"""What a block reads, and the model from there on: for training the last blocks without running the others again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vitft.architectures.blocks import blocks, head_modules
from vitft.architectures.family import Size
from vitft.errors import ModelError, one_line
from vitft.model.head_input import features_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class BlockInput:
    """The input of a block.

    Attributes:
        module: name of the block.
        shape: of one image's features, without the batch.
        image_size: (height, width) of the model's input.
    """

    module: str
    shape: tuple[int, ...]
    image_size: Size

    def rest(self, model: PreTrainedModel) -> FromBlock:
        """Return the network from features to logits."""
        return FromBlock(model, self.module, self.image_size)


def block_input(model: PreTrainedModel, head: Iterable[str], num_blocks: int, image_size: Size) -> BlockInput:
    """Find what the first of a model's last blocks reads, and check that nothing after it needs more than that.

    The check compares what the head reads of two images: of the whole model, and of the model from that block on.

    Args:
        model: a classifier.
        head: names of the parameters that depend on the number of classes.
        num_blocks: how many last blocks there are.
        image_size: (height, width) of the model's input.

    Raises:
        ModelError: if the model cannot be run from that block on; says why.
    """
    name = blocks(model)[-num_blocks][0]
    device = next(model.parameters()).device
    images = torch.rand(2, 3, *image_size, generator=torch.Generator().manual_seed(0)).to(device)
    was_training = model.training
    model.eval()
    try:
        rest = FromBlock(model, name, image_size)
        features = features_of(model, name, images)
        for module in sorted(head_modules(head)):
            _check_same(features_of(model, module, images), features_of(rest, f"model.{module}", features))
    except ModelError:
        raise
    except Exception as error:  # a family's own code, which was not made for this, can raise anything
        raise ModelError(f"this model does not run from {name} on: {one_line(error)}") from error
    finally:
        model.train(was_training)
    return BlockInput(name, tuple(features.shape[1:]), image_size)


def _check_same(expected: Tensor, found: Tensor) -> None:
    if expected.shape != found.shape or not torch.allclose(expected, found, rtol=1e-4, atol=1e-5):
        raise ModelError("its last blocks need more than what the first of them reads")


class FromBlock(nn.Module):
    """A model from a block on, as a network from what the block reads to logits; its parameters are the model's own.

    It runs the model's own code. Every module before the block answers with what it once made of a blank image, and the
    one whose output the block reads answers with the features.

    Args:
        model: a classifier, on its device.
        block: name of the block.
        image_size: (height, width) of the model's input.

    Raises:
        ModelError: if the block does not read the output of a module.
    """

    def __init__(self, model: PreTrainedModel, block: str, image_size: Size) -> None:
        super().__init__()
        self.model = model
        self._blank = torch.zeros(1, 3, *image_size, device=next(model.parameters()).device)
        self._outputs, self._read = _made_of(self._blank, model, block)
        self._source = next((name for name in reversed(self._outputs) if _holds(self._outputs[name], self._read)), "")
        if not self._source:
            raise ModelError(f"{block} does not read the output of another module")

    def forward(self, features: Tensor) -> Any:
        """Return the model's output, with logits (B, K), for features (B, ...)."""
        with self._answering(features):
            return self.model(self._blank)

    @contextmanager
    def _answering(self, features: Tensor) -> Iterator[None]:
        """Let the modules before the block answer without computing anything."""
        answers = self._outputs | {self._source: _swapped(self._outputs[self._source], self._read, features)}
        replaced = [(self.model.get_submodule(name), answer) for name, answer in answers.items()]
        own = [module.__dict__.get("forward") for module, _ in replaced]
        try:
            for module, answer in replaced:
                module.forward = partial(_answer, answer)
            yield
        finally:
            for (module, _), forward in zip(replaced, own, strict=True):
                module.__dict__.pop("forward", None)  # the method of its class is seen again
                if forward is not None:
                    module.forward = forward


@torch.no_grad()
def _made_of(image: Tensor, model: PreTrainedModel, block: str) -> tuple[dict[str, Any], Tensor]:
    """Return the outputs of the outermost modules that end before a block begins, by name, and what the block reads."""
    made: dict[str, Any] = {}
    read: list[Any] = []

    def ended(_: nn.Module, __: Any, output: Any, *, name: str) -> None:
        if not read:
            made.pop(name, None)  # called again: it belongs at the end
            made[name] = output

    hooks = [module.register_forward_hook(partial(ended, name=name)) for name, module in model.named_modules()]
    hooks.append(model.get_submodule(block).register_forward_pre_hook(lambda _, given: read.append((*given, None)[0])))
    was_training = model.training
    try:
        model.eval()(image)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    inside = tuple(f"{name}." for name in made)
    return {name: output for name, output in made.items() if not name.startswith(inside)}, read[0]


def _holds(output: Any, tensor: Tensor) -> bool:
    """Whether an output is a tensor, or a tuple with it."""
    return output is tensor or (isinstance(output, tuple) and any(each is tensor for each in output))


def _swapped(output: Any, old: Tensor, new: Tensor) -> Any:
    """Return an output with another tensor in place of one."""
    if isinstance(output, tuple):
        return tuple(new if each is old else each for each in output)
    return new


def _answer(answer: Any, *_: Any, **__: Any) -> Any:
    return answer

"""Put a fitted head into a model."""

from __future__ import annotations

import torch
from torch import nn

from vitft.errors import ModelError
from vitft.model.classifier import Classifier
from vitft.probes.logistic import LogisticHead


def put_head(classifier: Classifier, module: str, head: LogisticHead) -> None:
    """Give a model a fitted head.

    Args:
        classifier: a model for the same classes, with a new head.
        module: name of the head's module, whose input the head was fitted on.
        head: from features to logits.

    Raises:
        ModelError: if the model's head is more than a linear layer.
    """
    found = classifier.model.get_submodule(module)
    steps = [*found] if isinstance(found, nn.Sequential) else [found]
    linear = steps[-1]
    if not isinstance(linear, nn.Linear) or not all(isinstance(step, nn.Flatten | nn.Identity) for step in steps[:-1]):
        raise ModelError(
            f"the probe's head cannot be put into {classifier.name}: its own head ({type(found).__name__}) is more "
            "than a linear layer",
            hint="leave out --save",
        )
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(head.weight))
        linear.bias.copy_(torch.from_numpy(head.bias))
    classifier.has_head = True

"""Write a copy of a model whose last linear layer is divided by a temperature, for use without vitft."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from torch import Tensor, nn

from vitft.errors import ModelError
from vitft.files import exists
from vitft.model.classifier import Classifier
from vitft.model.load import load_finished

_TOLERANCE = 1e-5  # of the largest logit


def check_fold(classifier: Classifier, out: Path) -> None:
    """Check that a temperature can be folded into a model and that ``out`` is free.

    Raises:
        ModelError: if the parameters that depend on the number of classes are not those of linear layers, or ``out``
            exists.
    """
    if exists(out):
        raise ModelError(f"{out} already exists and will not be overwritten", hint="another folder name")
    names = sorted({each.rpartition(".")[0] for each in classifier.head})
    modules = {name: classifier.model.get_submodule(name) for name in names}
    owned = {f"{name}.{each}" for name, module in modules.items() for each, _ in module.named_parameters()}
    others = sorted(name for name, module in modules.items() if not isinstance(module, nn.Linear))
    if others or owned != set(classifier.head):
        raise ModelError(
            f"no temperature can be folded into {classifier.name}: the head of the family "
            f"{classifier.config.model_type!r} does not end in a linear layer ({', '.join(others or sorted(modules))})",
            hint=f"vitft predict {classifier.name} IMAGES --calibrated",
        )


def fold_temperature(folder: Path, named: str, temperature: float, out: Path) -> None:
    """Write a copy of a model whose logits are divided by a temperature, and check them.

    The copy is in float32, as half precision would round the quotient.

    Args:
        folder: of the model.
        named: the model as the user typed it.
        temperature: what its logits are divided by.
        out: new folder.

    Raises:
        ModelError: if the head does not end in a linear layer, the copy cannot be written, or its logits are wrong.
    """
    classifier = load_finished(folder, named)
    check_fold(classifier, out)
    images = torch.randn(2, 3, *classifier.image_size, generator=torch.Generator().manual_seed(0))
    expected = _logits(classifier, images) / temperature
    with torch.no_grad():
        for name in classifier.head:
            classifier.model.get_parameter(name).div_(temperature)
    try:
        classifier.save(out)
    except ModelError as error:
        raise ModelError(error.wrong, hint="free some disk space, or use another folder") from error
    worst = (_logits(load_finished(out, str(out)), images) - expected).abs().max()
    if not worst <= _TOLERANCE * expected.abs().max():
        shutil.rmtree(out, ignore_errors=True)
        raise ModelError(
            f"no temperature can be folded into {named}: dividing its last linear layer by {temperature:.4g} does not "
            "divide its logits by the same",
            hint=f"vitft predict {named} IMAGES --calibrated",
        )


@torch.no_grad()
def _logits(classifier: Classifier, images: Tensor) -> Tensor:
    logits: Tensor = classifier.model(images).logits
    return logits

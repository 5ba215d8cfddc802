"""Load a finished model onto its device."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vitft.libraries import quiet_libraries
from vitft.outside import shown
from vitft.processes.turns import main_process_first
from vitft.recipe.choices import ResizeMethod
from vitft.recipe.recipe import Recipe

if TYPE_CHECKING:
    from accelerate import Accelerator

    from vitft.model.classifier import Classifier


def load_model(
    model: str | Path,
    precision: str,
    device: str,
    image_size: tuple[int, int] | None = None,
    method: ResizeMethod = "bicubic",
    revision: str | None = None,
    *,
    needs_head: bool = True,
) -> tuple[Classifier, Accelerator]:
    """Load a finished checkpoint, at its own size or another, and print its notes."""
    from vitft.model.load import load_finished
    from vitft.model.locate import locate
    from vitft.processes.device import make_accelerator
    from vitft.resolution.retarget import Target

    quiet_libraries()
    recipe = Recipe.load(None, {"train.precision": precision, "train.device": device})
    accelerator, _ = make_accelerator(recipe)
    with main_process_first(accelerator):
        folder, _ = locate(str(model), revision)
    classifier = load_finished(folder, str(model), Target(image_size, method=method), needs_head=needs_head)
    if accelerator.is_main_process:
        for note in classifier.notes:
            print(shown(note), file=sys.stderr)
    return classifier.to(accelerator.device), accelerator

"""Probe one checkpoint: load it, compute or read its features, score them, time it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vitft.errors import DataError
from vitft.processes.turns import main_process_first, on_main_process
from vitft.recipe.recipe import Recipe
from vitft.status import Status
from vitft.tasks.picturing import load_untrained

if TYPE_CHECKING:
    from accelerate import Accelerator

    from vitft.data.images import ImageSource
    from vitft.features.backbone import Backbone
    from vitft.model.classifier import Classifier
    from vitft.probes.labelled import Splits
    from vitft.probes.outcome import Probed

_FEW = 4  # images per pass when a CPU's speed is measured
_SECONDS = 1.0  # of measuring
_AT_ONCE = 64  # images per pass on an accelerator


def load_candidate(name: str, recipe: Recipe, source: ImageSource) -> Classifier:
    """Load a checkpoint as a run with the recipe would, with a new head."""
    model = recipe.model.model_copy(update={"checkpoint": name, "head": "new"})
    return load_untrained(recipe.model_copy(update={"model": model}), source)


def probe_candidate(
    name: str, recipe: Recipe, source: ImageSource, accelerator: Accelerator, shots: Sequence[int], status: Status
) -> tuple[Probed, Splits]:
    """Return what a checkpoint's features are good for, and the features.

    Args:
        name: the checkpoint.
        recipe: how images are read, and at which size.
        source: the dataset.
        accelerator: where to compute.
        shots: images per class of the few-shot scores.
        status: shows the progress.

    Raises:
        VitftError: if it cannot be probed.
    """
    from vitft.probes.outcome import Probed, score

    begun = time.perf_counter()
    with main_process_first(accelerator):
        classifier = load_candidate(name, recipe, source)
    for note in classifier.notes:
        if not note.startswith("new head"):  # which nothing uses
            status.say(f"  {note}")
    classifier.to(accelerator.device)
    backbone = _backbone(recipe, classifier, source, accelerator, status)
    splits = _splits(backbone, source)
    scores = on_main_process(lambda: score(splits, len(source.classes), shots), accelerator)
    speed = _images_per_second(classifier, accelerator)
    licence = classifier.origin.license
    probed = Probed(
        name,
        scores,
        backbone.read.module,
        classifier.image_size,
        sum(parameter.numel() for parameter in classifier.model.parameters()),
        speed,
        time.perf_counter() - begun,
        licence.get("license_name") or licence.get("license") or "unknown",
    )
    return probed, splits


def _backbone(
    recipe: Recipe, classifier: Classifier, source: ImageSource, accelerator: Accelerator, status: Status
) -> Backbone:
    """Return the frozen model, with the batches that training its head would have, so that both share features."""
    from vitft.data.images import ImageSplit
    from vitft.features.backbone import Backbone, batch_size_for
    from vitft.model.head_input import head_input
    from vitft.train.batch_plan import choose_batch_size, choose_micro_batch_size

    assert isinstance(source.train, ImageSplit)
    micro, size, workers = _AT_ONCE, classifier.image_size, recipe.data.workers
    if accelerator.device.type == "cpu":
        step = choose_batch_size(recipe, len(source.train), accelerator.num_processes, {})
        micro = choose_micro_batch_size(recipe, classifier, accelerator, step, size, 0, {})
    return Backbone(
        classifier,
        head_input(classifier.model, classifier.head, size),
        recipe.data,
        batch_size_for(micro),
        workers if isinstance(workers, int) else int(len(source.train) > 2000),
        accelerator,
        status,
        lambda text: status.say(f"  {text}"),
    )


def _splits(backbone: Backbone, source: ImageSource) -> Splits:
    """Compute or read the features of all splits, as training a head would."""
    from vitft.data.images import ImageSplit
    from vitft.features.facts import facts_of
    from vitft.features.kept import read_or_compute
    from vitft.features.views import PlainView
    from vitft.probes.labelled import Labelled, Splits

    facts = facts_of(backbone, source)

    def labelled(split: ImageSplit) -> Labelled:
        rows = Labelled.of(read_or_compute(backbone, split, PlainView(), facts), split)
        if not len(rows):
            raise DataError(f"none of the {split.name} images can be decoded")
        return rows

    assert isinstance(source.train, ImageSplit) and isinstance(source.validation, ImageSplit)
    train, validation = labelled(source.train), labelled(source.validation)
    return Splits(train, validation, labelled(source.test) if isinstance(source.test, ImageSplit) else None)


def _images_per_second(classifier: Classifier, accelerator: Accelerator) -> float:
    """Return the speed of all processes' forward passes on blank images: the fastest pass of about a second."""
    import torch

    from vitft.architectures.last_block import short_last_block
    from vitft.train.trial import trial_pass

    count = _FEW if accelerator.device.type == "cpu" else _AT_ONCE
    classifier.model.eval()
    seconds: list[float] = []
    with short_last_block(classifier.model), torch.no_grad():
        while len(seconds) < 2 or (sum(seconds) < _SECONDS and len(seconds) < 20):
            shape = (count, 3, *classifier.image_size)
            seconds.append(trial_pass(classifier.model, shape, accelerator, learns=False))
    speed: float = accelerator.num_processes * count / min(seconds)
    return speed

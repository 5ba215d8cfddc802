"""Print what a run is made of before its first step, and write it into ``plan.json`` and ``environment.json``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from vitft.environment import environment
from vitft.outside import shown
from vitft.quantities import duration_text, speed_text
from vitft.recipe.sizes import show_size
from vitft.run import Run

if TYPE_CHECKING:
    from vitft.data.images import ImageSplit, StreamSplit
    from vitft.train.setup import Setup


def tell(run: Run, setup: Setup, hub_notes: Sequence[str]) -> None:
    """Print and record everything that was chosen before the first step."""
    classifier = setup.classifier
    run.say(f"run      {run.folder}")
    run.say(f"model    {classifier.name} at {show_size(classifier.image_size)}")
    for note in hub_notes:
        run.say(f"  {note}")
    if run.newest_checkpoint():  # a resumed run has already recorded all this
        run.say(str(setup.plan))
        if run.is_main and run.read_json("environment.json") is None:
            run.say("  environment.json is missing or broken: written again, with the present versions and hardware")
            write_environment(run, setup)
        if run.is_main and run.read_json("plan.json") is None:
            _write_plan(run, setup)
        return
    run.cut_metrics(0)
    for note in setup.source.notes:  # already printed when the dataset was read
        run.log("note", text=shown(note))
    for note in classifier.notes:
        run.note(note)
    run.say(str(setup.plan))
    _write_plan(run, setup)
    write_environment(run, setup)


def expected_time(setup: Setup) -> str:
    """Time a few training passes and say the time of the whole training."""
    from vitft.train.cost import seconds_per_image

    if setup.plan.is_sharded:
        return "time: not estimated, because the model is divided over several processes"
    plan, phase, model = setup.plan, setup.plan.phases[-1], setup.classifier.model
    size, accelerator, is_frozen = plan.micro_batch_size, setup.accelerator, plan.features is not None
    each = seconds_per_image(model, (3, *phase.image_size), size, accelerator, learns=not is_frozen)
    repeated = 1 + plan.trial_share
    images = plan.features.num_images if plan.features is not None else plan.work() / phase.gflop * repeated
    total = each * images / plan.world_size
    if plan.features is not None:
        read = plan.features.read
        step = seconds_per_image(read.rest(model), read.shape, size, accelerator)
        total += step * plan.total_samples * repeated / plan.world_size
    speed = f"{speed_text(plan.world_size / each)} images/s at {show_size(phase.image_size)}"
    return f"time: about {duration_text(total)} of training on this machine ({speed})"


def _write_plan(run: Run, setup: Setup) -> None:
    rows = [{"name": name, "value": value, "reason": shown(reason)} for name, value, reason in setup.plan.rows()]
    run.write_json("plan.json", {"rows": rows, "notes": [*map(shown, setup.plan.notes)]})


def write_environment(run: Run, setup: Setup) -> None:
    """Write ``environment.json``: dataset, model, device and versions."""
    source, classifier = setup.source, setup.classifier
    splits = {name: split for name in ("train", "validation", "test") if (split := getattr(source, name)) is not None}
    train = source.train
    assert train is not None
    dataset = {
        "id": source.id,
        "revision": source.revision,
        "fingerprint": source.fingerprint,
        "rows": {name: _num_images(split) for name, split in splits.items()},
        # The dataset's own names: a validation split that was set aside has the name of the training split.
        "splits": {name: getattr(split, "source_name", "") for name, split in splits.items()},
        "image_column": next(iter(train.image_columns), None) if source.label_column else None,
        "label_column": source.label_column,
        "labels_from": source.labels_from,
        "notes": [*map(shown, source.notes)],
    }
    model = {
        "id": classifier.name,
        "revision": classifier.revision,
        **asdict(classifier.origin),
        "kept_classes": classifier.kept_classes,
        "parameters": setup.plan.num_parameters,
        "trained_parameters": setup.plan.num_learning,
        "notes": [*map(shown, classifier.notes)],
    }
    device = setup.plan.device
    run.write_json(
        "environment.json",
        environment(dataset=dataset, model=model, device=device, command=[*map(shown, sys.argv)]),
    )


def _num_images(split: ImageSplit | StreamSplit) -> int | None:
    return len(split) if hasattr(split, "__len__") else split.num_rows  # None: a stream that does not say

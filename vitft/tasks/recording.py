"""What a run is made of, said before its first step and written into ``environment.json``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vitft.environment import environment
from vitft.outside import shown
from vitft.run import Run
from vitft.sizes import show_size


@dataclass
class Parts:
    """What a run is made of, loaded."""

    source: Any
    pretrained: Any
    plan: Any
    overview: str = ""


def tell(run: Run, parts: Parts, hub_notes: Sequence[str]) -> None:
    """Say and record everything that was chosen before the first step."""
    pretrained = parts.pretrained
    run.say(f"run      {run.folder}")
    run.say(f"model    {pretrained.id} at {show_size(pretrained.image_size)}")
    for note in hub_notes:
        run.say(f"  {note}")
    if run.newest_checkpoint():  # a resumed run, in which all this is written already
        run.say(str(parts.plan))
        if run.is_main and run.read_json("environment.json") is None:
            run.say("  environment.json is missing or broken: written anew, with what is here now")
            write_environment(run, parts)
        return
    run.cut_metrics(0)
    for note in parts.source.notes:  # said at once, when the dataset was read
        run.log("note", about="data", text=shown(note))
    for note in pretrained.notes:
        run.note(note, about="model")
    run.say(str(parts.plan))
    write_environment(run, parts)


def write_environment(run: Run, parts: Parts) -> None:
    """Write down what the run was made of, and where."""
    source, pretrained = parts.source, parts.pretrained
    splits = {name: split for name in ("train", "validation", "test") if (split := getattr(source, name)) is not None}
    dataset = {
        "id": source.id,
        "revision": source.revision,
        "fingerprint": source.fingerprint,
        "rows": {name: _num_images(split) for name, split in splits.items()},
        # The source's own names: a validation split that was carved has that of the training split.
        "splits": {name: getattr(split, "source_name", "") for name, split in splits.items()},
        "image_column": next(iter(source.train.image_columns), None) if source.label_column else None,
        "label_column": source.label_column,
        "labels_from": source.labels_from,
    }
    model = {"id": pretrained.id, "revision": pretrained.revision, **asdict(pretrained.origin)}
    device = parts.plan.device
    run.write_json(
        "environment.json",
        environment(dataset=dataset, model=model, device=device, command=[*map(shown, sys.argv)]),
    )


def _num_images(split: Any) -> int | None:
    return len(split) if hasattr(split, "__len__") else split.num_rows  # None: a stream that does not say

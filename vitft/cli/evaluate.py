"""``vitft evaluate``: score a model on a split of a dataset."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from vitft.cli.flags import (
    BadImages,
    BatchSize,
    Dataset,
    Debug,
    Device,
    Format,
    Metrics,
    NumProcesses,
    Precision,
    Settings,
    Split,
    launched,
    rank,
    settings,
)
from vitft.errors import UsageError


def evaluate(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="Run directory, model folder or Hub id.", metavar="MODEL")],
    dataset: Dataset = None,
    split: Split = None,
    metrics: Metrics = None,
    batch_size: BatchSize = None,
    precision: Precision = None,
    device: Device = None,
    num_processes: NumProcesses = None,
    bad_images: BadImages = None,
    settings_given: Settings = None,
    format: Format = "text",
    debug: Debug = False,
) -> int:
    """Score a model on a dataset.

    Every image counts exactly once, on any number of processes. --set takes the keys of the recipe's data
    section. Arguments after -- go to accelerate's launcher.
    """
    from vitft.recipe import Recipe

    changes = {"data.dataset": dataset, "data.bad_images": bad_images}
    given = settings(settings_given)
    others = [key for key in given if not key.startswith("data.")]
    if others:
        raise UsageError(
            f"--set {others[0]}: only the dataset has settings here",
            allowed="keys of the section data, such as data.label_column",
            hint="vitft evaluate MODEL --dataset D --set data.label_column=label",
        )
    recipe = Recipe.load(None, {key: value for key, value in changes.items() if value is not None} | given)
    if recipe.data.dataset is None:
        raise UsageError("no dataset was given", hint=f"vitft evaluate {model} --dataset D")

    code = launched(ctx, num_processes, device or "auto")
    if code is not None:
        return code

    from vitft import tasks

    result = tasks.evaluate(
        model,
        recipe.data,
        split=split,
        metrics=tuple(metrics or ()),
        batch_size=batch_size,
        precision=precision or "auto",
        device=device or "auto",
        bad_images=recipe.data.bad_images,
    )
    if rank() == 0:
        print(json.dumps(result.scores, indent=2) if format == "json" else result)
    return 0

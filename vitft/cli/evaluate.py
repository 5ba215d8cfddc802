"""``vitft evaluate``: score a model on a split of a dataset."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitft.cli.flags import (
    BadImages,
    BatchSize,
    Dataset,
    DatasetRevision,
    Debug,
    Device,
    Format,
    Metrics,
    ModelRevision,
    NumProcesses,
    Precision,
    ResizeMethod,
    Settings,
    Split,
    data_settings,
    image_sizes,
    launched,
    rank,
)
from vitft.errors import UsageError
from vitft.outside import shown

if TYPE_CHECKING:
    from vitft.recipe.keys import DataRecipe


def evaluate(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="Run directory, model folder or Hub id.", metavar="MODEL")],
    dataset: Dataset = None,
    model_revision: ModelRevision = None,
    dataset_revision: DatasetRevision = None,
    split: Split = None,
    metrics: Metrics = None,
    image_size: Annotated[
        str | None,
        typer.Option(
            "--image-size",
            metavar="SIZES",
            help="Pixels of the model's input: 384, 384x512, or several with commas: 160,192,224.",
        ),
    ] = None,
    method: ResizeMethod = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Where the plot over several sizes goes (.png, .svg or .pdf)."),
    ] = None,
    shift: Annotated[
        int | None,
        typer.Option(
            "--shift",
            metavar="N",
            min=1,
            help="Also move each image by N pixels in four directions: how many predictions stay.",
        ),
    ] = None,
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

    Every image counts exactly once, on any number of processes. Several --image-size give one table of accuracy
    and speed, and a plot. --set takes the keys of the recipe's data section. Arguments after -- go to
    accelerate's launcher.
    """
    flags: dict[str, object] = {
        "data.dataset": dataset,
        "data.revision": dataset_revision,
        "data.bad_images": bad_images,
    }
    data = _data_recipe(model, flags, settings_given)
    sizes = image_sizes(image_size)
    if len(sizes) > 1 and metrics:
        raise UsageError("--metrics goes with one size", hint="leave --metrics out, or give one --image-size")
    if len(sizes) < 2 and plot is not None:
        raise UsageError("--plot needs several sizes", hint="--image-size 160,192,224,256")

    code = launched(ctx, num_processes, device or "auto")
    if code is not None:
        return code

    options: dict[str, Any] = {
        "split": split,
        "batch_size": batch_size,
        "precision": precision or "auto",
        "device": device or "auto",
        "bad_images": data.bad_images,
        "method": method or "bicubic",
        "revision": model_revision,
        "shift": shift or 0,
    }
    if len(sizes) > 1:
        return _sweep(model, data, sizes, plot, format, options)

    from vitft import tasks

    size = sizes[0] if sizes else None
    result = tasks.evaluate(model, data, metrics=tuple(metrics or ()), image_size=size, **options)
    if rank() == 0:
        print(json.dumps(result.scores, indent=2) if format == "json" else shown(result))
    return 0


def _data_recipe(model: str, changes: dict[str, object], given: list[str] | None) -> DataRecipe:
    """Return the dataset that the flags and ``--set`` describe; raise UsageError if they describe anything else."""
    data = data_settings(changes, given, "vitft evaluate MODEL --dataset D --set data.label_column=label")
    if data.dataset is None:
        raise UsageError("no dataset was given", hint=f"vitft evaluate {model} --dataset D")
    return data


def _sweep(
    model: str, data: DataRecipe, sizes: list[tuple[int, int]], plot: Path | None, format: str, options: dict[str, Any]
) -> int:
    """Score at several sizes, print one table and draw it."""
    from vitft import tasks
    from vitft.names import slug
    from vitft.report.size_plot import check_figure_path, draw_size_sweep

    plot = check_figure_path(plot or Path(f"{slug(model)}-sizes.png"))
    result = tasks.evaluate_sizes(model, data, sizes, **options)
    if rank() == 0:
        draw_size_sweep(result.plain(), result.own_size, plot, title=f"{model}\non {data.dataset}")
        print(json.dumps({"plot": str(plot), "sizes": result.plain()}, indent=2) if format == "json" else shown(result))
        print(shown(f"plot: {plot}"), file=sys.stderr)
    return 0

"""``vitft evaluate``: score a model on a split of a dataset."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitft.cli.command import launched
from vitft.cli.options import (
    BatchSize,
    Debug,
    Format,
    Model,
    NumProcesses,
    Settings,
    Split,
    data_settings,
    image_sizes,
    take_dataset,
)
from vitft.cli.recipe_flags import Changes, recipe_flags
from vitft.errors import UsageError
from vitft.files import at_home
from vitft.outside import shown
from vitft.processes import worker

if TYPE_CHECKING:
    from vitft.recipe.keys import DataRecipe
    from vitft.recipe.recipe import Recipe
    from vitft.tasks import EvaluationResult


OwnDataset = Annotated[
    str | None,
    typer.Argument(help="The dataset, like --dataset; without one, a run scores its own images.", metavar="DATASET"),
]
ImageSizes = Annotated[
    str | None,
    typer.Option(
        "--image-size",
        metavar="SIZES",
        help="The model's input in pixels: 384, 384x512, or several sizes with commas: 160,192,224.",
    ),
]
Plot = Annotated[
    Path | None,
    typer.Option("--plot", metavar="FILE", help="File for the plot over several sizes (.png, .svg or .pdf)."),
]
Shift = Annotated[
    int | None,
    typer.Option(
        "--shift",
        metavar="N",
        min=1,
        help="Also shift each image by N pixels in four directions, and count the predictions that stay.",
    ),
]
Calibrate = Annotated[
    bool,
    typer.Option(
        "--calibrate",
        help="Fit a temperature on the validation images, show what it does to the scores, and store it.",
    ),
]
FoldTemperature = Annotated[
    Path | None,
    typer.Option(
        "--fold-temperature",
        metavar="OUT",
        help="With --calibrate: also write a copy of the model that has the temperature in its last layer.",
    ),
]
Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="DIR", help="New folder for scores, predictions and a page."),
]


@recipe_flags(
    "--dataset", "--dataset-revision", "--bad-images", "--model-revision", "--method", "--metrics", "--precision",
    "--device",
)  # fmt: skip
def evaluate(
    ctx: typer.Context,
    model: Model,
    dataset_given: OwnDataset = None,
    *,
    changes: Changes,
    split: Split = None,
    image_size: ImageSizes = None,
    plot: Plot = None,
    shift: Shift = None,
    calibrate: Calibrate = False,
    fold_temperature: FoldTemperature = None,
    per_class: Annotated[bool, typer.Option("--per-class", help="Print the scores of every class.")] = False,
    out: Output = None,
    batch_size: BatchSize = None,
    num_processes: NumProcesses = None,
    settings_given: Settings = None,
    format: Format = "text",
    debug: Debug = False,
) -> int:
    """Score a model on a dataset.

    Every image counts exactly once, on any number of processes. Several --image-size give one table of accuracy
    and speed, and a plot. --set takes the keys of the recipe's data section. Arguments after -- go to
    accelerate's launcher.
    """
    take_dataset(dataset_given, changes)
    recipe = _recipe(changes, settings_given)
    data = recipe.data if recipe.data.dataset else None  # None: the run's own
    sizes = image_sizes(image_size)
    of_one_size = {
        "--metrics": recipe.run.metrics, "--calibrate": calibrate, "--output": out, "--per-class": per_class,
    }  # fmt: skip
    for flag in [flag for flag, value in of_one_size.items() if value and len(sizes) > 1]:
        raise UsageError(f"{flag} needs a single size", hint=f"leave out {flag}, or give one --image-size")
    if fold_temperature is not None and not calibrate:
        raise UsageError(
            "--fold-temperature needs --calibrate",
            hint=f"vitft evaluate {model} --calibrate --fold-temperature {fold_temperature}",
        )
    if len(sizes) < 2 and plot is not None:
        raise UsageError("--plot needs several sizes", hint="--image-size 160,192,224,256")

    code = launched(ctx, num_processes, recipe.train.device)
    if code is not None:
        return code

    options: dict[str, Any] = {
        "split": split,
        "batch_size": batch_size,
        "precision": recipe.train.precision,
        "device": recipe.train.device,
        "bad_images": recipe.data.bad_images,
        "method": recipe.model.resize_method,
        "revision": recipe.model.revision,
        "shift": shift or 0,
    }
    if len(sizes) > 1:
        return _sweep(model, data, sizes, plot, format, options)

    from vitft import tasks

    size = sizes[0] if sizes else None
    options |= {"calibrate": calibrate, "fold_temperature": fold_temperature, "out": out}
    result = tasks.evaluate(model, data, metrics=recipe.run.metrics, image_size=size, **options)
    if worker.is_main():
        _print(result, format, per_class, out)
    return 0


def _print(result: EvaluationResult, format: str, per_class: bool, out: Path | None) -> None:
    text = json.dumps(result.scores, indent=2) if format == "json" else result.told(with_all_classes=per_class)
    print(shown(text))
    if out is not None:
        from vitft.tasks.reporting import PAGE

        out = at_home(out)
        page = [f"report: {out / PAGE}"] if (out / PAGE).is_file() else []
        print(shown("\n".join([f"scores and predictions: {out}", *page])), file=sys.stderr)


def _recipe(changes: Changes, given: list[str] | None) -> Recipe:
    """Return the recipe from flags and ``--set``; raise UsageError for settings without a dataset."""
    from vitft.recipe.recipe import Recipe

    settings = data_settings(given, "vitft evaluate MODEL --dataset D --set data.label_column=label")
    recipe = Recipe.load(None, changes | settings)
    if settings and recipe.data.dataset is None:
        raise UsageError(f"--set {next(iter(settings))}: no dataset was given", hint="vitft evaluate MODEL DATASET")
    return recipe


def _sweep(
    model: str,
    data: DataRecipe | None,
    sizes: list[tuple[int, int]],
    plot: Path | None,
    format: str,
    options: dict[str, Any],
) -> int:
    """Score at several sizes, print one table and draw it."""
    from vitft import tasks
    from vitft.names import slug
    from vitft.report.size_plot import check_figure_path, draw_size_sweep

    plot = check_figure_path(plot or Path(f"{slug(model)}-sizes.png"))
    result = tasks.evaluate_sizes(model, data, sizes, **options)
    if worker.is_main():
        draw_size_sweep(
            result.plain(), result.own_size, plot, title=f"{model}\non {data.dataset if data else 'its own images'}"
        )
        print(json.dumps({"plot": str(plot), "sizes": result.plain()}, indent=2) if format == "json" else shown(result))
        print(shown(f"plot: {plot}"), file=sys.stderr)
    return 0

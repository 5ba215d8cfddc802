"""``vitft views``: show what the network will see."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from vitft.cli.options import Debug, Format, OwnDataset, RecipeName, Settings, settings, take_dataset
from vitft.cli.recipe_flags import Changes, recipe_flags
from vitft.outside import shown


@recipe_flags(
    "--dataset", "--dataset-revision", "--max-train-samples", "--model", "--model-revision", "--image-size", "--train",
    "--epochs", "--batch-size", "--seed",
)  # fmt: skip
def views(
    *,
    dataset_given: OwnDataset = None,
    recipe: RecipeName = None,
    changes: Changes,
    number: Annotated[int, typer.Option("--number", min=1, max=200, metavar="N", help="Images to show.")] = 8,
    per_image: Annotated[
        int, typer.Option("--per-image", min=1, max=100, metavar="N", help="Epochs to show each image in.")
    ] = 6,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="File or folder to write: views.html here by default."),
    ] = None,
    settings_given: Settings = None,
    format: Format = "text",
    debug: Debug = False,
) -> int:
    """Show what the network will see: images, how they are scored, and their random views in the first epochs.

    Writes one page that needs no network. Nothing is trained. A run with the same recipe, flags and seed has the same
    views, with the same labels and mixing.
    """
    take_dataset(dataset_given, changes)
    changes |= settings(settings_given)

    from vitft import tasks
    from vitft.recipe.recipe import Recipe

    result = tasks.show_views(Recipe.load(recipe, changes), number=number, per_image=per_image, output=output)
    print(json.dumps({"views": str(result.path), "notes": result.notes}) if format == "json" else shown(result))
    return 0

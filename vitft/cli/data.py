"""``vitft data``: show how a dataset is read."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from vitft.cli.options import Debug, Format, Settings, data_settings
from vitft.cli.recipe_flags import Changes, meaning, recipe_flags
from vitft.outside import shown


@recipe_flags("--dataset-revision", "--bad-images")
def data(
    dataset: Annotated[str, typer.Argument(help=meaning("data.dataset"), metavar="DATASET")],
    changes: Changes,
    settings_given: Settings = None,
    format: Format = "text",
    debug: Debug = False,
) -> int:
    """Show how a dataset is read: its splits, classes, labels, an example of each class, and what is left out.

    Nothing is trained or written. --set takes the keys of the recipe's data section; data.check_images=all decodes
    every image.
    """
    settings = data_settings(settings_given, f"vitft data {dataset} --set data.label_column=label")

    from vitft import tasks
    from vitft.recipe.recipe import Recipe

    recipe = Recipe.load(None, {"data.dataset": dataset} | changes | settings).data
    overview = tasks.describe(recipe)
    print(json.dumps(overview.plain(), indent=2) if format == "json" else shown(overview))
    return 0

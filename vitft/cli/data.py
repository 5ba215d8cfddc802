"""``vitft data``: what a dataset is taken for."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from vitft.cli.flags import BadImages, DatasetRevision, Debug, Format, Settings, data_settings
from vitft.outside import shown


def data(
    dataset: Annotated[
        str, typer.Argument(help="Hub id or old name, folder, file, or builtin:digits.", metavar="DATASET")
    ],
    dataset_revision: DatasetRevision = None,
    bad_images: BadImages = None,
    settings_given: Settings = None,
    format: Format = "text",
    debug: Debug = False,
) -> int:
    """Show how a dataset is read: splits, classes, labels, an example of each class, what is left out.

    Nothing is trained or written. --set takes the keys of the recipe's data section; data.check_images=all decodes
    every image.
    """
    given = {"data.dataset": dataset, "data.revision": dataset_revision, "data.bad_images": bad_images}
    recipe = data_settings(given, settings_given, f"vitft data {dataset} --set data.label_column=label")

    from vitft import tasks

    overview = tasks.describe(recipe)
    print(json.dumps(overview.plain(), indent=2) if format == "json" else shown(overview))
    return 0

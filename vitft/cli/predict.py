"""``vitft predict``: labels and probabilities of images, as a table, JSON, JSON lines or CSV."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vitft.cli.images import expand_images
from vitft.cli.options import BatchSize, Debug, Model, Settings, check_one_size, settings
from vitft.cli.recipe_flags import Changes, recipe_flags
from vitft.errors import UsageError
from vitft.outside import cell, printable, shown, without_secrets

if TYPE_CHECKING:
    from vitft.recipe.recipe import Recipe


@recipe_flags("--model-revision", "--image-size", "--method", "--precision", "--device")
def predict(
    model: Model,
    images: Annotated[list[str], typer.Argument(help="Image files, folders or globs.", metavar="IMAGES")],
    changes: Changes,
    top_k: Annotated[int, typer.Option("--top-k", min=1, metavar="N", help="Labels per image.")] = 5,
    batch_size: BatchSize = None,
    settings_given: Settings = None,
    format: Annotated[
        Literal["text", "json", "jsonl", "csv"], typer.Option("--format", help="How predictions are printed.")
    ] = "text",
    debug: Debug = False,
) -> int:
    """Print the most probable labels of images.

    Scores are those of transformers' pipeline: probabilities, or values for a model of regression. An image that
    cannot be read is reported in its place. --set takes data.max_pixels. Exit code 0: every image has predictions;
    1: some have none.
    """
    paths = list(expand_images(images))
    recipe = _recipe(changes, settings(settings_given))

    from vitft import tasks

    rows = tasks.predict(
        model,
        paths,
        top_k=top_k,
        batch_size=batch_size,
        device=recipe.train.device,
        precision=recipe.train.precision,
        image_size=recipe.model.image_size,
        method=recipe.model.resize_method,
        revision=recipe.model.revision,
        max_pixels=recipe.data.max_pixels,
    )
    rows = [row | {"image": without_secrets(row["image"])} for row in rows]
    for note in (f"{row['image']}: {note}" for row in rows for note in row.get("notes", ())):
        print(shown(note), file=sys.stderr)
    if format == "json":
        print(json.dumps(rows, indent=2))
    elif format == "jsonl":
        for row in rows:
            print(json.dumps(row))
    elif format == "csv":
        _write_csv(rows)
    else:
        for line in _table(rows):
            print(line)
    failed = sum("error" in row for row in rows)
    if failed:
        print(f"{failed} of {len(rows)} images could not be read", file=sys.stderr)
    return 1 if failed else 0


def _recipe(changes: Changes, given: dict[str, object]) -> Recipe:
    """Return what the flags and ``--set`` say, as a recipe; raise UsageError for a setting that is none here."""
    from vitft.recipe.recipe import Recipe

    others = [key for key in given if key != "data.max_pixels"]
    if others:
        raise UsageError(
            f"--set {others[0]}: it is no setting of predict",
            allowed="data.max_pixels",
            hint="--set data.max_pixels=200000000",
        )
    check_one_size(changes)
    return Recipe.load(None, changes | given)


def _table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield one line per image: its path, then label and score of each prediction, in columns."""
    cells = [[f"{printable(each['label'])} {each['score']:.4f}" for each in row.get("predictions", ())] for row in rows]
    widths = [max(map(len, column)) for column in zip(*filter(None, cells), strict=True)]
    names = [printable(row["image"]) for row in rows]
    name_width = max(map(len, names), default=0)
    for name, row, columns in zip(names, rows, cells, strict=True):
        said = f"error: {printable(row['error'])}" if "error" in row else "  ".join(map(str.ljust, columns, widths))
        yield f"{name:{name_width}}  {said}".rstrip()


def _write_csv(rows: Sequence[Mapping[str, Any]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["image", "rank", "label", "score", "error"])
    for row in rows:
        image = cell(str(row["image"]))
        if "error" in row:
            writer.writerow([image, "", "", "", cell(row["error"])])
        for place, each in enumerate(row.get("predictions", ()), start=1):
            writer.writerow([image, place, cell(each["label"]), each["score"], ""])

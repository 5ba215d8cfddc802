"""``vitft predict``: print the labels of images as a table, JSON, JSON lines or CSV."""

from __future__ import annotations

import csv
import itertools
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vitft.cli.images import expand_images
from vitft.cli.options import BatchSize, Debug, Model, Settings, check_one_size, settings
from vitft.cli.recipe_flags import Changes, recipe_flags
from vitft.errors import UsageError
from vitft.outside import cell, printable, shown, without_secrets

if TYPE_CHECKING:
    from vitft.recipe.recipe import Recipe

Row = dict[str, Any]
"""The result of an image, from ``vitft.tasks.predict_each``."""


@recipe_flags("--model-revision", "--image-size", "--method", "--precision", "--device")
def predict(
    model: Model,
    images: Annotated[list[str], typer.Argument(help="Image files, folders or globs.", metavar="IMAGES")],
    changes: Changes,
    top_k: Annotated[int, typer.Option("--top-k", min=1, metavar="N", help="Labels per image.")] = 5,
    batch_size: BatchSize = None,
    settings_given: Settings = None,
    format: Annotated[
        Literal["text", "json", "jsonl", "csv"], typer.Option("--format", help="How to print the predictions.")
    ] = "text",
    calibrated: Annotated[
        bool, typer.Option("--calibrated", help="Apply the temperature that vitft evaluate --calibrate stored.")
    ] = False,
    debug: Debug = False,
) -> int:
    """Print the most probable labels of images.

    Scores are those of transformers' pipeline: probabilities, or values for a regression model. An image that cannot
    be read is reported in its place. --set takes data.max_pixels. Exit code 0: every image has predictions; 1: some
    have none.
    """
    paths = list(expand_images(images))
    recipe = _recipe(changes, settings(settings_given))

    from vitft import tasks

    rows = tasks.predict_each(
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
        calibrated=calibrated,
    )
    printer = _PRINTERS[format]()
    failed = 0
    for batch in _batches(rows, batch_size or 32):
        for note in (f"{row['image']}: {note}" for row in batch for note in row.get("notes", ())):
            print(shown(note), file=sys.stderr)
        printer.add(batch)
        sys.stdout.flush()  # a reading program need not wait for the last image
        failed += sum("error" in row for row in batch)
    printer.end()
    if failed:
        print(f"{failed} of {len(paths)} images could not be read", file=sys.stderr)
    return 1 if failed else 0


def _batches(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    """Yield the rows of one forward pass at a time, without secrets in their names."""
    while batch := [row | {"image": without_secrets(row["image"])} for row in itertools.islice(rows, size)]:
        yield batch


def _recipe(changes: Changes, given: dict[str, object]) -> Recipe:
    """Return the flags and ``--set`` as a recipe; raise UsageError for a key that predict does not use."""
    from vitft.recipe.recipe import Recipe

    others = [key for key in given if key != "data.max_pixels"]
    if others:
        raise UsageError(
            f"--set {others[0]}: predict does not use this key",
            allowed="data.max_pixels",
            hint="--set data.max_pixels=200000000",
        )
    check_one_size(changes)
    return Recipe.load(None, changes | given)


# --- formats -----------------------------------------------------------------------------------------------


class _Text:
    """Print one line per image: its path, then the label and score of each prediction, in columns."""

    def __init__(self) -> None:
        self.widths: list[int] = []
        self.name_width = 0
        self.columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0

    def add(self, rows: Sequence[Row]) -> None:
        """Print a batch; columns only grow wider from one batch to the next."""
        cells = [
            [f"{printable(each['label'])} {each['score']:.4f}" for each in row.get("predictions", ())] for row in rows
        ]
        names = [self._shortened(printable(row["image"])) for row in rows]
        self.widths = _widest(self.widths, cells)
        self.name_width = max([self.name_width, *map(len, names)])
        for name, row, labels in zip(names, rows, cells, strict=True):
            said = f"error: {printable(row['error'])}" if "error" in row else self._fitting(labels)
            print(f"{name:{self.name_width}}  {said}".rstrip())

    def end(self) -> None:
        """Print nothing more."""

    def _shortened(self, name: str) -> str:
        """Shorten a name that would fill more than half of the terminal to its end."""
        most = self.columns // 2
        return name if not most or len(name) <= most else f"…{name[1 - most :]}"

    def _fitting(self, labels: Sequence[str]) -> str:
        """Return as many labels as fit on the terminal, and at least one, which may be cut off."""
        line = ""
        for label, width in zip(labels, self.widths, strict=False):
            longer = f"{line}{label:{width}}  "
            if line and self.columns and self.name_width + 2 + len(longer.rstrip()) > self.columns:
                break
            line = longer
        room = self.columns - self.name_width - 2
        return line.rstrip()[:room] if self.columns else line.rstrip()


def _widest(widths: Sequence[int], cells: Sequence[Sequence[str]]) -> list[int]:
    """Return column widths that also fit these cells."""
    columns = itertools.zip_longest(*cells, fillvalue="")
    longest = [max(map(len, column)) for column in columns]
    return [max(pair) for pair in itertools.zip_longest(widths, longest, fillvalue=0)]


class _Csv:
    """Print one row per prediction; for an image that cannot be read, one row with the reason."""

    def __init__(self) -> None:
        self.writer = csv.writer(sys.stdout, lineterminator="\n")
        self.writer.writerow(["image", "rank", "label", "score", "error"])

    def add(self, rows: Sequence[Row]) -> None:
        """Write a batch."""
        for row in rows:
            image = cell(str(row["image"]))
            if "error" in row:
                self.writer.writerow([image, "", "", "", cell(row["error"])])
            for place, each in enumerate(row.get("predictions", ()), start=1):
                self.writer.writerow([image, place, cell(each["label"]), each["score"], ""])

    def end(self) -> None:
        """Write nothing more."""


class _JsonLines:
    """Print one JSON document per image, each on its own line."""

    def add(self, rows: Sequence[Row]) -> None:
        """Print a batch."""
        for row in rows:
            print(json.dumps(row))

    def end(self) -> None:
        """Print nothing more."""


class _Json:
    """Print a single JSON document at the end."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def add(self, rows: Sequence[Row]) -> None:
        """Keep a batch."""
        self.rows += rows

    def end(self) -> None:
        """Print the document."""
        print(json.dumps(self.rows, indent=2))


_PRINTERS: dict[str, type[_Text | _Csv | _JsonLines | _Json]] = {
    "text": _Text, "csv": _Csv, "jsonl": _JsonLines, "json": _Json,
}  # fmt: skip

"""``vitft predict``: labels and probabilities of images, as a table, JSON, JSON lines or CSV."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import typer

from vitft.cli.flags import (
    BatchSize,
    Debug,
    Device,
    ImageSize,
    ModelRevision,
    Precision,
    ResizeMethod,
    expand_images,
    one_size,
)


def predict(
    model: Annotated[str, typer.Argument(help="Run directory, model folder or Hub id.", metavar="MODEL")],
    images: Annotated[list[str], typer.Argument(help="Image files, folders or globs.", metavar="IMAGES")],
    top_k: Annotated[int, typer.Option("--top-k", min=1, metavar="N", help="Labels per image.")] = 5,
    model_revision: ModelRevision = None,
    image_size: ImageSize = None,
    method: ResizeMethod = None,
    batch_size: BatchSize = None,
    device: Device = None,
    precision: Precision = None,
    format: Annotated[
        Literal["text", "json", "jsonl", "csv"], typer.Option("--format", help="How predictions are printed.")
    ] = "text",
    debug: Debug = False,
) -> int:
    """Print the most probable labels of images.

    An image that cannot be read is reported in its place. Exit code 0: every image has predictions;
    1: some have none.
    """
    paths = list(expand_images(images))

    from vitft import tasks

    rows = tasks.predict(
        model,
        paths,
        top_k=top_k,
        batch_size=batch_size,
        device=device or "auto",
        precision=precision or "auto",
        image_size=one_size(image_size),
        method=method or "bicubic",
        revision=model_revision,
    )
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


def _table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield one line per image: its path, then label and score of each prediction, in columns."""
    cells = [[f"{each['label']} {each['score']:.4f}" for each in row.get("predictions", ())] for row in rows]
    widths = [max(map(len, column)) for column in zip(*filter(None, cells), strict=True)]
    name_width = max((len(str(row["image"])) for row in rows), default=0)
    for row, columns in zip(rows, cells, strict=True):
        said = f"error: {row['error']}" if "error" in row else "  ".join(map(str.ljust, columns, widths))
        yield f"{row['image']!s:{name_width}}  {said}".rstrip()


def _write_csv(rows: Sequence[Mapping[str, Any]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["image", "rank", "label", "score", "error"])
    for row in rows:
        if "error" in row:
            writer.writerow([row["image"], "", "", "", row["error"]])
        for place, each in enumerate(row.get("predictions", ()), start=1):
            writer.writerow([row["image"], place, each["label"], each["score"], ""])

"""``vitft inspect``: pictures of what a model learnt."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from vitft.cli.flags import (
    BadImages,
    Dataset,
    DatasetRevision,
    Debug,
    Device,
    ImageSize,
    ModelRevision,
    ResizeMethod,
    Split,
    expand_images,
    one_size,
)
from vitft.outside import shown


def inspect(
    model: Annotated[str, typer.Argument(help="Run directory, model folder or Hub id.", metavar="MODEL")],
    images: Annotated[
        list[str] | None, typer.Argument(help="Image files, folders or globs.", metavar="[IMAGES]")
    ] = None,
    dataset: Dataset = None,
    model_revision: ModelRevision = None,
    dataset_revision: DatasetRevision = None,
    split: Split = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", help="Folder to be made [default: pictures-MODEL]."),
    ] = None,
    only: Annotated[
        str | None, typer.Option("--only", metavar="KIND,...", help="Kinds of pictures, with commas between them.")
    ] = None,
    target_class: Annotated[
        str | None,
        typer.Option("--class", metavar="CLASS", help="Name or number of a class: draws which patches speak for it."),
    ] = None,
    num_images: Annotated[
        int | None,
        typer.Option("--num-images", min=1, metavar="N", help="Images at most [default: all files, 128 of a dataset]."),
    ] = None,
    show: Annotated[int, typer.Option("--show", min=1, metavar="N", help="Images that are shown one by one.")] = 4,
    image_size: ImageSize = None,
    method: ResizeMethod = None,
    bad_images: BadImages = None,
    device: Device = None,
    format: Annotated[
        Literal["png", "svg", "json"],
        typer.Option("--format", help="Of the figures; json prints the numbers, and draws nothing."),
    ] = "png",
    debug: Debug = False,
) -> int:
    """Draw what a model learnt, as the ViT paper did: filters, positions, attention.

    Kinds: filters, positions, distance, entropy, sinks, rollout, heads, relevance, tokens, neighbours. Filters and
    positions need no images, neighbours need --dataset. DIR gets a figure of each, the numbers (numbers.json,
    distance.csv) and one page with all of it (index.html).
    """
    paths = list(expand_images(images or ()))
    size = one_size(image_size)

    from vitft import tasks
    from vitft.recipe.keys import DataRecipe

    result = tasks.inspect(
        model,
        paths,
        dataset=DataRecipe(dataset=dataset, revision=dataset_revision) if dataset else None,
        split=split,
        only=[kind.strip() for kind in only.split(",") if kind.strip()] if only is not None else (),
        num_images=num_images,
        show=show,
        target_class=target_class,
        out=out,
        format=format,
        image_size=size,
        method=method or "bicubic",
        bad_images=bad_images or "stop",
        device=device or "auto",
        revision=model_revision,
    )
    for note in result.notes:
        print(shown(note), file=sys.stderr)
    print(json.dumps(result.numbers) if format == "json" else shown(result))
    return 0

"""``vitft inspect``: draw what a model learnt."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from vitft.cli.images import expand_images
from vitft.cli.options import Debug, Model, Split, check_one_size
from vitft.cli.recipe_flags import Changes, recipe_flags
from vitft.outside import shown
from vitft.recipe.choices import PictureFormat


@recipe_flags(
    "--dataset", "--dataset-revision", "--bad-images", "--model-revision", "--image-size", "--method", "--device"
)  # fmt: skip
def inspect(
    model: Model,
    images: Annotated[
        list[str] | None, typer.Argument(help="Image files, folders or globs.", metavar="[IMAGES]")
    ] = None,
    *,
    changes: Changes,
    split: Split = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", help="New folder; by default named after the model."),
    ] = None,
    only: Annotated[
        str | None, typer.Option("--only", metavar="KIND,...", help="Kinds of pictures, separated by commas.")
    ] = None,
    target_class: Annotated[
        str | None,
        typer.Option("--class", metavar="CLASS", help="Name or number of a class: draw which patches speak for it."),
    ] = None,
    num_images: Annotated[
        int | None,
        typer.Option(
            "--num-images",
            min=1,
            metavar="N",
            help="At most this many images; when not given all files, or a sample of the dataset.",
        ),
    ] = None,
    show: Annotated[int, typer.Option("--show", min=1, metavar="N", help="Images to show one by one.")] = 4,
    format: Annotated[
        PictureFormat,
        typer.Option("--format", help="Format of the figures; json prints the numbers and draws nothing."),
    ] = "png",
    debug: Debug = False,
) -> int:
    """Draw what a model learnt, as the ViT paper did: filters, positions, attention.

    Kinds: filters, positions, distance, entropy, sinks, rollout, heads, relevance, tokens, neighbours. Filters and
    positions need no images, neighbours need --dataset. DIR gets a figure of each, the numbers (numbers.json,
    distance.csv) and one page with all of it (index.html).
    """
    paths = list(expand_images(images or ()))
    check_one_size(changes)

    from vitft import tasks
    from vitft.recipe.recipe import Recipe

    recipe = Recipe.load(None, changes)

    result = tasks.inspect(
        model,
        paths,
        dataset=recipe.data if recipe.data.dataset else None,
        split=split,
        only=[kind.strip() for kind in only.split(",") if kind.strip()] if only is not None else (),
        num_images=num_images,
        show=show,
        target_class=target_class,
        out=out,
        format=format,
        image_size=recipe.model.image_size,
        method=recipe.model.resize_method,
        bad_images=recipe.data.bad_images,
        device=recipe.train.device,
        revision=recipe.model.revision,
    )
    for note in result.notes:
        print(shown(note), file=sys.stderr)
    print(json.dumps(result.numbers) if format == "json" else shown(result))
    return 0

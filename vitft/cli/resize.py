"""``vitft resize``: write a checkpoint at another size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from vitft.cli.options import Debug, Format, Model, check_one_size
from vitft.cli.recipe_flags import Changes, recipe_flags
from vitft.errors import UsageError
from vitft.outside import shown


@recipe_flags("--image-size", "--method", "--model-revision")
def resize(
    model: Model,
    out: Annotated[Path, typer.Argument(help="New folder for the checkpoint.", metavar="OUT")],
    changes: Changes,
    patch_size: Annotated[
        int | None, typer.Option("--patch-size", min=1, metavar="N", help="Side of a patch in pixels.")
    ] = None,
    window_size: Annotated[
        int | None,
        typer.Option("--window-size", min=1, metavar="N", help="Side of Swin's attention windows in patches."),
    ] = None,
    format: Format = "text",
    debug: Debug = False,
) -> int:
    """Write a checkpoint at another resolution, which plain transformers loads and runs.

    Position tables are resampled, class tokens stay the same, and config.json and the image processor are updated.
    Methods: bicubic (antialiased), bicubic-plain (as transformers at run time), bilinear, corners (as the ViT
    paper's code), geometric (BEiT's, for tables of offsets). The patch size is changed by pseudo-inverse
    (FlexiViT). OUT/resize.json records what was done.
    """
    check_one_size(changes)

    from vitft import tasks
    from vitft.recipe.recipe import Recipe

    recipe = Recipe.load(None, changes).model
    if recipe.image_size is None and patch_size is None and window_size is None:
        raise UsageError(
            "nothing to change was given",
            allowed="--image-size, --patch-size or --window-size",
            hint=f"vitft resize {model} {out} --image-size 384",
        )
    result = tasks.resize(
        model,
        out,
        image_size=recipe.image_size,
        patch_size=patch_size,
        window_size=window_size,
        method=recipe.resize_method,
        revision=recipe.revision,
    )
    print(json.dumps({"folder": str(out), **result.record}, indent=2) if format == "json" else shown(result))
    return 0

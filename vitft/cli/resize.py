"""``vitft resize``: a checkpoint at another size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from vitft.cli.flags import Debug, Format, ImageSize, ModelRevision, ResizeMethod, one_size
from vitft.errors import UsageError
from vitft.outside import shown


def resize(
    model: Annotated[str, typer.Argument(help="Run directory, model folder or Hub id.", metavar="MODEL")],
    out: Annotated[Path, typer.Argument(help="Folder to be made.", metavar="OUT")],
    image_size: ImageSize = None,
    patch_size: Annotated[
        int | None, typer.Option("--patch-size", min=1, metavar="N", help="Side of a patch in pixels.")
    ] = None,
    window_size: Annotated[
        int | None,
        typer.Option("--window-size", min=1, metavar="N", help="Side of Swin's attention windows in patches."),
    ] = None,
    method: ResizeMethod = None,
    model_revision: ModelRevision = None,
    format: Format = "text",
    debug: Debug = False,
) -> int:
    """Write a checkpoint at another resolution, which plain transformers loads and runs.

    Position tables are resampled, class tokens stay; config.json and the image processor follow. Methods:
    bicubic (antialiased), bicubic-plain (as transformers at run time), bilinear, corners (as the ViT paper's
    code), geometric (BEiT's, for tables of offsets). A patch size changes by pseudo-inverse (FlexiViT).
    What was done is written to OUT/resize.json.
    """
    if image_size is None and patch_size is None and window_size is None:
        raise UsageError(
            "nothing to change was given",
            allowed="--image-size, --patch-size or --window-size",
            hint=f"vitft resize {model} {out} --image-size 384",
        )
    size = one_size(image_size)

    from vitft import tasks

    result = tasks.resize(
        model,
        out,
        image_size=size,
        patch_size=patch_size,
        window_size=window_size,
        method=method or "bicubic",
        revision=model_revision,
    )
    print(json.dumps({"folder": str(out), **result.record}, indent=2) if format == "json" else shown(result))
    return 0

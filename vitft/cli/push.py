"""``vitft push``: publish a run."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from vitft.cli.options import Debug, Format
from vitft.cli.recipe_flags import Changes, recipe_flags
from vitft.outside import shown
from vitft.recipe.flags import OF_PUSH


@recipe_flags(*OF_PUSH)
def push(
    run: Annotated[Path, typer.Argument(help="Run directory.", metavar="RUN")],
    repo: Annotated[
        str | None,
        typer.Argument(
            help="OWNER/NAME, or NAME in your account; by default from the recipe or folder.", metavar="[REPO]"
        ),
    ] = None,
    *,
    changes: Changes,
    training: Annotated[
        bool, typer.Option("--training", help="Also push the newest resumable checkpoint, below training/.")
    ] = False,
    format: Format = "text",
    debug: Debug = False,
) -> int:
    """Publish a finished run on the Hub, or finish an interrupted push.

    One commit contains the model, its card, recipe.yaml, results.json, environment.json and the figures. Local paths
    are shortened, and a file that contains your token, your home folder or this machine's name stops the push.
    """
    from vitft import tasks

    options: dict[str, Any] = {key.removeprefix("hub."): value for key, value in changes.items()}
    published = tasks.push(run, repo, training=training, **options)
    print(json.dumps(asdict(published), indent=2) if format == "json" else shown(f"published: {published.url}"))
    return 0

"""``vitft push``: publish a run."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from vitft.cli.flags import CreatePr, Debug, Force, Format, HubRevision, Private
from vitft.outside import shown


def push(
    run: Annotated[Path, typer.Argument(help="Run directory.", metavar="RUN")],
    repo: Annotated[
        str | None,
        typer.Argument(
            help="OWNER/NAME, or NAME of your own; by default as the run's recipe or folder says.", metavar="[REPO]"
        ),
    ] = None,
    private: Private = None,
    hub_revision: HubRevision = None,
    create_pr: CreatePr = None,
    license: Annotated[
        str | None,
        typer.Option(
            "--license", metavar="NAME", help="Licence of the model, such as apache-2.0; else the base model's."
        ),
    ] = None,
    training: Annotated[
        bool, typer.Option("--training", help="Also the newest resumable checkpoint, below training/.")
    ] = False,
    force: Force = None,
    format: Format = "text",
    debug: Debug = False,
) -> int:
    """Publish a finished run on the Hub, or finish a publication that broke off.

    One commit holds the model, its card, recipe.yaml, results.json, environment.json and the figures. Local paths
    are shortened, and a file that holds your token, your home folder or this machine's name stops the push.
    """
    from vitft import tasks

    published = tasks.push(
        run,
        repo,
        private=bool(private),
        revision=hub_revision,
        create_pr=bool(create_pr),
        license=license,
        force=bool(force),
        training=training,
    )
    print(json.dumps(asdict(published), indent=2) if format == "json" else shown(f"published: {published.url}"))
    return 0

"""``vitft runs``: list the runs in a folder and free disk space."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from vitft.cli.command import CONTEXT, Command
from vitft.cli.options import Debug, Format
from vitft.errors import UsageError
from vitft.outside import shown

app = typer.Typer(
    invoke_without_command=True,
    rich_markup_mode=None,
    context_settings=CONTEXT,
)

Folder = Annotated[str, typer.Argument(help="Folder that holds the runs.", metavar="[FOLDER]")]


@app.callback()
def runs(ctx: typer.Context) -> None:
    """List runs, and free disk space that they no longer need. Without a command: list the runs in runs/."""
    if ctx.invoked_subcommand is None:
        list_runs()


@app.command("ls", cls=Command, context_settings=CONTEXT)
def list_runs(folder: Folder = "runs", format: Format = "text", debug: Debug = False) -> int:
    """List the runs in a folder, the newest first: state, data, model, score, time, size.

    Runs that can be resumed are listed with the command that does it.
    """
    from vitft.report import runs

    table = runs.list_runs(folder)
    print(json.dumps([each.plain() for each in table.runs], indent=2) if format == "json" else shown(table))
    return 0


@app.command("clean", cls=Command, context_settings=CONTEXT)
def clean(
    folder: Folder = "runs",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove them; without this they are only listed.")] = False,
    debug: Debug = False,
) -> int:
    """Remove the checkpoints of finished runs: models, scores and pictures stay."""
    from vitft.quantities import size_text
    from vitft.report import runs

    found = [each for each in runs.list_runs(folder).runs if each.state == "done" and each.checkpoint_bytes]
    if not found:
        print(f"no finished run in {folder} has checkpoints", file=sys.stderr)
        return 0
    for each in found:
        print(shown(f"{each.folder.name}  {size_text(each.checkpoint_bytes)} of checkpoints"))
        if yes:
            try:
                runs.clean(each)
            except OSError as error:
                raise UsageError(f"cannot remove the checkpoints of {each.folder}: {error}") from error
    total = size_text(sum(each.checkpoint_bytes for each in found))
    print(f"{total} freed" if yes else f"{total} in all; to remove them: vitft runs clean {folder} --yes")
    return 0

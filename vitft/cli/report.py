"""``vitft report``: the page of a run, or one that compares several."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from vitft.cli.options import Debug, Format
from vitft.outside import shown


def report(
    runs: Annotated[
        list[Path], typer.Argument(help="Run directories, or folders of vitft evaluate -o.", metavar="RUN...")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="File to write: report.html in the run; for several runs comparison.html here.",
        ),
    ] = None,
    format: Format = "text",
    debug: Debug = False,
) -> int:
    """Make the page of a run again, or one page that compares several runs.

    The page is one file that needs no network: scores with intervals, learning curves, confusions, the surest
    mistakes, calibration. Several runs: what differs in their recipes, scores side by side, and for each two of them
    whether the difference on the same images is real.
    """
    from vitft import tasks

    result = tasks.write_report(runs, output)
    print(json.dumps(result.plain(), indent=2) if format == "json" else shown(result))
    return 0

"""The page of a run, and the page that compares several."""

from __future__ import annotations

from pathlib import Path

from vitft.errors import one_line
from vitft.processes import signals
from vitft.run import Run

PAGE = "report.html"


def report_run(run: Run) -> None:
    """Write the page of a run that is being finished; whatever fails there costs the page alone."""
    if not run.is_main:
        return
    try:
        _write_run_page(run, run.folder / PAGE)
    except Exception as error:  # whatever it is: model and results are written
        run.note(
            f"no report was written, and nothing else is lost: {type(error).__name__}: {one_line(error)}; to make it: "
            f"vitft report {run.folder.name}"
        )
    signals.check()


def _write_run_page(run: Run, path: Path) -> None:
    from vitft.report.page import run_page, write_page
    from vitft.report.record import read_record

    write_page(path, run_page(read_record(run)))

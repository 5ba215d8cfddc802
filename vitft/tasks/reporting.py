"""The page of a run, and the page that compares several; no torch, from the files of the runs alone."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitft.disk import write_whole
from vitft.errors import UsageError, one_line
from vitft.files import at_home, exists, is_folder
from vitft.hub.bundle import CONFUSION
from vitft.notebook import ShownAsText
from vitft.processes import signals
from vitft.run import Run

if TYPE_CHECKING:
    from vitft.report.comparison import Comparison
    from vitft.report.record import Record

PAGE, COMPARISON = "report.html", "comparison.html"


@dataclass(frozen=True)
class ReportResult(ShownAsText):
    """A page that was written.

    Attributes:
        path: where it is.
        comparison: what it says of several runs; None for the page of one.
    """

    path: Path
    comparison: Comparison | None = None

    def __str__(self) -> str:
        said = [str(self.comparison), ""] if self.comparison else []
        return "\n".join([*said, f"report: {self.path}"])

    def plain(self) -> dict[str, Any]:
        """Return the same as plain values."""
        return {"report": str(self.path), **(self.comparison.plain() if self.comparison else {})}


def write_report(runs: str | Path | Sequence[str | Path], output: str | Path | None = None) -> ReportResult:
    """Write the page of a run or of an evaluation, or one page that compares several.

    Args:
        runs: run directories, finished or not, and folders that ``vitft evaluate -o`` wrote.
        output: file to write; ``report.html`` in the folder when not given, and ``comparison.html`` here for several. A
            file that is not a page of ours stays: the name counts up.

    Raises:
        UsageError: if a folder is no run, or the page cannot be written.
    """
    from vitft.report.comparison import compare, comparison_page
    from vitft.report.page import run_page

    named = [runs] if isinstance(runs, str | Path) else list(runs)
    if not named:
        raise UsageError("no run was given", hint="vitft report runs/NAME")
    folders = {at_home(each).resolve(): each for each in named}
    records = [_record(each) for each in folders.values()]
    default = records[0].folder / PAGE if len(records) == 1 else Path(COMPARISON)
    path = free_path(at_home(output) if output is not None else default)
    comparison = compare(records) if len(records) > 1 else None
    page = comparison_page(comparison) if comparison else run_page(records[0])
    keep_page(path, page, is_default=output is None)
    return ReportResult(path, comparison)


def _record(named: str | Path) -> Record:
    from vitft.report.record import is_evaluation, read_evaluation, read_record

    folder = at_home(named)
    if is_evaluation(folder):
        return read_evaluation(folder)
    return read_record(Run.open(folder, "vitft report", lambda _: True))


def report_run(run: Run) -> None:
    """Write the page of a run that is being finished; whatever fails there costs the page alone."""
    if not run.is_main:
        return
    try:
        from vitft.report.page import run_page, write_page
        from vitft.report.record import read_record

        write_page(run.folder / PAGE, run_page(read_record(run)))
    except Exception as error:  # whatever it is: model and results are written
        run.note(
            f"no report was written, and nothing else is lost: {type(error).__name__}: {one_line(error)}; to make it: "
            f"vitft report {shlex.quote(str(run.folder))}"
        )
    signals.check()


def draw_confusions(run: Run) -> None:
    """Draw the confusion matrix for the model card; whatever fails costs this figure alone."""
    results = run.results() or {}
    scores = next((results[name] for name in ("test", "validation") if "confusion" in results.get(name, {})), None)
    if scores is None:  # nothing was scored, or the classes are too many
        return
    try:
        import numpy as np

        from vitft.report.confusion import confusion_png

        write_whole(run.model_folder / CONFUSION, confusion_png(np.array(scores["confusion"]), results["classes"]))
    except Exception as error:  # the model and its scores are written
        run.note(f"the confusion matrix was not drawn: {type(error).__name__}: {one_line(error)}")
    signals.check()


def free_path(path: Path) -> Path:
    """Return a path where a page can be written: a file that is not ours is left, and the name counts up."""
    from vitft.report.page import is_ours

    if is_folder(path):
        raise UsageError(f"{path} is a folder", hint=f"-o {path / COMPARISON}")
    if not is_folder(path.parent):
        raise UsageError(f"the folder {path.parent} does not exist", hint=f"mkdir -p {shlex.quote(str(path.parent))}")
    number, free = 2, path
    while exists(free) and not is_ours(free):
        free, number = path.with_stem(f"{path.stem}-{number}"), number + 1
    return free


def keep_page(path: Path, page: str, *, is_default: bool) -> None:
    """Write a page; a UsageError if it cannot be written, with a hint that suits whether the path was given."""
    from vitft.report.page import write_page

    try:
        write_page(path, page)
    except OSError as error:
        hint = "make room, or -o FILE elsewhere" if is_default else "make room, or another -o FILE"
        raise UsageError(f"cannot write {path}: {error.strerror or error}", hint=hint) from error

"""List the runs in a folder: their state, scores and disk space."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vitft.disk import remove_whole, size_of
from vitft.files import at_home
from vitft.names import last_part
from vitft.notebook import ShownAsText
from vitft.outside import printable
from vitft.ownership import is_taken
from vitft.quantities import duration_text, size_text
from vitft.run import Run, runs_in

State = Literal["done", "running", "failed", "stopped", "begun"]


@dataclass(frozen=True)
class RunSummary:
    """A run directory at a glance.

    Attributes:
        folder: the run directory.
        state: ``done``, ``running``, ``failed``, ``stopped`` (with a checkpoint, or before its last file was written)
            or ``begun``.
        failure: why it failed; empty in any other state.
        dataset, model: names of the dataset and of the pretrained checkpoint.
        split, top1: the split that was scored (test if there is one) and its top-1; empty and None without a score.
        interval: of top-1, 95 %; None in results of older versions.
        step: step of the newest checkpoint, or the number of steps if training is complete.
        seconds: training time; None until training is complete.
        num_bytes, checkpoint_bytes: disk space of the whole run and of its checkpoints.
    """

    folder: Path
    state: State
    failure: str
    dataset: str
    model: str
    split: str
    top1: float | None
    interval: list[float] | None
    step: int | None
    seconds: float | None
    num_bytes: int
    checkpoint_bytes: int

    @property
    def next_command(self) -> str:
        """The command that resumes the run; empty if it is done or running."""
        return Run(self.folder).resume_command if self.state in ("failed", "stopped", "begun") else ""

    def plain(self) -> dict[str, Any]:
        """Return the summary as plain values."""
        return {**vars(self), "folder": str(self.folder), "next": self.next_command}


@dataclass(frozen=True)
class RunTable(ShownAsText):
    """The runs of a folder, the newest first."""

    folder: Path
    runs: list[RunSummary]

    def __str__(self) -> str:
        if not self.runs:
            return f"there are no runs in {self.folder}"
        rows: list[tuple[str, ...]] = [("run", "state", "dataset", "model", "top-1", "time", "size")]
        for each in self.runs:
            score = "-" if each.top1 is None else f"{100 * each.top1:.2f}% {each.split}"
            score += (
                "" if each.interval is None else " ({:.1f} to {:.1f})".format(*(100 * end for end in each.interval))
            )
            time = "-" if each.seconds is None else duration_text(each.seconds)
            about = [printable(last_part(text) if "/" in text else text) for text in (each.dataset, each.model)]
            rows.append((each.folder.name, each.state, *about, score, time, size_text(each.num_bytes)))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        failures = [f"  {each.folder.name}: {printable(each.failure)}" for each in self.runs if each.failure]
        commands = [f"  {each.folder.name}: {each.next_command}" for each in self.runs if each.next_command]
        lines += ["", "failed:", *failures] if failures else []
        lines += ["", "to resume:", *commands] if commands else []
        return "\n".join(lines)


def list_runs(folder: str | Path) -> RunTable:
    """Return a summary of every run in a folder; values that cannot be read are left empty."""
    folder = at_home(folder)
    return RunTable(folder, [_summary(run) for run in runs_in(folder)])


def clean(summary: RunSummary) -> None:
    """Remove the checkpoints of a finished run; everything else stays."""
    assert summary.state == "done"
    remove_whole(summary.folder / "checkpoints")


def _summary(folder: Path) -> RunSummary:
    run = Run(folder)
    results = run.results() or {}
    environment = run.read_json("environment.json") or {}
    split = next((name for name in ("test", "validation") if isinstance(results.get(name), dict)), "")
    newest = run.newest_checkpoint()
    training = results.get("train", {})
    state = _state(run)
    return RunSummary(
        folder,
        state,
        run.failure() if state == "failed" else "",
        _name_of(environment.get("dataset")),
        _name_of(environment.get("model")),
        split,
        results[split].get("top1") if split else None,
        _interval(results[split].get("intervals")) if split else None,
        training.get("steps") or (int(newest.name.removeprefix("step-")) if newest else None),
        training.get("seconds"),
        size_of(folder),
        size_of(run.checkpoints),
    )


def _state(run: Run) -> State:
    if is_taken(run.folder):
        return "running"
    if run.is_finished:
        return "done"
    if run.failure():
        return "failed"
    return "stopped" if run.newest_checkpoint() or run.is_scored else "begun"


def _interval(intervals: Any) -> list[float] | None:
    found = intervals.get("top1") if isinstance(intervals, dict) else None
    is_whole = isinstance(found, list) and len(found) == 2 and all(isinstance(end, int | float) for end in found)
    return found if is_whole else None


def _name_of(thing: Any) -> str:
    return str(thing.get("id", "")) if isinstance(thing, dict) else ""

"""The run directory: recipe, environment, metrics stream, results.

Only the main process writes; in the others, these methods do nothing. A JSON file appears complete or not at all, and
``metrics.jsonl`` is cut back to the checkpoint's length when a run resumes. Damage from a power cut or another program
is noticed when the files are read.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vitft.disk import sweep, write_whole
from vitft.errors import TrainError, UsageError, did_you_mean, shorten
from vitft.files import at_home, exists, is_file, is_folder
from vitft.outside import shown
from vitft.ownership import is_taken
from vitft.recipe.recipe import Recipe
from vitft.status import Status

_LONGEST_LINE = 64 * 1024  # bytes, of an event that says why a run failed


class Run:
    """One execution and its folder."""

    def __init__(self, folder: Path, *, is_main: bool = True, flags: tuple[str, ...] = ()) -> None:
        self.folder, self.is_main = folder, is_main
        self._flags = flags  # needed to resume it
        self.num_processes: int | None = None  # if only as many can resume it
        self.status = Status(enabled=is_main)

    @staticmethod
    def free_name(recipe: Recipe, default_name: str) -> str:
        """Return the name that a new run would get now."""
        parent = at_home(recipe.run.output_dir)
        names = (default_name if number == 1 else f"{default_name}-{number}" for number in range(1, 10_000))
        return recipe.run.name or next((name for name in names if not exists(parent / name)), default_name)

    @classmethod
    def require_free(cls, recipe: Recipe) -> None:
        """Raise a UsageError if the name that a new run is to have is in use."""
        if recipe.run.name is None or not exists(folder := at_home(recipe.run.output_dir) / recipe.run.name):
            return
        there = cls(folder)
        if there.is_scored:
            hint = f"vitft finetune --from {folder} trains its model further; --name {cls._another(folder)} starts anew"
        elif is_file(folder / "recipe.yaml"):
            hint = f"{there.resume_command} continues it; --name {cls._another(folder)} starts anew"
        else:
            hint = f"--name {cls._another(folder)}"
        raise UsageError(
            f"{folder} already exists and will not be overwritten",
            allowed="a --name that is not in use, or none (it counts up)",
            hint=hint,
        )

    @staticmethod
    def _another(folder: Path) -> str:
        """Return a name beside a folder's that is not in use."""
        return next(name for n in range(2, 10_000) if not exists(folder.with_name(name := f"{folder.name}-{n}")))

    @classmethod
    def create(cls, recipe: Recipe, default_name: str) -> Run:
        """Make a new run directory; existing folders are never touched.

        Raises:
            UsageError: if ``run.name`` is in use. Without a name, ``default_name`` counts up: -2, -3, ...
        """
        parent = at_home(recipe.run.output_dir)
        name = recipe.run.name or default_name
        cls.require_free(recipe)
        try:
            parent.mkdir(parents=True, exist_ok=True)
            for number in range(1, 10_000):
                folder = parent / (name if number == 1 else f"{name}-{number}")
                try:
                    folder.mkdir()
                except FileExistsError:
                    cls.require_free(recipe)
                    continue
                run = cls(folder)
                try:
                    run.write_text("recipe.yaml", recipe.dump())
                except TrainError as error:
                    folder.rmdir()
                    raise TrainError(error.wrong, hint="make room, or use --output-dir FOLDER") from error
                return run
        except OSError as error:
            raise TrainError(f"cannot make a run directory in {parent}: {error}", hint="--output-dir FOLDER") from error
        raise UsageError(f"{parent} already has ten thousand runs called {name}", hint="--name ANOTHER")

    @classmethod
    def open(
        cls, folder: str | Path, command: str = "vitft finetune --resume", suits: Callable[[Run], bool] | None = None
    ) -> Run:
        """Open an existing run.

        Args:
            folder: its directory.
            command: the command being run, for the hint.
            suits: whether the command can use a run, for the error; by default whether the run can be resumed.

        Raises:
            UsageError: if the folder is not a run directory, naming those beside it that suit.
        """
        folder = at_home(folder)
        if not is_file(folder / "recipe.yaml"):
            what = "is not a run directory: it has no recipe.yaml" if is_folder(folder) else "does not exist"
            allowed, guess = suitable_runs(folder, suits or Run.can_go_on)
            raise UsageError(f"{folder} {what}", allowed=allowed, hint=f"{command} {guess or 'runs/NAME'}")
        return cls(folder)

    # --- files ---------------------------------------------------------------------------------------------

    @property
    def model_folder(self) -> Path:
        """The folder of the trained model, which transformers can load."""
        return self.folder / "model"

    @property
    def adapter_folder(self) -> Path:
        """The folder of a low-rank adapter for peft; it exists only if ``model.adapter`` asks for it."""
        return self.folder / "adapter"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.folder / "checkpoints"

    @property
    def best_folder(self) -> Path:
        """The folder of the best model so far; it exists only if ``hub.every`` is ``best``."""
        return self.folder / "best"

    @property
    def resume_command(self) -> str:
        """The command that resumes this run."""
        many = [] if self.num_processes is None else ["--num-processes", str(self.num_processes)]
        return shlex.join(["vitft", "finetune", "--resume", str(self.folder), *many, *self._flags])

    def results(self) -> dict[str, Any] | None:
        """Return the final scores; None if they are missing or unreadable."""
        found = self.read_json("results.json")
        return found if found and {"train", "classes"} <= found.keys() else None

    @property
    def is_scored(self) -> bool:
        """Whether the model and its final scores exist; everything else can be made without training again."""
        return (self.model_folder / "config.json").is_file() and self.results() is not None

    @property
    def is_finished(self) -> bool:
        """Whether the run is complete; the model card is written last."""
        return self.is_scored and (self.model_folder / "README.md").is_file()

    def has_lost_results(self) -> bool:
        """Whether a finished run's scores cannot be read, and no checkpoint is left to make them again."""
        has_card = (self.model_folder / "README.md").is_file()
        return has_card and self.results() is None and self.newest_checkpoint() is None

    def can_go_on(self) -> bool:
        """Whether this run can be resumed: it is not finished, and no process is working on it."""
        return not (self.is_finished or self.has_lost_results() or is_taken(self.folder))

    def follow_up(self) -> dict[str, object]:
        """Return the recipe changes for a new run that continues training this run's model.

        Raises:
            UsageError: if there is no model yet.
        """
        if not self.is_scored:
            raise UsageError(f"the run {self.folder} is not finished, so it has no model yet", hint=self.resume_command)
        of_another_checkpoint = ("revision", "image_size", "patch_size", "window_size", "position.kind")
        return {
            "model.checkpoint": str(self.model_folder),
            "model.init": "pretrained",
            **{f"model.{key}": None for key in of_another_checkpoint},
            "run.name": self._another(self.folder),
        }

    def newest_checkpoint(self) -> Path | None:
        """Return the newest complete checkpoint, None if there is none."""
        return next(reversed(complete_checkpoints(self.checkpoints)), None)

    def sweep(self) -> list[str]:
        """Remove half-written files of a killed process; return their names."""
        folders = (self.folder, self.checkpoints, self.model_folder)
        return [name for folder in folders for name in sweep(folder)] if self.is_main else []

    def discard(self) -> None:
        """Remove a run that took no step and has only its recipe."""
        if self.is_main:
            shutil.rmtree(self.folder, ignore_errors=True)

    def read_json(self, name: str) -> dict[str, Any] | None:
        """Return the content of a JSON file of the run; None if it is missing, empty or broken (see :meth:`broken`)."""
        try:
            found = json.loads((self.folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    def broken(self) -> list[str]:
        """Return a line for each JSON file that exists but cannot be read."""
        names = ("results.json", "environment.json", "published.json")
        return [
            f"{name} is {'broken' if (self.folder / name).stat().st_size else 'empty'}"
            for name in names
            if (self.folder / name).is_file() and self.read_json(name) is None
        ]

    def write_text(self, name: str, text: str) -> None:
        """Write a file completely or not at all, even if the power fails."""
        if not self.is_main:
            return
        path = self.folder / name
        try:
            write_whole(path, text.encode())
        except OSError as error:
            raise TrainError(
                f"cannot write {path}: {error}",
                hint=f"make room, then: {self.resume_command}",
            ) from error

    def write_json(self, name: str, content: object) -> None:
        """Write a JSON file, completely or not at all."""
        self.write_text(name, json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    def log(self, event: str, **values: object) -> None:
        """Append one line to ``metrics.jsonl``."""
        if not self.is_main:
            return
        try:
            with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps({"event": event, **values}, ensure_ascii=False) + "\n")
        except OSError as error:
            raise TrainError(
                f"cannot write {self.folder / 'metrics.jsonl'}: {error}",
                hint=f"make room, then: {self.resume_command}",
            ) from error

    def failure(self) -> str:
        """Return why the last attempt failed; empty if it did not, or was killed before it could say so."""
        last = _event(_last_line(self.folder / "metrics.jsonl"))
        return str(last.get("text")) if last is not None and last["event"] == "failed" else ""

    def metrics_length(self) -> int:
        """Return the size of ``metrics.jsonl`` in bytes."""
        path = self.folder / "metrics.jsonl"
        return path.stat().st_size if path.is_file() else 0

    def events(self) -> list[dict[str, Any]]:
        """Return the intact lines of ``metrics.jsonl``."""
        return [event for _, event in read_events(self.folder / "metrics.jsonl") if event is not None]

    def has_whole_log(self) -> bool:
        """Whether all lines of ``metrics.jsonl`` are intact and the results are among them."""
        lines = [event for _, event in read_events(self.folder / "metrics.jsonl")]
        return None not in lines and any(event is not None and event["event"] == "results" for event in lines)

    def cut_metrics(self, length: int) -> None:
        """Drop broken lines, and everything logged after the checkpoint that the run resumes from."""
        path = self.folder / "metrics.jsonl"
        if not self.is_main:
            return
        there = self.metrics_length()
        if there < length:  # after a power cut, or by another program
            self.say(
                f"  metrics.jsonl is {length - there:,} bytes shorter than the checkpoint says: some steps are missing"
            )
        try:
            if there > length:
                os.truncate(path, length)
            lines = read_events(path)
            if any(event is None for _, event in lines):
                self.write_text(path.name, "".join(line for line, event in lines if event is not None))
                self.say(f"  broken lines removed from metrics.jsonl: {sum(e is None for _, e in lines)}")
        except OSError as error:
            raise TrainError(f"cannot write {path}: {error}", hint=f"make room, then: {self.resume_command}") from error

    def cut_metrics_after(self, event: str) -> bool:
        """Drop everything logged after the last event of a kind; return whether there is such an event."""
        length = last = 0
        for line, found in read_events(self.folder / "metrics.jsonl"):
            length += len(line.encode(errors="surrogateescape"))
            if found is not None and found.get("event") == event:
                last = length
        if last:
            self.cut_metrics(last)
        return last > 0

    def say(self, text: str) -> None:
        """Print a line on the terminal."""
        self.status.say(text)

    def note(self, text: str) -> None:
        """Print a choice with its reason, and record it in the run."""
        text = shown(text)
        self.say(f"  {text}")
        self.log("note", text=text)


def runs_in(folder: Path) -> list[Path]:
    """Return the run directories in a folder, newest first."""
    found = folder.glob("*/recipe.yaml") if is_folder(folder) else ()
    return [path.parent for path in sorted(found, key=lambda path: -path.stat().st_mtime)]


def runs_like(named: str | Path) -> tuple[list[str], str | None]:
    """Return the runs beside what may be a mistyped run, and the one most like it."""
    runs = [str(run) for run in runs_in(at_home(named).parent)]
    return runs, did_you_mean(str(named), runs)


def suitable_runs(named: str | Path, suits: Callable[[Run], bool]) -> tuple[str | None, str | None]:
    """Name the runs that suit beside what may be a mistyped run, or say that none does; and the one most like it."""
    parent = at_home(named).parent
    runs = runs_in(parent)
    suitable = [str(run) for run in runs if suits(Run(run))]
    none = f"none of the runs in {parent} can be used here; vitft runs ls {parent} shows their states" if runs else None
    return shorten(suitable) if suitable else none, did_you_mean(str(named), suitable)


def complete_checkpoints(folder: Path) -> list[Path]:
    """Return the complete checkpoints in a run's ``checkpoints`` folder, newest last."""
    return sorted(path for path in folder.glob("step-*") if (path / "manifest.json").is_file())


def read_events(path: Path) -> list[tuple[str, dict[str, Any] | None]]:
    """Return each line of a ``metrics.jsonl`` with its event, None for a broken line."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        return [(line, _event(line)) for line in file]


def _last_line(path: Path) -> str:
    """Return the end of a file of short lines, from the last line on; a long run's log is not read whole."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _LONGEST_LINE))
        lines = file.read().splitlines(keepends=True)
    return lines[-1].decode(errors="surrogateescape") if lines else ""


def _event(line: str) -> dict[str, Any] | None:
    try:
        line.encode()  # bytes that are not text cannot be written back
        found = json.loads(line) if line.endswith("\n") else None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("event"), str) else None

"""The run directory: recipe, environment, metrics stream, results, and what is said while it runs.

Only the main process writes; the others hold a Run whose methods do nothing. A JSON file appears whole or not at
all, and ``metrics.jsonl`` is cut back to the checkpoint's length when a run resumes. What a power cut or another
program did to these files is noticed when they are read.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from vitft.disk import sweep
from vitft.errors import TrainError, UsageError, did_you_mean
from vitft.files import at_home, exists, is_file, is_folder
from vitft.outside import shown
from vitft.recipe.recipe import Recipe


class Run:
    """One execution and its folder."""

    def __init__(self, folder: Path, *, is_main: bool = True, flags: tuple[str, ...] = ()) -> None:
        self.folder, self.is_main = folder, is_main
        self._flags = flags  # that resuming it needs
        self.status = Status(enabled=is_main)

    @staticmethod
    def free_name(recipe: Recipe, default_name: str) -> str:
        """Return the name that a new run would have now."""
        parent = at_home(recipe.run.output_dir)
        names = (default_name if number == 1 else f"{default_name}-{number}" for number in range(1, 10_000))
        return recipe.run.name or next((name for name in names if not exists(parent / name)), default_name)

    @classmethod
    def create(cls, recipe: Recipe, default_name: str) -> Run:
        """Make a new run directory; nothing that exists is ever touched.

        Raises:
            UsageError: if ``run.name`` is in use. Without a name, ``default_name`` counts up: -2, -3, ...
        """
        parent = at_home(recipe.run.output_dir)
        name = recipe.run.name or default_name
        try:
            parent.mkdir(parents=True, exist_ok=True)
            for number in range(1, 10_000):
                folder = parent / (name if number == 1 else f"{name}-{number}")
                try:
                    folder.mkdir()
                except FileExistsError:
                    if recipe.run.name:
                        raise UsageError(
                            f"the run {folder} exists already and is not overwritten",
                            allowed="a --name that is not in use, or none (it counts up)",
                            hint=f"--name {name}-2, or --resume {folder} to continue it",
                        ) from None
                    continue
                run = cls(folder)
                try:
                    run.write_text("recipe.yaml", recipe.dump())
                except TrainError as error:
                    folder.rmdir()
                    raise TrainError(error.wrong, hint="make room, or --output-dir FOLDER") from error
                return run
        except OSError as error:
            raise TrainError(f"cannot make a run directory in {parent}: {error}", hint="--output-dir FOLDER") from error
        raise UsageError(f"{parent} holds ten thousand runs called {name}", hint="--name ANOTHER")

    @classmethod
    def open(cls, folder: str | Path, command: str = "vitft finetune --resume") -> Run:
        """Open an existing run.

        Args:
            folder: its directory.
            command: that was to work on it, for the hint.

        Raises:
            UsageError: if the folder is no run.
        """
        folder = at_home(folder)
        if not is_file(folder / "recipe.yaml"):
            what = "is no run directory: it has no recipe.yaml" if is_folder(folder) else "does not exist"
            beside = folder.parent.glob("*/recipe.yaml") if is_folder(folder.parent) else ()
            there = sorted(beside, key=lambda path: -path.stat().st_mtime)
            runs = [str(path.parent) for path in there]
            guess = did_you_mean(str(folder), runs) or "runs/NAME"
            raise UsageError(f"{folder} {what}", allowed=", ".join(runs[:8]) or None, hint=f"{command} {guess}")
        return cls(folder)

    # --- files ---------------------------------------------------------------------------------------------

    @property
    def model_folder(self) -> Path:
        """The transformers folder that the run makes."""
        return self.folder / "model"

    @property
    def checkpoints(self) -> Path:
        """The folder of resumable states."""
        return self.folder / "checkpoints"

    @property
    def best_folder(self) -> Path:
        """The transformers folder of the best model so far, which is there while ``hub.every`` is ``best``."""
        return self.folder / "best"

    @property
    def resume_command(self) -> str:
        """What to type to go on with this run."""
        return shlex.join(["vitft", "finetune", "--resume", str(self.folder), *self._flags])

    def results(self) -> dict[str, Any] | None:
        """Return the final scores, None if there are none, or none that can be read."""
        found = self.read_json("results.json")
        return found if found and {"train", "classes"} <= found.keys() else None

    @property
    def is_scored(self) -> bool:
        """Whether the model and its final scores are there, which is all that another run could not make again."""
        return (self.model_folder / "config.json").is_file() and self.results() is not None

    @property
    def is_finished(self) -> bool:
        """Whether everything is there; the model card is written last."""
        return self.is_scored and (self.model_folder / "README.md").is_file()

    def newest_checkpoint(self) -> Path | None:
        """Return the newest complete checkpoint, None if there is none."""
        return next(reversed(complete_checkpoints(self.checkpoints)), None)

    def sweep(self) -> list[str]:
        """Remove what a killed process left of half-made things; return their names."""
        folders = (self.folder, self.checkpoints, self.model_folder)
        return [name for folder in folders for name in sweep(folder)] if self.is_main else []

    def discard(self) -> None:
        """Remove a run that was made for nothing: it holds its recipe, and no step was taken."""
        if self.is_main:
            shutil.rmtree(self.folder, ignore_errors=True)

    def read_json(self, name: str) -> dict[str, Any] | None:
        """Return what a JSON file of the run holds; None if it is missing, empty or broken (:meth:`broken` says so)."""
        try:
            found = json.loads((self.folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    def broken(self) -> list[str]:
        """Return a line for each JSON file that is there and cannot be read."""
        names = ("results.json", "environment.json", "published.json")
        return [
            f"{name} is {'broken' if (self.folder / name).stat().st_size else 'empty'}"
            for name in names
            if (self.folder / name).is_file() and self.read_json(name) is None
        ]

    def write_text(self, name: str, text: str) -> None:
        """Write a file so that it is there whole or not at all, also after a power cut."""
        if not self.is_main:
            return
        path = self.folder / name
        partial = path.with_name(f".{path.name}.partial")
        try:
            with partial.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise TrainError(
                f"cannot write {path}: {error}",
                hint=f"make room, then: {self.resume_command}",
            ) from error

    def write_json(self, name: str, content: object) -> None:
        """Write a JSON file, whole or not at all."""
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

    def metrics_length(self) -> int:
        """Return the bytes written to ``metrics.jsonl`` so far."""
        path = self.folder / "metrics.jsonl"
        return path.stat().st_size if path.is_file() else 0

    def events(self) -> list[dict[str, Any]]:
        """Return the lines of ``metrics.jsonl`` that are whole."""
        return [event for _, event in read_events(self.folder / "metrics.jsonl") if event is not None]

    def has_whole_log(self) -> bool:
        """Whether ``metrics.jsonl`` has nothing but whole lines, the results among them."""
        lines = [event for _, event in read_events(self.folder / "metrics.jsonl")]
        return None not in lines and any(event is not None and event["event"] == "results" for event in lines)

    def cut_metrics(self, length: int) -> None:
        """Forget what was logged after the checkpoint that a resumed run starts from, and lines that are broken."""
        path = self.folder / "metrics.jsonl"
        if not self.is_main:
            return
        there = self.metrics_length()
        if there < length:  # after a power cut, or by another program
            self.say(
                f"  metrics.jsonl lacks {length - there:,} bytes that the checkpoint knows of: steps are missing in it"
            )
        try:
            if there > length:
                os.truncate(path, length)
            lines = read_events(path)
            if any(event is None for _, event in lines):
                self.write_text(path.name, "".join(line for line, event in lines if event is not None))
                self.say(f"  broken lines of metrics.jsonl were taken out: {sum(e is None for _, e in lines)}")
        except OSError as error:
            raise TrainError(f"cannot write {path}: {error}", hint=f"make room, then: {self.resume_command}") from error

    def cut_metrics_after(self, event: str) -> bool:
        """Forget what was logged after the last event of a kind; return whether there is one."""
        length = last = 0
        for line, found in read_events(self.folder / "metrics.jsonl"):
            length += len(line.encode(errors="surrogateescape"))
            if found is not None and found.get("event") == event:
                last = length
        if last:
            self.cut_metrics(last)
        return last > 0

    def say(self, text: str) -> None:
        """Tell the person at the terminal."""
        self.status.say(text)

    def note(self, text: str, about: str | None = None) -> None:
        """Tell the person, and write it into the run: a choice made, with its reason.

        Args:
            text: what was chosen, and why.
            about: "data" or "model", of a choice that those who use the model should know: the card has it too.
        """
        text = shown(text)
        self.say(f"  {text}")
        self.log("note", **({"about": about} if about else {}), text=text)


def complete_checkpoints(folder: Path) -> list[Path]:
    """Return the complete checkpoints in a run's ``checkpoints`` folder, the newest last."""
    return sorted(path for path in folder.glob("step-*") if (path / "manifest.json").is_file())


def read_events(path: Path) -> list[tuple[str, dict[str, Any] | None]]:
    """Return each line of a ``metrics.jsonl`` with what it says, None for one that is broken."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        return [(line, _event(line)) for line in file]


def _event(line: str) -> dict[str, Any] | None:
    try:
        line.encode()  # bytes that are no text cannot be written again
        found = json.loads(line) if line.endswith("\n") else None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("event"), str) else None


# --- what is said while it runs ----------------------------------------------------------------------------


class Status:
    """Notes and progress on stderr: a bar on a terminal, now and then a line elsewhere."""

    LINE_SECONDS = 15.0

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled
        self._bar: Any = None
        self._task: Any = None
        self._last_line = 0.0

    def say(self, text: str) -> None:
        """Print a line, above the bar if there is one."""
        if not self.enabled:
            return
        text = shown(text)
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def start(self, title: str, total: int, done: int = 0) -> None:
        """Begin to count ``total`` steps, of which ``done`` are done."""
        if not self.enabled:
            return
        self.stop()
        self._last_line = time.monotonic()
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
                TextColumn("{task.fields[detail]}"),
            )  # fmt: skip
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task(title, total=total, completed=done, detail="")

    def update(self, done: int, total: int, detail: str) -> None:
        """Show that ``done`` of ``total`` steps are done."""
        if not self.enabled:
            return
        if self._bar is not None:
            self._bar.update(self._task, completed=done, detail=detail)
        elif time.monotonic() - self._last_line > self.LINE_SECONDS:
            self._last_line = time.monotonic()
            self.say(f"  {done}/{total} {detail}")

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def duration_text(seconds: float) -> str:
    """Return a length of time as a person says it: ``42 s``, ``7 min``, ``3 h 10 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"

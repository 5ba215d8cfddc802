"""The run directory: recipe, environment, metrics stream, results, and what is said while it runs.

Only the main process writes; the others hold a Run whose methods do nothing. A JSON file appears whole or not at
all, and ``metrics.jsonl`` is cut back to the checkpoint's length when a run resumes.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from vitft.errors import TrainError, UsageError, did_you_mean
from vitft.files import at_home, exists, is_file, is_folder
from vitft.outside import shown
from vitft.recipe import Recipe

_PACKAGES = (
    "vitft", "torch", "transformers", "datasets", "accelerate", "evaluate", "safetensors", "huggingface_hub", "numpy",
    "pillow",
)  # fmt: skip


class Run:
    """One execution and its folder."""

    def __init__(self, folder: Path, *, is_main: bool = True) -> None:
        self.folder, self.is_main = folder, is_main
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
    def is_finished(self) -> bool:
        """Whether the final scores, which are written last, are there."""
        return (self.folder / "results.json").is_file()

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
                hint=f"make room, then: vitft finetune --resume {self.folder}",
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
                hint=f"make room, then: vitft finetune --resume {self.folder}",
            ) from error

    def metrics_length(self) -> int:
        """Return the bytes written to ``metrics.jsonl`` so far."""
        path = self.folder / "metrics.jsonl"
        return path.stat().st_size if path.is_file() else 0

    def cut_metrics(self, length: int) -> None:
        """Forget what was logged after the checkpoint that a resumed run starts from."""
        path = self.folder / "metrics.jsonl"
        if self.is_main and path.is_file():
            os.truncate(path, min(length, self.metrics_length()))  # after a power cut it may be shorter

    def say(self, text: str) -> None:
        """Tell the person at the terminal."""
        self.status.say(text)

    def note(self, text: str) -> None:
        """Tell the person, and write it into the run: a choice made, with its reason."""
        text = shown(text)
        self.say(f"  {text}")
        self.log("note", text=text)


# --- environment -------------------------------------------------------------------------------------------


def environment(**more: object) -> dict[str, object]:
    """Return versions, hardware and code state, with ``more`` facts of the run."""
    import torch

    def version(package: str) -> str | None:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return None

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {package: version(package) for package in _PACKAGES},
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "git": _git_state(),
        **more,
    }


def _git_state() -> dict[str, object] | None:
    """Return commit and cleanness of the working directory's repository, None outside of one."""
    git = shutil.which("git")
    if git is None:
        return None
    try:
        commit = subprocess.run([git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True)
        state = subprocess.run(
            [git, "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=5, check=True
        )
    except (subprocess.SubprocessError, OSError):
        return None
    return {"commit": commit.stdout.strip(), "clean": not state.stdout.strip()}


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

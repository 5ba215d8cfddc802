"""Push to the Hub during training, in a thread that never delays or stops the run."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Literal

from vitft.run import Run

POLL_SECONDS = 2.0


class BackgroundPushes:
    """Pushes each new checkpoint, or each new best model, of a run.

    Training knows nothing about it: checkpoints and the best model's folder appear by a rename. A folder that appears
    during a push waits for its end; of several only the newest is pushed.

    Args:
        run: the run to watch.
        every: what to push: each ``best`` model, or each ``checkpoint``.
        push: pushes a folder. Its errors are noted, and training goes on.
    """

    def __init__(self, run: Run, every: Literal["best", "checkpoint"], push: Callable[[Path], None]) -> None:
        self._run, self._every, self._push = run, every, push
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="vitft-push", daemon=True)

    def __enter__(self) -> BackgroundPushes:
        for left in self._run.folder.glob(".push-*"):  # by a process that was killed during a push
            shutil.rmtree(left, ignore_errors=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait for a push that is under way, unless training ended with an exception."""
        self._is_over.set()
        if kind is None and self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        done = self._newest()  # from before this session
        while not self._is_over.wait(POLL_SECONDS):
            found = self._newest()
            if found is None or found == done:
                continue
            done = found
            try:
                with tempfile.TemporaryDirectory(dir=self._run.folder, prefix=".push-") as folder:
                    self._push(_link(found[0], Path(folder)))
            except FileNotFoundError:
                continue  # replaced by a newer one, which is pushed next
            except Exception as failure:  # of any kind: it must not end the training
                self._run.note(f"hub: {found[0].name} was not pushed, training goes on: {_first_line(failure)}")

    def _newest(self) -> tuple[Path, int] | None:
        """Return the newest folder to push, and its inode, which changes when the folder is replaced."""
        if self._every == "best":
            folders = [self._run.best_folder] if self._run.best_folder.is_dir() else []
        else:
            folders = sorted(path.parent for path in self._run.checkpoints.glob("step-*/manifest.json"))
        try:
            return (folders[-1], folders[-1].stat().st_ino) if folders else None
        except FileNotFoundError:
            return None


def _link(source: Path, folder: Path) -> Path:
    """Return a folder with links to (or copies of) the files, which stay when training removes the original."""
    target = folder / source.name
    target.mkdir()
    for path in source.iterdir():
        try:
            os.link(path, target / path.name)
        except FileNotFoundError:
            raise
        except OSError:
            shutil.copy2(path, target / path.name)
    return target


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__

"""Messages between a training process and the parent that looks after it.

They are files in a private folder, named by the environment variable ``VITFT_LAUNCH_DIR``:

    alive            locked by the parent as long as it lives
    <rank>.pid       written by a worker when it starts (``register``)
    0.run            written by the main process once there is a run (``tell``)
    <rank>.outcome   written by a worker when it ends (``record``)

Without our launcher there is no such folder, and these functions do nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vitft.errors import TrainError

FOLDER = "VITFT_LAUNCH_DIR"
STOPPED = 75
ORDERLY = (0, 3, STOPPED)
"""Codes after which all workers end by themselves: done, not published, stopped early."""
_REST = 20.0  # seconds that a failed worker waits for its parent to end it


class PeerLost(TrainError):  # noqa: N818 - what happened
    """A training process failed because another one is gone; the reason is reported for that one instead."""


@dataclass(frozen=True)
class Outcome:
    """How a worker ended."""

    code: int
    message: str
    is_main: bool
    time: float
    is_echo: bool = False
    """Whether it failed because another process is gone."""


def register() -> None:
    """Tell the parent that this worker has started, and end when the parent does."""
    if (name := os.environ.get(FOLDER)) is not None:
        threading.Thread(target=_end_with_parent, args=(Path(name),), name="vitft-parent", daemon=True).start()
        _write(Path(name), "pid", str(os.getpid()))


def has_parent() -> bool:
    """Whether one of our parents looks after this process and reports its errors."""
    return FOLDER in os.environ


def rank() -> str:
    """Return the launcher's number for this process, among those that train together."""
    return os.environ.get("RANK", "0")


def is_main() -> bool:
    """Whether this is the process that writes and prints, among those that train together."""
    return rank() == "0"


def tell(run: str, resume: str) -> None:
    """Tell the parent which run this is, and the command that resumes it."""
    if (name := os.environ.get(FOLDER)) is not None:
        _write(Path(name), "run", f"{run}\n{resume}")


def record(code: int, message: str = "", *, is_echo: bool = False) -> int:
    """Tell the parent how this worker ends.

    Args:
        code: the exit code of the run, as this worker sees it.
        message: why, if it failed; the parent shows it unless the main process failed too and printed its own.
        is_echo: whether it failed because another process is gone, about which the parent knows more.

    Returns:
        The exit code for this process. Under our parent that is 0, because the parent reports the run's.
    """
    if (name := os.environ.get(FOLDER)) is None:
        return code
    _write(Path(name), "outcome", json.dumps(vars(Outcome(code, message, is_main(), time.time(), is_echo))))
    if code not in ORDERLY:
        # Ending now would break connections that other workers wait on, and each would report that as its own
        # failure. The parent ends all workers.
        sys.stdout.flush()
        sys.stderr.flush()
        threading.Event().wait(_REST)
    return 0


def _write(folder: Path, kind: str, text: str) -> None:
    rank = os.environ.get("LOCAL_RANK", "0")
    partial = folder / f"{rank}.partial"
    with suppress(FileNotFoundError):  # the parent is gone; the thread that watches for this ends the process
        partial.write_text(text)
        partial.rename(folder / f"{rank}.{kind}")


def _end_with_parent(folder: Path) -> None:
    """Wait until the parent's lock is free, because it has died; then end the process group."""
    import fcntl

    with suppress(FileNotFoundError), (folder / "alive").open() as alive:
        fcntl.flock(alive, fcntl.LOCK_SH)
    shutil.rmtree(folder, ignore_errors=True)
    # The group is this worker's own, with its loader processes, or the launcher's if it started only one.
    os.killpg(0, signal.SIGKILL)

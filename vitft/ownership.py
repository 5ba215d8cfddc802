"""One run, one owner: a lock that ends with its process and says who holds it.

A POSIX lock (``fcntl.lockf``) on ``runs/NAME/.lock``: the kernel releases it however the process ends, forked children
do not inherit it, and over NFS it works between machines. Windows locks a byte of the file (``msvcrt.locking``), with
the same effect. The file says who holds the lock and is removed with it; one left by a killed process is taken over.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

from vitft.errors import TrainError

_NAME = ".lock"
_HELD = (errno.EACCES, errno.EAGAIN)
_BEYOND = 1 << 30  # the byte that Windows locks: others cannot read it, and they must read who holds the lock
_held_here: dict[Path, int] = {}  # folder to process id: a lock does not exclude other threads of its process


class Ownership:
    """The right to work on a run, from when it is taken until :meth:`release`."""

    def __init__(self, folder: Path, descriptor: int, note: str) -> None:
        self._folder, self._descriptor, self._process = folder, descriptor, os.getpid()
        self._is_over = False
        self.note = note
        """A warning for the user if this file system has no locks, else empty."""

    @classmethod
    def take(cls, folder: Path) -> Ownership:
        """Become the owner of a run.

        Raises:
            TrainError: if another process owns it, naming that process.
        """
        folder = folder.resolve()
        if _held_here.get(folder) == os.getpid():
            raise _taken(folder, f"this process ({os.getpid()})", None)
        while True:
            try:
                descriptor = os.open(folder / _NAME, os.O_RDWR | os.O_CREAT, 0o666)
            except OSError as error:
                raise TrainError(
                    f"cannot write in the run {folder}: {error}", hint="make it writable and make room on its disk"
                ) from error
            note = _lock(folder, descriptor)
            if _is_still_there(folder / _NAME, descriptor):
                break
            os.close(descriptor)  # the last owner removed it in between: the next one is a new file
        _held_here[folder] = os.getpid()
        _sign(descriptor)
        return cls(folder, descriptor, note)

    def release(self) -> None:
        """Release the run; does nothing the second time, or in a forked child."""
        if self._is_over or self._process != os.getpid():
            return
        self._is_over = True
        if sys.platform == "win32":  # it removes no open file, so never one with a new owner
            os.close(self._descriptor)
            with suppress(PermissionError):
                (self._folder / _NAME).unlink(missing_ok=True)
        else:
            (self._folder / _NAME).unlink(missing_ok=True)  # while it is still ours
            os.close(self._descriptor)
        _held_here.pop(self._folder, None)


def is_taken(folder: Path) -> bool:
    """Whether a process is working on a run; asking changes nothing."""
    if _held_here.get(folder.resolve()) == os.getpid():
        return True
    try:
        descriptor = os.open(folder / _NAME, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        _lock(folder, descriptor)
    except TrainError:
        return True
    os.close(descriptor)
    return False


def _lock(folder: Path, descriptor: int) -> str:
    """Lock an open file; return a warning if the file system has no locks."""
    try:
        _try_lock(descriptor)
    except OSError as error:
        if error.errno not in _HELD:  # ENOLCK, ENOTSUP, ENOSYS: some network file systems
            return f"the disk of {folder} has no file locks: make sure that only one process at a time uses this run"
        who, since = _signature(descriptor)
        os.close(descriptor)
        raise _taken(folder, who, since) from None
    return ""


def _try_lock(descriptor: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        os.lseek(descriptor, _BEYOND, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_still_there(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _sign(descriptor: int) -> None:
    """Write who we are; on a full disk the run continues without it."""
    mine = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    try:
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, json.dumps(mine).encode())
    except OSError:
        pass


def _signature(descriptor: int) -> tuple[str, str | None]:
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        found = json.loads(os.read(descriptor, 4096))
        return f"process {int(found['pid'])} on {str(found['host'])[:64]!r}", str(found["since"])[:32]
    except (OSError, ValueError, KeyError, TypeError):
        return "another process", None


def _taken(folder: Path, who: str, since: str | None) -> TrainError:
    return TrainError(
        f"the run {folder} is in use by {who}" + (f", since {since}" if since else ""),
        allowed="one process at a time",
        hint="wait until it ends, or stop it with SIGTERM (kill PID), which saves a checkpoint first; then try again",
    )

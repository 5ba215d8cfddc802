"""Windows, as far as another system can play it, and for vitft alone: libraries keep what they need to run here.

After :func:`pretend`, modules of vitft that are imported find no POSIX-only module, none of the names that ``os`` and
``signal`` lack on Windows, its way to lock files, and its refusal to flush what is not open for writing.
"""

from __future__ import annotations

import builtins
import fcntl
import multiprocessing
import os
import signal
import sys
from collections import namedtuple
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil

POSIX_ONLY = ("fcntl", "grp", "pwd", "resource", "termios")
PEAK_MEMORY = 123_456_789


class View:
    """A module without some of its names, and with others changed."""

    def __init__(self, module: ModuleType, missing: str = "", **changed: object) -> None:
        self.__dict__ |= changed
        self._module, self._missing = module, missing.split()

    def __getattr__(self, name: str) -> Any:
        if name in self._missing:
            raise AttributeError(f"module '{self._module.__name__}' has no attribute '{name}'")
        return getattr(self._module, name)


def _open(path: Any, flags: int, mode: int = 0o777) -> int:
    if Path(path).is_dir():
        raise PermissionError(13, "Permission denied", str(path))
    return os.open(path, flags, mode)


def _fsync(descriptor: int) -> None:
    if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(9, "Bad file descriptor")
    os.fsync(descriptor)


class Msvcrt:
    """Locks from where the file stands, as the real one."""

    LK_NBLCK = 2

    @staticmethod
    def locking(descriptor: int, mode: int, count: int) -> None:
        assert mode == Msvcrt.LK_NBLCK
        place = os.lseek(descriptor, 0, os.SEEK_CUR)
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, count, place)


class Process(psutil.Process):
    def memory_info(self) -> Any:
        return namedtuple("pmem", "rss peak_wset")(1, PEAK_MEMORY)


VIEWS = {
    "msvcrt": Msvcrt,
    "multiprocessing": View(multiprocessing, get_all_start_methods=lambda: ["spawn"]),
    "os": View(
        os,
        "O_CLOEXEC O_DIRECTORY O_NOFOLLOW O_NONBLOCK WNOHANG chown fork getloadavg getpgid getuid killpg mkfifo pread "
        "pwrite sched_getaffinity setsid statvfs uname waitpid",
        open=_open,
        fsync=_fsync,
    ),
    "psutil": View(psutil, Process=Process),
    "signal": View(
        signal, "SIGALRM SIGBUS SIGCHLD SIGHUP SIGKILL SIGPIPE SIGQUIT SIGUSR1 SIGUSR2 pthread_sigmask setitimer"
    ),
    "sys": View(sys, platform="win32"),
}


def pretend() -> None:
    """Let vitft, of which nothing may have been imported, see Windows in this process."""
    assert not any(name.split(".")[0] == "vitft" for name in sys.modules)
    import_really = builtins.__import__

    def import_there(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        if level == 0 and str((globals or {}).get("__name__")).split(".")[0] == "vitft":
            if name in POSIX_ONLY:
                raise ModuleNotFoundError(f"No module named '{name}'", name=name)
            if name in VIEWS:
                return VIEWS[name]
        return import_really(name, globals, locals, fromlist, level)

    builtins.__import__ = import_there

"""The memory of this machine, or of the container in which this process may use less."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

_CGROUP = Path("/sys/fs/cgroup")
_FILES = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))


def free_memory() -> int:
    """Return the bytes of memory that are free."""
    left = [limit - used for limit, used in _containers()]
    return max(0, min([int(psutil.virtual_memory().available), *left]))


def all_memory() -> tuple[int, str]:
    """Return the bytes of memory, and whose they are: ``this machine`` or ``this container``."""
    machine = int(psutil.virtual_memory().total)
    container = min((limit for limit, _ in _containers()), default=machine)
    return (container, "this container") if container < machine else (machine, "this machine")


def _containers() -> Iterator[tuple[int, int]]:
    """Yield limit and use of each container that has a limit."""
    for limit, used in _FILES:
        with suppress(OSError, ValueError):  # no such group, or "max"
            yield int((_CGROUP / limit).read_text()), int((_CGROUP / used).read_text())

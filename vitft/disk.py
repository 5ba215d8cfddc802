"""What must be on the disk before anything relies on it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def flush(path: Path) -> None:
    """Make sure that a file, or the list of a folder's entries, is on the disk and not only in memory."""
    on_windows = sys.platform == "win32"
    if on_windows and path.is_dir():  # cannot be opened, and NTFS has its own journal of entries
        return
    descriptor = os.open(path, os.O_RDWR if on_windows else os.O_RDONLY)  # Windows flushes only what may be written
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_folder(folder: Path) -> None:
    """Flush a folder and the files in it, as readable as the folder is: safetensors keeps its own to their owner."""
    readable = folder.stat().st_mode & 0o666  # of a folder that was made with the user's umask
    for path in folder.iterdir():
        if path.is_file():
            with suppress(OSError):  # some network file systems have no modes
                path.chmod(readable)
        flush(path)
    flush(folder)


def remove_whole(folder: Path) -> None:
    """Remove a folder; killed on the way, no part of it is left under its name."""
    doomed = folder.with_name(f".{folder.name}.removed")
    shutil.rmtree(doomed, ignore_errors=True)
    folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def size_of(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


_HALF = (".*.partial", ".*.removed", ".push-*")  # the last: copies that were on their way to the Hub


def sweep(folder: Path) -> list[str]:
    """Remove what a killed process left of half-made and half-removed things; return their names."""
    left = [path for pattern in _HALF for path in sorted(folder.glob(pattern))]
    for path in left:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return [path.name for path in left]


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Make a folder that appears under its name complete or not at all; an older one gives way at the end.

    Yields:
        A folder beside it to write into, which is removed if anything, an interrupt too, comes between.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
        flush_folder(partial)
        if folder.exists():
            remove_whole(folder)
        partial.rename(folder)
        flush(folder.parent)
    except BaseException:  # an interrupt too must leave nothing behind
        shutil.rmtree(partial, ignore_errors=True)
        raise

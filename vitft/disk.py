"""Write and remove files and folders so that a crash leaves nothing half-done."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def flush(path: Path) -> None:
    """Force a file, or a folder's list of entries, from memory onto the disk."""
    on_windows = sys.platform == "win32"
    if on_windows and path.is_dir():  # Windows cannot open folders, and NTFS journals their entries
        return
    descriptor = os.open(path, os.O_RDWR if on_windows else os.O_RDONLY)  # Windows flushes only writable files
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_folder(folder: Path) -> None:
    """Flush a folder and its files, and make them as readable as the folder (safetensors makes its files private)."""
    readable = folder.stat().st_mode & 0o666  # the folder was made with the user's umask
    for path in folder.iterdir():
        if path.is_file():
            with suppress(OSError):  # some network file systems have no file modes
                path.chmod(readable)
        flush(path)
    flush(folder)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file completely or not at all, even if the power fails."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(content)
        flush(partial)
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def remove_whole(folder: Path) -> None:
    """Remove a folder; if killed midway, nothing is left under the folder's name."""
    doomed = folder.with_name(f".{folder.name}.removed")
    shutil.rmtree(doomed, ignore_errors=True)
    folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def size_of(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


_HALF = (".*.partial", ".*.removed", ".push-*")  # the last: copies made for a push to the Hub


def sweep(folder: Path) -> list[str]:
    """Remove the half-written and half-removed files of a killed process; return their names."""
    left = [path for pattern in _HALF for path in sorted(folder.glob(pattern))]
    for path in left:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return [path.name for path in left]


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Make a folder that appears complete or not at all, replacing an older one of the same name.

    Yields:
        A temporary folder to write into; it is removed after any failure or interrupt.
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
    except BaseException:  # interrupts too
        shutil.rmtree(partial, ignore_errors=True)
        raise

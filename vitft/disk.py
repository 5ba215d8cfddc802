"""What must be on the disk before anything relies on it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def flush(path: Path) -> None:
    """Make sure that a file, or the list of a folder's entries, is on the disk and not only in memory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_folder(folder: Path) -> None:
    """Flush a folder and the files in it."""
    for path in [*folder.iterdir(), folder]:
        flush(path)


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
            shutil.rmtree(folder)
        partial.rename(folder)
        flush(folder.parent)
    except BaseException:  # an interrupt too must leave nothing behind
        shutil.rmtree(partial, ignore_errors=True)
        raise

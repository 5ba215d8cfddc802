"""What must be on the disk before anything relies on it."""

from __future__ import annotations

import os
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

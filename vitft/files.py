"""Read files that a user or a dataset names: only regular files, and only up to a given size.

The path may name an endless device or a pipe that nobody writes to, or not be a valid path at all.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)
_PACKED = (
    (b"\x1f\x8b", "gzip"),
    (b"PK\x03\x04", "zip"),
    (b"BZh91AY&SY", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstandard"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"7z\xbc\xaf\x27\x1c", "7-Zip"),
    (b"Rar!\x1a\x07", "RAR"),
)


class Unreadable(OSError):  # noqa: N818 - a finding about a file
    """A file was not read; the message says why."""


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether this is a file; False for an impossible name, such as one of 300 characters."""
    return os.path.isfile(path)  # noqa: PTH113 - pathlib raises for such a name


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Whether this is a folder; False for an impossible name."""
    return os.path.isdir(path)  # noqa: PTH112 - as above


def exists(path: str | os.PathLike[str]) -> bool:
    """Whether anything exists at this path; False for an impossible name."""
    return os.path.exists(path)  # noqa: PTH110 - as above


def at_home(path: str | os.PathLike[str]) -> Path:
    """Expand ``~`` to the home folder; ``~name`` of an unknown user stays as written."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - as above


def read_regular(path: str | os.PathLike[str], most: int) -> bytes:
    """Return the content of a regular file.

    Args:
        path: the file; links are followed.
        most: the largest size allowed, in bytes.

    Raises:
        OSError: if it is missing, not a regular file, too large or unreadable.
    """
    try:
        _require_regular(os.stat(path))  # noqa: PTH116 - first, as opening a device can already do something
        # Do not wait for a writer if the file has become a pipe in the meantime.
        number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError:  # a null byte in the name
        raise Unreadable("no file can have this name") from None
    with os.fdopen(number, "rb") as file:
        found = os.fstat(file.fileno())
        _require_regular(found)
        content = file.read(most + 1) if found.st_size <= most else b""
    if found.st_size > most or len(content) > most:
        raise Unreadable(f"it has {max(found.st_size, len(content)):,} bytes; the limit is {most:,}")
    return content


def compression_of(path: str | os.PathLike[str]) -> str | None:
    """Return the compression format that a file's first bytes show, whatever its name; None if there is none.

    Raises:
        OSError: if it is not a regular file or cannot be read.
    """
    _require_regular(os.stat(path))  # noqa: PTH116
    with Path(path).open("rb") as file:
        start = file.read(16)
    return next((name for magic, name in _PACKED if start.startswith(magic)), None)


def require_regular(path: str | os.PathLike[str]) -> None:
    """Raise OSError unless this is a regular file; reading anything else could block or never end."""
    _require_regular(os.stat(path))  # noqa: PTH116


def _require_regular(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(found.st_mode)), "not a file")
        raise Unreadable(f"it is {kind}; only regular files are read")

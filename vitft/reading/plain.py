"""Data files of others, looked at before `datasets` opens them."""

from __future__ import annotations

from collections.abc import Iterable

from vitft.errors import DataError
from vitft.files import compression_of
from vitft.outside import printable


def require_plain(paths: Iterable[str]) -> None:
    """Refuse what is no regular file, and what is packed whatever its name says.

    `datasets` goes by the first bytes: it would unpack a file of a few kilobytes into as many gigabytes of its
    cache, and wait for ever for a pipe.

    Raises:
        DataError: naming the file.
    """
    for path in paths:
        try:
            packed = compression_of(path)
        except OSError as error:
            raise DataError(
                f"cannot read {printable(path)}: {error.strerror or error}", hint="look at the file, or leave it out"
            ) from error
        if packed is not None:
            raise DataError(
                f"{printable(path)} is packed ({packed}), although its name does not say so",
                allowed="data files as they are: parquet, arrow, csv, jsonl, webdataset tar",
                hint="unpack it first, and look at what comes out",
            )

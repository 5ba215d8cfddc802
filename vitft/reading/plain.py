"""Check data files before `datasets` opens them."""

from __future__ import annotations

from collections.abc import Iterable

from vitft.errors import DataError
from vitft.files import compression_of
from vitft.outside import printable


def require_plain(paths: Iterable[str]) -> None:
    """Refuse files that are not regular, or are compressed whatever their names.

    `datasets` looks at the first bytes: it would unpack a file of a few kilobytes to as many gigabytes in its
    cache, and wait forever for a pipe.

    Raises:
        DataError: naming the file.
    """
    for path in paths:
        try:
            packed = compression_of(path)
        except OSError as error:
            raise DataError(
                f"cannot read {printable(path)}: {error.strerror or error}", hint="check the file, or remove it"
            ) from error
        if packed is not None:
            raise DataError(
                f"{printable(path)} is compressed ({packed}), although its name does not say so",
                allowed="data files that are not compressed: parquet, arrow, csv, jsonl, webdataset tar",
                hint="unpack it first, and check the result",
            )

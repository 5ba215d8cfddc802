"""Sizes and bytes of the encoded images of a split, without decoding or a Python object for each row."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vitft.data.images import resolve_path


class EncodedImages:
    """The images of a column: bytes, or the files that it names.

    Args:
        column: arrow column of bytes, paths, or structures of both.
        folders: where relative paths may start from.
        rows: which rows of the column to use, int64; all if None.
    """

    def __init__(self, column: Any, folders: Sequence[str], rows: np.ndarray | None = None) -> None:
        self._column, self._folders, self._rows = column, folders, rows
        kind = column.type
        is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        self._content = pc.struct_field(column, "bytes") if pa.types.is_struct(kind) else None if is_text else column
        self._names = pc.struct_field(column, "path") if pa.types.is_struct(kind) else column if is_text else None

    def __len__(self) -> int:
        return len(self._column) if self._rows is None else len(self._rows)

    def take(self, rows: np.ndarray) -> EncodedImages:
        """Return some of the images, with the paths and sizes that are already known."""
        taken = EncodedImages(self._column, self._folders, rows if self._rows is None else self._rows[rows])
        if not self.are_bytes:
            taken.__dict__["paths"] = self.paths
        taken.__dict__["sizes"] = self.sizes[rows]
        return taken

    @property
    def are_bytes(self) -> bool:
        """Whether the column itself holds every image."""
        return self._content is not None and self._content.null_count == 0

    @cached_property
    def paths(self) -> list[str | None]:
        """The path of each row's file; None if the row holds bytes or is empty."""
        names = self._names.to_pylist() if self._names is not None else [None] * len(self._column)
        if self._content is not None:
            has_bytes = pc.is_valid(self._content).to_pylist()
            names = [None if has else name for has, name in zip(has_bytes, names, strict=True)]
        return [resolve_path(name, self._folders) if name else None for name in names]

    @cached_property
    def sizes(self) -> np.ndarray:
        """Size of each image in bytes, int64, (n,); -1 if its file does not exist, 0 if the row is empty."""
        sizes = np.zeros(len(self._column), dtype=np.int64)
        if self._content is not None:
            sizes = pc.fill_null(pc.binary_length(self._content), 0).to_numpy().astype(np.int64)
        if not self.are_bytes:
            for row, path in enumerate(self.paths):
                if path is not None:
                    sizes[row] = _size(path)
        return sizes if self._rows is None else sizes[self._rows]

    def at(self, row: int) -> bytes | str:
        """Return the bytes of an image, or the path of its file."""
        content = self._bytes_at(row)
        return self._path_at(row) or b"" if content is None else content.to_pybytes()

    def tail(self, row: int, length: int) -> bytes:
        """Return the last bytes of an image; empty if it cannot be read."""
        content = self._bytes_at(row)
        if content is not None:
            return bytes(content[max(content.size - length, 0) :])  # reads only these bytes of a mapped file
        try:
            with open(self._path_at(row) or "", "rb") as file:  # noqa: PTH123 - for every image
                file.seek(max(int(self.sizes[row]) - length, 0))
                return file.read(length)
        except (OSError, ValueError):
            return b""

    def digest(self, row: int) -> bytes:
        """Return the SHA-256 of an image, or of its path if it cannot be read."""
        image = self.at(row)
        if isinstance(image, bytes):
            return hashlib.sha256(image).digest()
        try:
            with open(image, "rb") as file:  # noqa: PTH123
                return hashlib.file_digest(file, "sha256").digest()
        except (OSError, ValueError):
            return image.encode("utf-8", "surrogateescape")

    def _bytes_at(self, row: int) -> Any:
        """Return the bytes of an image as a view of the column; None if it is in a file, or the row is empty."""
        content = None if self._content is None else self._content[self._place(row)]
        return content.as_buffer() if content is not None and content.is_valid else None

    def _path_at(self, row: int) -> str | None:
        return self.paths[self._place(row)]

    def _place(self, row: int) -> int:
        return row if self._rows is None else int(self._rows[row])


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - for every image
    except (OSError, ValueError):
        return -1

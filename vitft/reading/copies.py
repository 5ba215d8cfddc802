"""Images that are in two splits: the same file, or another with the same bytes.

Only images of one size are compared, first by their last bytes and then whole, so that a dataset costs little more
than a look at its sizes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vitft.data.images import ImageSplit
from vitft.errors import DataError

_TAIL = 512  # bytes compared first: what ends an image is the most different of it
_MOST_READ = 60_000  # files whose ends are read; of more, evenly spaced ones of the smaller split
_SHOWN = 3


@dataclass(frozen=True)
class Copies:
    """Images of one split that are in another, too.

    Attributes:
        pairs: rows of the first split, and of the second.
        num_compared: rows of the second split that were looked for.
    """

    pairs: list[tuple[int, int]]
    num_compared: int


def find_copies(first: ImageSplit, second: ImageSplit) -> Copies:
    """Return the images of ``second`` that are in ``first``, too, each with one place there.

    Of very many files, evenly spaced ones of ``second`` are looked for.
    """
    mine, theirs = _Images(first), _Images(second)
    shared = np.intersect1d(mine.sizes, theirs.sizes)
    shared = shared[shared > 0]
    places, others = np.flatnonzero(np.isin(mine.sizes, shared)), np.flatnonzero(np.isin(theirs.sizes, shared))
    if len(places) + len(others) > _MOST_READ and theirs.are_files:
        keep = max(_MOST_READ * len(others) // (len(places) + len(others)), 1)
        others = others[np.unique(np.linspace(0, len(others) - 1, keep).astype(int))]
        places = places[np.isin(mine.sizes[places], np.unique(theirs.sizes[others]))]
        if len(places) > _MOST_READ:
            others = others[: max(len(others) * _MOST_READ // len(places), 1)]
            places = places[np.isin(mine.sizes[places], np.unique(theirs.sizes[others]))]
    by_end: dict[tuple[int, bytes], list[int]] = {}
    wanted = {theirs.end(row) for row in others.tolist()}
    for row in places.tolist():
        end = mine.end(row)
        if end in wanted:
            by_end.setdefault(end, []).append(row)
    pairs = []
    for row in others.tolist() if by_end else []:
        candidates = by_end.get(theirs.end(row), ())
        twin = next((each for each in candidates if mine.is_same(each, theirs, row)), None)
        if twin is not None:
            pairs.append((twin, row))
    return Copies(pairs, len(others))


def refuse_copies(splits: Sequence[ImageSplit]) -> None:
    """Raise a DataError naming some images that are in two of the splits."""
    for place, second in enumerate(splits):
        for first in splits[:place]:
            copies = find_copies(first, second)
            if copies.pairs:
                raise DataError(
                    f"{len(copies.pairs):,} of {len(second):,} images of {second.source_name or second.name} are in "
                    f"{first.source_name or first.name}, too: {'; '.join(_named(first, second, copies))}",
                    allowed="splits without an image in common, as scores on images that were trained on mean nothing",
                    hint="remove them from one of the two, or accept them: --set data.allow_overlap=true",
                )


def note_copies(splits: Sequence[ImageSplit]) -> Iterator[str]:
    """Yield a sentence for each two splits that have images in common."""
    for place, second in enumerate(splits):
        for first in splits[:place]:
            copies = find_copies(first, second)
            if copies.pairs:
                yield (
                    f"{len(copies.pairs):,} of {copies.num_compared:,} images of {second.source_name or second.name} "
                    f"that were compared are in {first.source_name or first.name}, too: "
                    f"{'; '.join(_named(first, second, copies))}"
                )


def _named(first: ImageSplit, second: ImageSplit, copies: Copies) -> Iterator[str]:
    for mine, theirs in copies.pairs[:_SHOWN]:
        yield f"{second.where(theirs)} is {first.where(mine)}"
    if len(copies.pairs) > _SHOWN:
        yield "..."


class _Images:
    """Sizes and bytes of a split's images, without decoding any."""

    def __init__(self, split: ImageSplit) -> None:
        self._split = split
        column = split.rows.data.column(split.image_columns[0]) if len(split.image_columns) == 1 else None
        self._rows = None if split.rows._indices is None else split.rows._indices.column(0).to_numpy()
        self._content: Any = None
        if column is not None:
            content = pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column
            if pa.types.is_binary(content.type) or pa.types.is_large_binary(content.type):
                self._content = content if content.null_count == 0 else None
        self.are_files = self._content is None
        if self._content is not None:
            sizes = pc.binary_length(self._content).to_numpy().astype(np.int64)
            self.sizes = sizes if self._rows is None else sizes[self._rows]
        else:
            self.sizes = np.fromiter((_size(split.encoded(row)) for row in range(len(split))), np.int64, len(split))
        self._ends: dict[int, tuple[int, bytes]] = {}

    def end(self, row: int) -> tuple[int, bytes]:
        """Return the size and the last bytes of an image."""
        if row not in self._ends:
            self._ends[row] = (int(self.sizes[row]), self._tail(row))
        return self._ends[row]

    def is_same(self, row: int, other: _Images, its: int) -> bool:
        """Return whether an image is byte for byte one of another split."""
        mine, theirs = self._split.encoded(row), other._split.encoded(its)
        if isinstance(mine, str) and isinstance(theirs, str) and os.path.realpath(mine) == os.path.realpath(theirs):
            return True
        return _digest(mine) == _digest(theirs)

    def _tail(self, row: int) -> bytes:
        image = self._split.encoded(row)
        if isinstance(image, bytes):
            return image[-_TAIL:]
        try:
            with open(image, "rb") as file:  # noqa: PTH123 - for every image
                file.seek(max(int(self.sizes[row]) - _TAIL, 0))
                return file.read(_TAIL)
        except OSError:
            return b""


def _size(image: bytes | str) -> int:
    if isinstance(image, bytes):
        return len(image)
    try:
        return os.stat(image).st_size  # noqa: PTH116 - for every image
    except (OSError, ValueError):
        return 0


def _digest(image: bytes | str) -> bytes:
    if isinstance(image, bytes):
        return hashlib.sha256(image).digest()
    try:
        with open(image, "rb") as file:  # noqa: PTH123
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return image.encode("utf-8", "surrogateescape")

"""Which rows of a source a split has, in a few bytes even for a hundred million of them.

A split that has all rows, or all but the few that were set aside, keeps no number for each row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

CHUNK = 2**18  # rows looked at together: two megabytes of labels


@dataclass(frozen=True, eq=False)
class RowNumbers:
    """The row numbers of a split, in order. Make one with :meth:`all_of`, :meth:`all_but` or :meth:`only`.

    Attributes:
        count: how many there are.
        gaps: for each row that was left out, how many rows of the split stand before it; int64, ascending.
        listed: the numbers themselves, int64, (count,); None if they follow from ``gaps``.
    """

    count: int
    gaps: np.ndarray
    listed: np.ndarray | None = None

    @staticmethod
    def all_of(num_rows: int) -> RowNumbers:
        """Return every row of a source."""
        return RowNumbers(num_rows, np.zeros(0, dtype=np.int64))

    @staticmethod
    def all_but(num_rows: int, left_out: np.ndarray) -> RowNumbers:
        """Return every row of a source but some; ``left_out`` is ascending, without repeats."""
        return RowNumbers(num_rows - len(left_out), left_out - np.arange(len(left_out)))

    @staticmethod
    def only(numbers: np.ndarray) -> RowNumbers:
        """Return the given rows, in the given order."""
        return RowNumbers(len(numbers), np.zeros(0, dtype=np.int64), numbers)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, place: int) -> int:
        return int(self.at(np.array([place]))[0])

    @property
    def are_all(self) -> bool:
        """Whether row i of the split is row i of the source."""
        return self.listed is None and len(self.gaps) == 0

    def at(self, places: np.ndarray) -> np.ndarray:
        """Return the numbers at some places of the split, int64."""
        if self.listed is not None:
            listed: np.ndarray = self.listed[places]
            return listed
        numbers: np.ndarray = places + np.searchsorted(self.gaps, places, side="right")
        return numbers

    @property
    def left_out(self) -> np.ndarray:
        """The rows that were left out, if the others are not listed; int64, ascending."""
        left_out: np.ndarray = self.gaps + np.arange(len(self.gaps))
        return left_out

    def runs(self) -> Iterator[tuple[int, int]]:
        """Yield the rows as ranges [start, stop) of the source, none longer than a chunk; not if they are listed."""
        assert self.listed is None
        num_rows = self.count + len(self.gaps)
        start = 0
        for stop in [*self.left_out.tolist(), num_rows]:
            yield from ((first, min(first + CHUNK, stop)) for first in range(start, stop, CHUNK))
            start = stop + 1

    def chunks(self) -> Iterator[np.ndarray]:
        """Yield all numbers, int64, in parts of at most a chunk."""
        if self.listed is not None:
            listed = self.listed
            yield from (listed[start : start + CHUNK] for start in range(0, self.count, CHUNK))
        else:
            yield from (np.arange(start, stop) for start, stop in self.runs())

    def array(self) -> np.ndarray:
        """Return all numbers, int64, (count,): eight bytes for each."""
        return np.concatenate([np.zeros(0, dtype=np.int64), *self.chunks()])

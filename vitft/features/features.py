"""What a head reads of every image of a split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from vitft.data.batches import RowNote


@dataclass(frozen=True)
class Features:
    """What a head reads of every image of a split.

    Attributes:
        values: float32 (V, N, ...) on the CPU, V views of N images; 0 where there is no image.
        skipped: images that could not be decoded, by row.
        notes: oddities of the others, by row.
    """

    values: Tensor
    skipped: Mapping[int, RowNote]
    notes: Mapping[int, tuple[RowNote, ...]]

    @classmethod
    def of(cls, values: Tensor, skipped: Iterable[RowNote], notes: Iterable[RowNote]) -> Features:
        """Sort notes by row; each is kept once."""
        by_row: dict[int, tuple[RowNote, ...]] = {}
        for note in dict.fromkeys(notes):
            by_row[note.index] = (*by_row.get(note.index, ()), note)
        return cls(values, {note.index: note for note in skipped}, by_row)

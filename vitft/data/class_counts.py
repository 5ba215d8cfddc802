"""How often each class occurs, and where first: read in chunks, without sorting the labels or copying them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from vitft.data.row_numbers import CHUNK


def in_chunks(labels: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the labels a chunk at a time."""
    return (labels[start : start + CHUNK] for start in range(0, len(labels), CHUNK))


def class_counts(chunks: Iterable[np.ndarray], num_classes: int) -> np.ndarray:
    """Return how many rows each class has, int64, (num_classes,); a label of -1 counts for none."""
    counts = np.zeros(num_classes, dtype=np.int64)
    for labels in chunks:
        counts += np.bincount(labels if labels.min() >= 0 else labels[labels >= 0], minlength=num_classes)
    return counts


def first_rows(chunks: Iterable[np.ndarray], counts: np.ndarray) -> np.ndarray:
    """Return the first row of each class, int64, (K,), reading only as far as needed; -1 if a class has none.

    Args:
        chunks: the labels in order, none of them -1.
        counts: how many rows each class has, (K,).
    """
    firsts = np.full(len(counts), -1, dtype=np.int64)
    num_missing, start = int((counts > 0).sum()), 0
    for labels in chunks:
        if num_missing == 0:
            break
        places = np.flatnonzero(firsts[labels] < 0)
        found, at = np.unique(labels[places], return_index=True)
        firsts[found] = start + places[at]
        num_missing -= len(found)
        start += len(labels)
    return firsts

"""How often each class occurs, where first, and where: read in chunks, without sorting all labels or copying them."""

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


def rows_by_class(chunks: Iterable[np.ndarray], counts: np.ndarray) -> np.ndarray:
    """Return the rows of class 0 in order, then those of class 1, and so on: int32 if that is enough, else int64, (n,).

    Args:
        chunks: the labels in order, none of them -1.
        counts: how many rows each class has, (K,).
    """
    num_rows = int(counts.sum())
    rows = np.empty(num_rows, dtype=np.int32 if num_rows < 2**31 else np.int64)
    places = np.cumsum(counts) - counts  # where the next row of each class goes
    narrow = np.uint16 if len(counts) <= 2**16 else np.int64  # numpy sorts 16 bits by radix, ten times as fast
    start = 0
    for labels in chunks:
        by_class = np.argsort(labels.astype(narrow), kind="stable")
        here = np.bincount(labels, minlength=len(counts))
        first = np.cumsum(here) - here  # of each class in the sorted chunk
        rows[np.arange(len(labels)) + np.repeat(places - first, here)] = start + by_class
        places += here
        start += len(labels)
    return rows

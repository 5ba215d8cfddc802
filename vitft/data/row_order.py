"""Which row of a split is shown at each sample index: every row once in an epoch, or each class so many times.

An epoch has as many samples as the split has rows, either way. Both orders are pure functions of (seed, sample index),
like everything in :mod:`vitft.data.order`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vitft.data import order
from vitft.data.class_counts import rows_by_class
from vitft.data.images import ImageSplit


class Shown(NamedTuple):
    """What is shown at some sample indices."""

    rows: Tensor
    """Row numbers in the split, int64, (B,)."""
    times: Tensor
    """How often each row was shown before, int64, (B,)."""


@dataclass(frozen=True)
class ClassSampling:
    """How often an epoch shows each class, and the rows of each.

    Arrays, not tensors: torch would send those to reading processes through /dev/shm, which is small in containers.

    Attributes:
        quotas: samples of each class in an epoch, int64, (K,).
        counts: rows of each class, int64, (K,).
        rows: the rows of class 0, then those of class 1, and so on, int32 or int64, (n,).
    """

    quotas: np.ndarray
    counts: np.ndarray
    rows: np.ndarray

    @classmethod
    def of(cls, split: ImageSplit, num_classes: int, power: float) -> ClassSampling:
        """Return the sampling of a split by :func:`epoch_quotas`: four bytes for each row, eight from 2^31 rows on."""
        counts = split.class_counts(num_classes)
        return cls(epoch_quotas(counts, power), counts, rows_by_class(split.label_chunks(), counts))

    def shown(self, seed: int, epochs: Tensor, entries: Tensor) -> Shown:
        """Return the rows at entries of an epoch's list, in which the samples of each class stand together.

        A class goes on where the epoch before stopped: all its rows are shown once before any is shown again.

        Args:
            seed: the run's seed.
            epochs: counted from 0, int64, (B,).
            entries: int64 in [0, n), (B,).
        """
        ends = np.cumsum(self.quotas)
        classes = np.searchsorted(ends, entries.numpy(), side="right")
        quotas, counts = self.quotas[classes], torch.from_numpy(self.counts[classes])
        places = entries - torch.from_numpy(ends[classes] - quotas)  # within the class
        draws = epochs * torch.from_numpy(quotas) + places
        members, times = order.member_at(seed, draws, counts, torch.from_numpy(classes))
        first = torch.from_numpy(np.cumsum(self.counts)[classes]) - counts
        return Shown(torch.from_numpy(self.rows[(first + members).numpy()]).long(), times)


@dataclass(frozen=True)
class RowOrder:
    """The order in which the rows of a split are shown.

    Attributes:
        seed: the run's seed.
        num_rows: of the split, and samples of an epoch.
        sampling: how often an epoch shows each class; None: every row once.
    """

    seed: int
    num_rows: int
    sampling: ClassSampling | None = None

    def at(self, sample_indices: Tensor) -> Shown:
        """Return what is shown at some sample indices, int64, (B,)."""
        epochs = torch.div(sample_indices, self.num_rows, rounding_mode="floor")
        entries = order.sample_at(self.seed, sample_indices, self.num_rows)
        return Shown(entries, epochs) if self.sampling is None else self.sampling.shown(self.seed, epochs, entries)

    def after(self, sample_index: int) -> Iterator[int]:
        """Yield the rows after that of a sample index in the same epoch, in which a bad image's stand-in is sought."""
        epoch_start = sample_index - sample_index % self.num_rows
        for attempt in range(1, self.num_rows):
            entry = (sample_index + attempt) % self.num_rows
            yield int(self.at(torch.tensor([epoch_start + entry])).rows)


def epoch_quotas(counts: np.ndarray, power: float) -> np.ndarray:
    """Return how many samples of an epoch each class gets, in proportion to a power of its number of rows.

    The quotas add up to the number of rows, and each is less than 1 away from its exact share. What is left after
    rounding down goes to the largest remainders; of equal ones, to the smaller class.

    Args:
        counts: rows of each class, (K,); a class without rows gets nothing.
        power: 0: every class equally often; 0.5: by the square root; 1: as in the data.

    Returns:
        int64, (K,).
    """
    shares = np.where(counts > 0, np.power(counts, power, dtype=np.float64), 0.0)
    exact = counts.sum() * (shares / shares.sum())
    quotas: np.ndarray = np.floor(exact + 1e-9).astype(np.int64)
    left = int(counts.sum() - quotas.sum())
    largest = np.lexsort((counts, -np.round(exact - quotas, 6)))[:left]
    quotas[largest] += 1
    return quotas

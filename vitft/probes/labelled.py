"""Features with labels, as plain arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vitft.data.images import ImageSplit
from vitft.features.features import Features


@dataclass(frozen=True, eq=False)
class Labelled:
    """The features and classes of a split's readable images.

    Attributes:
        values: float32 (N, D).
        labels: class ids, int64 (N,).
        num_skipped: images that could not be decoded, and are not in here.
    """

    values: np.ndarray
    labels: np.ndarray
    num_skipped: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def of(cls, features: Features, split: ImageSplit) -> Labelled:
        """Return the first view of each image; features of several dimensions become one row."""
        values = features.values[0].flatten(1).numpy()
        if not features.skipped:
            return cls(values, split.labels)
        is_good = np.ones(len(split), dtype=bool)
        is_good[list(features.skipped)] = False
        return cls(values[is_good], split.labels[is_good], len(features.skipped))


class Splits(NamedTuple):
    """The images of a probe.

    ``test`` is None if the dataset has no test split.
    """

    train: Labelled
    validation: Labelled
    test: Labelled | None

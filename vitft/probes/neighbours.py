"""The k nearest training images vote, as DINO evaluates features (arXiv:2104.14294, appendix F.1).

Similarity is the cosine; a neighbour's vote weighs exp(similarity / T).

Legend: N training images, B images to predict, D features, K classes.
"""

from __future__ import annotations

import numpy as np

from vitft.probes.labelled import Labelled

NUM_NEIGHBOURS = (10, 20)
_TEMPERATURE = 0.07
_CHUNK = 2**24  # similarities computed at once


def votes(train: Labelled, values: np.ndarray, num_neighbours: int, num_classes: int) -> np.ndarray:
    """Return the votes for each class, float64 (B, K), each row up to a factor.

    Args:
        train: the training images; if they are fewer than ``num_neighbours``, all vote.
        values: features of the images to predict, (B, D).
        num_neighbours: k.
        num_classes: K.
    """
    count = min(num_neighbours, len(train))
    known, asked = _directions(train.values), _directions(values)
    found = np.zeros((len(values), num_classes))
    step = max(1, _CHUNK // len(known))
    for start in range(0, len(asked), step):
        similarity = asked[start : start + step] @ known.T
        nearest = np.argpartition(-similarity, count - 1, axis=1)[:, :count]
        near = np.take_along_axis(similarity, nearest, 1).astype(np.float64)
        weights = np.exp((near - near.max(1, keepdims=True)) / _TEMPERATURE)  # a common factor decides nothing
        rows = np.repeat(np.arange(start, start + len(near)), count)
        np.add.at(found, (rows, train.labels[nearest].ravel()), weights.ravel())
    return found


def accuracies(train: Labelled, test: Labelled, num_classes: int) -> dict[int, float]:
    """Return the share of right predictions for each number of neighbours."""
    return {
        count: float((votes(train, test.values, count, num_classes).argmax(1) == test.labels).mean())
        for count in NUM_NEIGHBOURS
    }


def _directions(values: np.ndarray) -> np.ndarray:
    """Scale each row to length 1; a row of zeros stays."""
    length = np.linalg.norm(values, axis=1, keepdims=True)
    scaled: np.ndarray = values / np.where(length > 0, length, 1)
    return scaled

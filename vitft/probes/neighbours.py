"""The k nearest training images vote, as DINO evaluates features (arXiv:2104.14294, appendix F.1).

Similarity is the cosine; a neighbour's vote weighs exp(similarity / T).

Legend: N training images, B images to predict, D features, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from vitft.probes.labelled import Labelled

NUM_NEIGHBOURS = (10, 20)
_TEMPERATURE = 0.07
_CHUNK = 2**24  # similarities, or votes, held at once


def votes(train: Labelled, values: np.ndarray, counts: Sequence[int], num_classes: int) -> Iterator[list[np.ndarray]]:
    """Yield the votes for each class, a chunk of images at a time, for each number of neighbours.

    Args:
        train: the training images; if they are fewer than a number of neighbours, all vote.
        values: features of the images to predict, (B, D).
        counts: numbers of neighbours.
        num_classes: K.

    Yields:
        For each of ``counts`` float64 (chunk, K), each row up to a factor.
    """
    most = min(max(counts), len(train))
    known, asked = _directions(train.values), _directions(values)
    step = max(1, _CHUNK // max(len(known), num_classes))
    for start in range(0, len(asked), step):
        similarity = asked[start : start + step] @ known.T
        nearest = np.argpartition(-similarity, most - 1, axis=1)[:, :most]
        near = np.take_along_axis(similarity, nearest, 1)
        order = np.argsort(-near, axis=1, kind="stable")
        nearest, near = (np.take_along_axis(each, order, 1) for each in (nearest, near))
        weights = np.exp((near.astype(np.float64) - near[:, :1]) / _TEMPERATURE)  # a common factor decides nothing
        yield [_summed(train.labels[nearest[:, :count]], weights[:, :count], num_classes) for count in counts]


def accuracies(train: Labelled, test: Labelled, num_classes: int) -> dict[int, float]:
    """Return the share of right predictions for each number of neighbours."""
    said = [[each.argmax(1) for each in chunk] for chunk in votes(train, test.values, NUM_NEIGHBOURS, num_classes)]
    return {
        count: float((np.concatenate(chunks) == test.labels).mean())
        for count, chunks in zip(NUM_NEIGHBOURS, zip(*said, strict=True), strict=True)
    }


def _summed(labels: np.ndarray, weights: np.ndarray, num_classes: int) -> np.ndarray:
    """Add up the weights of each label, row by row."""
    found = np.zeros((len(labels), num_classes))
    np.add.at(found, (np.arange(len(labels))[:, None], labels), weights)
    return found


def _directions(values: np.ndarray) -> np.ndarray:
    """Scale each row to length 1; a row of zeros stays."""
    length = np.linalg.norm(values, axis=1, keepdims=True)
    scaled: np.ndarray = values / np.where(length > 0, length, 1)
    return scaled

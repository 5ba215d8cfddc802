"""Scores of each class, from the counts that stand in ``results.json``; no torch, so that pages need none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ClassScore:
    """How well one class is recognised.

    Attributes:
        name: of the class.
        support: its images.
        recall: part of its images that were recognised.
        precision: part of the images taken for it that are its own; None if none was taken for it.
        f1: harmonic mean of the two.
    """

    name: str
    support: int
    recall: float
    precision: float | None
    f1: float


def class_scores(per_class: Mapping[str, Sequence[Any]]) -> list[ClassScore]:
    """Return the scores of every class that has images, in the order of the classes.

    Args:
        per_class: ``class`` (names), ``support``, ``correct`` and ``predicted``, each (K,).
    """
    rows = zip(*(per_class[key] for key in ("class", "support", "correct", "predicted")), strict=True)
    return [
        ClassScore(name, support, hits / support, hits / taken if taken else None, 2 * hits / (support + taken))
        for name, support, hits, taken in rows
        if support
    ]


def worst_first(scores: Sequence[ClassScore]) -> list[ClassScore]:
    """Return the classes by rising F1; of equals, the one with more images comes first."""
    return sorted(scores, key=lambda each: (each.f1, -each.support))

"""The confusion matrix: an order in which confused classes are neighbours, and a figure for 2 or 1,000 classes."""

import numpy as np
import pytest

from vitft.report.confusion import draw_confusion, order_of


def in_blocks(num_classes, size, seed=0):
    """Counts in which classes are confused within hidden groups; also return the group of each class."""
    groups = np.random.default_rng(seed).permutation(num_classes) // size
    return 3 * (groups[:, None] == groups[None, :]) + 20 * np.eye(num_classes, dtype=int), groups


@pytest.mark.parametrize("num_classes", [12, 300])
def test_classes_that_are_confused_stand_together(num_classes):
    counts, groups = in_blocks(num_classes, 4)
    ordered = groups[order_of(counts)]
    assert (np.diff(ordered) != 0).sum() == num_classes // 4 - 1  # each group is one stretch


@pytest.mark.parametrize("counts", [np.eye(3), np.zeros((4, 4)), np.array([[1, 1], [0, 0]]), np.ones((1, 1))])
def test_every_class_has_its_place_whatever_was_counted(counts):
    assert sorted(order_of(counts)) == list(range(len(counts)))
    svg, _ = draw_confusion(counts, [f"c{number}" for number in range(len(counts))])
    assert svg.startswith("<svg")


def test_classes_that_are_never_confused_keep_their_order_behind_the_others():
    counts = 5 * np.eye(5, dtype=int)
    counts[1, 3] = 1
    assert order_of(counts).tolist() == [1, 3, 0, 2, 4]


def test_few_classes_have_names_and_counts_and_many_have_neither():
    few, caption = draw_confusion(np.array([[7, 2], [1, 5]]), ["cat", "dog"])
    assert all(f">{text}<" in few for text in ("cat", "dog", "7", "2", "1", "5"))
    assert "each cell" not in caption
    many, caption = draw_confusion(in_blocks(1000, 5)[0], [f"c{number}" for number in range(1000)])
    assert ">c1<" not in many and len(many) < 300_000
    assert "each cell holds 5 x 5 of them" in caption

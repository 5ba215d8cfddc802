from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from vitft.scoring.per_class import class_scores, worst_first


def counted(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> dict[str, list]:
    return {
        "class": [f"class {number}" for number in range(num_classes)],
        "support": np.bincount(labels, minlength=num_classes).tolist(),
        "correct": np.bincount(labels[labels == predictions], minlength=num_classes).tolist(),
        "predicted": np.bincount(predictions, minlength=num_classes).tolist(),
    }


def test_scores_of_classes_are_scikit_learns():
    generator = np.random.default_rng(0)
    labels, predictions = generator.integers(0, 6, (2, 200))
    precision, recall, f1, support = precision_recall_fscore_support(labels, predictions)
    found = class_scores(counted(labels, predictions, 6))
    assert [each.precision for each in found] == pytest.approx(precision)
    assert [each.recall for each in found] == pytest.approx(recall)
    assert [each.f1 for each in found] == pytest.approx(f1)
    assert [each.support for each in found] == support.tolist()


def test_a_class_without_images_has_no_scores_and_one_never_predicted_no_precision():
    [only] = class_scores(counted(np.array([1, 1]), np.array([0, 0]), 3))
    assert (only.name, only.support, only.recall, only.precision, only.f1) == ("class 1", 2, 0.0, None, 0.0)


def test_the_worst_class_comes_first_and_of_equals_the_larger():
    scores = class_scores(
        {"class": ["good", "small", "large"], "support": [4, 1, 9], "correct": [4, 0, 0], "predicted": [4, 0, 0]}
    )
    assert [each.name for each in worst_first(scores)] == ["large", "small", "good"]

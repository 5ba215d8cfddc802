"""The few-shot evaluation: against big_vision's arithmetic, a case by hand, and its own other form."""

from pathlib import Path

import numpy as np
import pytest

from vitft.probes import few_shot
from vitft.probes.labelled import Labelled

REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "inspect_cases.npz"


@pytest.mark.real
@pytest.mark.parametrize("case", ["n_lt_d", "n_ge_d"])
def test_weights_scores_and_accuracy_are_those_of_the_reference(case):
    with np.load(REFERENCE) as arrays:
        x, y, asked, answers, weights, scores, accuracy = (
            arrays[f"lsr_{case}_{name}"] for name in ("x", "y", "xt", "yt", "W", "scores", "acc")
        )
    fitted = few_shot.fit(x, y, 5)
    assert np.abs(fitted.weights - weights).max() < 1e-6
    assert np.abs(fitted.scores(asked) - scores).max() < 1e-6
    assert (fitted.scores(asked).argmax(1) == answers).mean() == accuracy


def test_one_feature_by_hand():
    """Whitened to -1 and 1: the slopes are 2 / (2 + l2), and the bias is 0 as both classes are as frequent."""
    fitted = few_shot.fit(np.array([[1.0], [3.0]]), np.array([0, 1]), 2, l2=6.0)
    slope = 2 / (2 + 6)
    assert fitted.mean == 2 and fitted.std == pytest.approx(1 + 1e-5)
    assert fitted.weights == pytest.approx(np.array([[-slope, slope], [0, 0]]), abs=1e-5)
    assert fitted.scores(np.array([[5.0]]))[0] == pytest.approx([-3 * slope, 3 * slope], abs=1e-4)


@pytest.mark.parametrize("num_images", [30, 31, 90])
def test_both_forms_have_the_same_solution(num_images):
    """30 images and 31 features with the constant one: fitted on the images, else on the features."""
    generator = np.random.default_rng(0)
    x, y = generator.normal(3, 2, (num_images, 30)), np.arange(num_images) % 3
    fitted = few_shot.fit(x, y, 3)
    whitened = np.hstack([(x - x.mean(0)) / (x.std(0) + 1e-5), np.full((num_images, 1), 100.0)])
    left = (whitened.T @ whitened + 2**10 * np.eye(31)) @ fitted.weights  # the normal equations
    assert left == pytest.approx(whitened.T @ (2 * np.eye(3)[y] - 1), abs=1e-6)


def test_the_support_is_nested_seeded_and_of_each_class():
    labels = np.array([0, 1, 2, 1, 0, 2, 1, 0, 2, 1, 1])
    small, large = (few_shot.support(labels, 3, shots, seed=1) for shots in (1, 3))
    assert labels[large].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert small.tolist() == large[::3].tolist()
    generator = np.random.default_rng(1)
    by_hand = [generator.permutation(np.flatnonzero(labels == number))[:3] for number in range(3)]
    assert large.tolist() == np.concatenate(by_hand).tolist()
    assert few_shot.support(labels, 3, 3, seed=2).tolist() != large.tolist()


def test_each_number_of_shots_has_an_accuracy_per_seed():
    generator = np.random.default_rng(0)
    labels = np.arange(40) % 4
    means = generator.normal(0, 2, (4, 8))
    rows = Labelled((means[labels] + generator.normal(0, 1, (40, 8))).astype(np.float32), labels)
    found = few_shot.accuracies(rows, rows, 4, (1, 10))
    assert [len(found[shots]) for shots in (1, 10)] == [3, 3]
    assert np.mean(found[10]) > np.mean(found[1]) > 0.25

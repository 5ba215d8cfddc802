"""Evidence against scikit-learn, closed forms and degenerate splits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.metrics import brier_score_loss, confusion_matrix, log_loss

from vitft.scoring import evidence
from vitft.scoring.collecting import Collector, most_probable
from vitft.scoring.metrics import final_scores
from vitft.scoring.predictions import Predictions, read_predictions, write_predictions
from vitft.scoring.scores import Tally


def said(logits: torch.Tensor, labels: torch.Tensor) -> Predictions:
    collector = Collector(logits.shape[1])
    collector.add(logits, labels, torch.arange(len(labels)))
    return Predictions.joined(collector._parts)


def random_split(num_rows: int = 300, num_classes: int = 7, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, num_classes, (num_rows,), generator=generator)
    logits = torch.randn(num_rows, num_classes, generator=generator)
    return logits + 1.5 * torch.nn.functional.one_hot(labels, num_classes), labels


def scored(logits: torch.Tensor, labels: torch.Tensor) -> dict:
    tally = Tally(logits.shape[1])
    tally.add(logits, labels)
    return final_scores(tally, [f"class {k}" for k in range(logits.shape[1])], said(logits, labels))


# --- rows --------------------------------------------------------------------------------------------------


def test_a_row_holds_what_the_probabilities_say():
    logits, labels = random_split()
    found, probs = said(logits, labels), logits.double().softmax(1).numpy()
    assert found.predicted.tolist() == logits.argmax(1).tolist()
    np.testing.assert_allclose(found.p_label, probs[np.arange(300), labels], rtol=1e-6)
    np.testing.assert_allclose(found.p_predicted, probs.max(1), rtol=1e-6)
    np.testing.assert_allclose(found.nll.mean(), log_loss(labels, probs), rtol=1e-6)
    np.testing.assert_allclose(found.p_best, -np.sort(-probs, 1)[:, :5], rtol=1e-6)
    np.testing.assert_allclose(found.entropy, -(probs * np.log(probs)).sum(1), rtol=1e-5)


@pytest.mark.parametrize("temperature", [0.05, 1 / 3, 7.0, 100.0])
def test_a_temperature_changes_probabilities_and_no_prediction(temperature):
    logits, labels = random_split()
    logits[:50, 1] = logits[:50, 0] * (1 + 2**-23)  # neighbours in float32
    logits[50:90, 3] = logits[50:90, 2]
    collector = Collector(7, temperature)
    collector.add(logits, labels, torch.arange(300))
    found, before = Predictions.joined(collector._parts), said(logits, labels)
    probs = (logits.double() / temperature).softmax(1).numpy()
    np.testing.assert_allclose(found.p_label, probs[np.arange(300), labels], rtol=1e-6)
    np.testing.assert_array_equal(found.best, before.best)
    nll = torch.nn.functional.cross_entropy(logits.double() / temperature, labels)
    assert evidence.of_probabilities(found)["nll"] == pytest.approx(float(nll), rel=1e-6)


def test_of_equal_logits_the_first_is_predicted_as_in_the_scores():
    found = said(torch.zeros(2, 4), torch.tensor([0, 3]))
    assert found.predicted.tolist() == [0, 0] and found.best.tolist() == [[0, 1, 2, 3]] * 2


@pytest.mark.parametrize("num_classes", [2, 3, 5, 6, 20])
def test_the_most_probable_classes_are_those_of_a_stable_sort(num_classes):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randint(0, 3, (200, num_classes), generator=generator).double()
    logits[::7] = -torch.inf
    logits[1::7, 1:] = torch.rand(len(logits[1::7]), num_classes - 1, generator=generator, dtype=torch.float64)
    expected = logits.sort(stable=True, dim=1, descending=True).indices
    for count in range(1, min(5, num_classes) + 1):
        assert torch.equal(most_probable(logits, count), expected[:, :count])


def test_processes_give_the_same_rows_in_the_order_of_the_dataset():
    logits, labels = random_split()
    parts = [said(logits[rows], labels[rows]) for rows in (torch.arange(1, 300, 2), torch.arange(0, 300, 2))]
    for part, first in zip(parts, (1, 0), strict=True):
        part.row[:] = np.arange(first, 300, 2)
    whole, joined = said(logits, labels), Predictions.joined(parts)
    for name in vars(whole):
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name), err_msg=name)


def test_the_file_gives_back_what_was_written(tmp_path, monkeypatch):
    monkeypatch.setattr("vitft.scoring.predictions._ROW_GROUP", 64)
    logits, labels = random_split()
    found, names = said(logits, labels), [f"class {k}" for k in range(7)]
    write_predictions(tmp_path / "p.parquet", found, names, lambda row: f"photos/{row}.jpg")
    read, sources = read_predictions(tmp_path / "p.parquet", names)
    assert sources[-1] == "photos/299.jpg"
    for name in vars(found):
        np.testing.assert_array_equal(getattr(read, name), getattr(found, name), err_msg=name)
    assert [path.name for path in tmp_path.iterdir()] == ["p.parquet"]


def test_a_file_without_rows_can_be_read(tmp_path):
    write_predictions(tmp_path / "p.parquet", said(torch.empty(0, 3), torch.empty(0).long()), "abc", str)
    read, sources = read_predictions(tmp_path / "p.parquet", "abc")
    assert len(read) == 0 and sources == []


# --- scores ------------------------------------------------------------------------------------------------


def test_brier_is_scikit_learns():
    logits, labels = random_split(num_classes=2)
    probs = logits.double().softmax(1).numpy()
    theirs = 2 * brier_score_loss(labels, probs[:, 1])  # scikit-learn's counts one of the two classes
    assert scored(logits, labels)["brier"] == pytest.approx(theirs, rel=1e-6)


def test_calibration_error_is_its_definition():
    logits, labels = random_split()
    found = said(logits, labels)
    confidence, correct = found.p_predicted.astype(float), found.is_correct
    bins = [[i for i, value in enumerate(confidence) if low / 15 < value <= (low + 1) / 15] for low in range(15)]
    by_hand = sum(len(b) / 300 * abs(correct[b].mean() - confidence[b].mean()) for b in bins if b)
    scores = scored(logits, labels)
    assert scores["ece"] == pytest.approx(by_hand)
    by_count = np.array_split(np.argsort(confidence, kind="stable"), 15)
    by_hand = sum(len(b) / 300 * abs(correct[b].mean() - confidence[b].mean()) for b in by_count)
    assert scores["ece_equal_count"] == pytest.approx(by_hand)
    assert sum(each["count"] for each in scores["reliability"]["equal_width"]) == 300
    assert [each["count"] for each in scores["reliability"]["equal_count"]] == [20] * 15


def test_a_calibrated_model_has_next_to_no_error():
    generator = np.random.default_rng(0)
    confidence = generator.uniform(0.5, 1, 200_000)
    correct = generator.uniform(size=200_000) < confidence
    assert evidence.calibration_error(confidence, correct, evidence.equal_width_bins(confidence)) < 0.01


def test_wilsons_interval_is_scipys_and_newcombes():
    # Newcombe 1998 (doi:10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E), table I: 81 of 263.
    assert evidence.wilson(81 / 263, 263) == pytest.approx([0.2553, 0.3662], abs=5e-5)
    assert evidence.wilson(1.0, 10)[1] == 1.0 and evidence.wilson(0.0, 10)[0] == 0.0


def test_bootstrap_intervals_are_those_of_the_normal_law_where_it_holds():
    logits, labels = random_split(2000)
    found, scores = said(logits, labels), scored(logits, labels)
    for name, values in (("nll", found.nll), ("brier", found.brier)):
        half = 1.96 * values.std() / math.sqrt(2000)
        assert scores["intervals"][name] == pytest.approx([values.mean() - half, values.mean() + half], rel=0.02)
    for name, (low, high) in scores["intervals"].items():
        assert low <= scores[name] <= high or name.startswith("ece"), (
            name
        )  # a bootstrap's calibration errors are biased upwards
    assert scores["intervals"] == scored(logits, labels)["intervals"]


def test_coverage_answers_the_surest_first():
    confidence, correct = np.array([0.9, 0.5, 0.8, 0.7]), np.array([True, False, True, False])
    curve = evidence.coverage(confidence, correct)
    assert [curve[place]["accuracy"] for place in (24, 49, 74, 99)] == [1.0, 1.0, pytest.approx(2 / 3), 0.5]
    assert curve[49]["confidence"] == 0.8
    assert evidence.answered_at(curve, 0.95) == 0.5
    assert evidence.answered_at(curve[-1:], 0.95) == 0.0


def test_confused_pairs_are_the_largest_cells_off_the_diagonal():
    logits, labels = random_split(500, 4)
    scores = scored(logits, labels)
    cells = confusion_matrix(labels, logits.argmax(1))
    np.fill_diagonal(cells, 0)
    first = scores["confused_pairs"][0]
    assert first["count"] == cells.max()
    place = tuple(int(first[key].split()[-1]) for key in ("true", "predicted"))
    assert cells[place] == cells.max()
    assert first["share"] == pytest.approx(cells.max() / np.bincount(labels)[place[0]])
    counts = [each["count"] for each in scores["confused_pairs"]]
    assert counts == sorted(counts, reverse=True) and len(counts) == 10


def test_the_surest_mistakes_come_first():
    logits, labels = random_split()
    found = said(logits, labels)
    places = evidence.surest_mistakes(found, 20)
    wrong = found.p_predicted[~found.is_correct]
    assert found.p_predicted[places].tolist() == sorted(wrong.tolist(), reverse=True)[:20]
    assert not found.is_correct[places].any()


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        ([[3.0, 0.0]], [0]),
        ([[3.0, 0.0]], [1]),
        ([[0.0, 0.0, 0.0]] * 3, [0, 1, 2]),
        ([[9.0, 0.0, 0.0]] * 4, [1, 1, 2, 2]),
        ([[50.0, -50.0]] * 5, [1] * 5),
        ([[0.0] * 8] * 2, [7, 7]),
    ],
    ids=["one right", "one wrong", "ties", "all wrong, a class absent", "sure and wrong", "more classes than rows"],
)
def test_degenerate_splits_have_finite_evidence(logits, labels):
    scores = scored(torch.tensor(logits), torch.tensor(labels))
    numbers = [scores[name] for name in ("brier", "ece", "ece_equal_count")]
    numbers += [end for interval in scores["intervals"].values() for end in interval]
    assert np.isfinite(numbers).all()
    assert 0 <= scores["ece"] <= 1 and 0 <= scores["brier"] <= 2 + 1e-9
    assert len(scores["coverage"]) == 100


def test_mcnemar_on_a_table_worked_by_hand():
    # 10 images that only one model has right, 2 that only the other has: 2 (C(12,0) + C(12,1) + C(12,2)) / 2^12.
    one = np.array([True] * 10 + [False] * 2 + [True] * 5)
    other = np.array([False] * 10 + [True] * 2 + [True] * 5)
    found = evidence.mcnemar(one, other)
    assert (found["only_one"], found["only_other"]) == (10, 2)
    assert found["p"] == pytest.approx(2 * (1 + 12 + 66) / 2**12)
    assert found["p"] == pytest.approx(binomtest(2, 12).pvalue)
    assert evidence.mcnemar(one, one)["p"] == 1.0

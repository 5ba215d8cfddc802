"""The scores against scikit-learn's, however the samples come."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from sklearn import metrics as sklearn_metrics
from torch import Tensor

from vitft.errors import DataError
from vitft.scoring.scores import Scores, Tally, is_better, scores, scores_of_counts


def sample(num_classes: int, n: int = 240, missing: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
    """Make logits that are right about half the time, and labels without the classes in ``missing``."""
    generator = torch.Generator().manual_seed(num_classes)
    present = torch.tensor([k for k in range(num_classes) if k not in missing])
    labels = present[torch.randint(len(present), (n,), generator=generator)]
    logits = torch.randn(n, num_classes, generator=generator)
    logits[torch.arange(n), labels] += 1.0
    return logits, labels


def tally_of(logits: Tensor, labels: Tensor, chunk: int = 50, **options: bool) -> Tally:
    tally = Tally(logits.shape[1], **options)
    for start in range(0, len(labels), chunk):
        tally.add(logits[start : start + chunk], labels[start : start + chunk])
    return tally


def reference(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Score with scikit-learn; its means leave out absent classes when it is told which are present."""
    num_classes = logits.shape[1]
    truth, predicted = labels.numpy(), logits.argmax(1).numpy()
    probs = logits.double().softmax(1).numpy()
    present = labels.unique().numpy()
    recalls = sklearn_metrics.recall_score(truth, predicted, labels=present, average="macro")
    expected = {
        "top1": sklearn_metrics.accuracy_score(truth, predicted),
        "mean_per_class_accuracy": recalls,
        "macro_f1": sklearn_metrics.f1_score(truth, predicted, labels=present, average="macro"),
        "nll": sklearn_metrics.log_loss(truth, probs, labels=range(num_classes)),
        "count": len(truth),
    }
    if num_classes > 5:
        expected["top5"] = sklearn_metrics.top_k_accuracy_score(truth, probs, k=5, labels=range(num_classes))
    return expected


# --- the numbers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_classes", [2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("missing", [(), (0,)])
def test_scores_are_scikit_learns(num_classes: int, missing: tuple[int, ...]) -> None:
    logits, labels = sample(num_classes, missing=missing)
    assert scores(tally_of(logits, labels)).present() == pytest.approx(reference(logits, labels), abs=1e-12)


def test_mean_per_class_accuracy_is_scikit_learns_balanced_accuracy() -> None:
    logits, labels = sample(7)
    expected = sklearn_metrics.balanced_accuracy_score(labels.numpy(), logits.argmax(1).numpy())
    assert scores(tally_of(logits, labels)).mean_per_class_accuracy == pytest.approx(expected, abs=1e-12)


def test_confusion_is_scikit_learns() -> None:
    logits, labels = sample(6, missing=(2,))
    expected = sklearn_metrics.confusion_matrix(labels.numpy(), logits.argmax(1).numpy(), labels=range(6))
    tally = tally_of(logits, labels)
    assert tally.confusion.tolist() == expected.tolist()
    assert tally.support.tolist() == expected.sum(1).tolist()
    assert tally.predicted.tolist() == expected.sum(0).tolist()


def test_counts_do_not_depend_on_chunks_or_order() -> None:
    logits, labels = sample(7)
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))
    whole, pieces = tally_of(logits, labels, chunk=240), tally_of(logits[shuffled], labels[shuffled], chunk=7)
    assert torch.equal(whole.confusion, pieces.confusion)
    assert whole.top5_correct == pieces.top5_correct
    assert whole.nll_sum == pytest.approx(pieces.nll_sum, rel=1e-14)


@pytest.mark.parametrize("num_classes", [3, 8])
def test_many_classes_are_counted_without_the_table_and_score_the_same(num_classes: int) -> None:
    logits, labels = sample(num_classes, missing=(1,))
    slim = tally_of(logits, labels, with_confusion=False)
    assert slim.confusion is None
    assert scores(slim) == scores(tally_of(logits, labels))
    assert not Tally(2001).with_confusion and Tally(2000).with_confusion


def test_a_float32_sum_would_lose_what_ours_keeps() -> None:
    tally = Tally(2)
    tally.add(torch.tensor([[-1e8, 0.0]]), torch.tensor([0]))
    for _ in range(10):
        tally.add(torch.tensor([[0.0, 0.0]]), torch.tensor([0]))
    assert tally.nll_sum == pytest.approx(1e8 + 10 * 0.6931471805599453, abs=1e-6)


def test_processes_sum_their_counts_and_keep_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels = sample(7)
    mine, other = tally_of(logits[:101], labels[:101]), tally_of(logits[101:], labels[101:])
    theirs = [other._integers, other._floats]
    monkeypatch.setattr("torch.distributed.all_reduce", lambda tensor: tensor.add_(theirs.pop(0)))
    before = mine.confusion.clone()
    total = mine.reduce(SimpleNamespace(num_processes=2))
    assert theirs == []
    assert scores(total).present() == pytest.approx(reference(logits, labels), abs=1e-12)
    assert torch.equal(mine.confusion, before)


def test_one_process_reduces_to_itself() -> None:
    logits, labels = sample(3)
    tally = tally_of(logits, labels)
    assert scores(tally.reduce()) == scores(tally.reduce(SimpleNamespace(num_processes=1))) == scores(tally)


def test_nothing_to_score_is_an_error() -> None:
    with pytest.raises(DataError, match="nothing to score"):
        scores(Tally(3))


def test_better_is_higher_top1_then_lower_nll_then_earlier() -> None:
    def score(top1: float, nll: float) -> Scores:
        return Scores(top1, None, 0.0, 0.0, nll, 10)

    assert is_better(score(0.1, 9.0), None)
    assert is_better(score(0.6, 9.0), score(0.5, 1.0)) and not is_better(score(0.5, 1.0), score(0.6, 9.0))
    assert is_better(score(0.5, 1.0), score(0.5, 2.0)) and not is_better(score(0.5, 2.0), score(0.5, 1.0))
    assert not is_better(score(0.5, 1.0), score(0.5, 1.0))


def test_counts_by_hand() -> None:
    # Class 0: 3 of 4 right, one taken for class 2; class 1: absent; class 2: 1 of 2 right, one taken for 1.
    found = scores_of_counts([4, 0, 2], [3, 0, 1], [3, 1, 2], top5_correct=None, nll_sum=3.0)
    assert found.present() == pytest.approx(
        {
            "top1": 4 / 6,
            "mean_per_class_accuracy": 0.625,
            "macro_f1": (6 / 7 + 2 / 4) / 2,
            "nll": 0.5,
            "count": 6,
        }
    )

"""Which row is shown at each sample index: classes in exact numbers, rows in turn, whatever divides the steps."""

import numpy as np
import pytest
import torch
from data.numbered import rows_of, slices

from vitft.data import order
from vitft.data.class_counts import class_counts, rows_by_class
from vitft.data.images import ImageSplit
from vitft.data.row_order import ClassSampling, RowOrder, epoch_quotas
from vitft.data.train_batches import StepSlices, TrainBatches

COUNTS = (60, 30, 9, 0, 1)


@pytest.fixture(scope="module")
def skewed():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(5), COUNTS))
    return ImageSplit("train", None, ("image",), labels)


@pytest.mark.parametrize(
    ("counts", "power", "expected"),
    [
        (COUNTS, 0, [25, 25, 25, 0, 25]),
        (COUNTS, 0.5, [45, 32, 17, 0, 6]),
        (COUNTS, 1, list(COUNTS)),
        ((5, 2), 0, [3, 4]),  # the odd one goes to the smaller class
        ((7,), 0, [7]),
    ],
)
def test_quotas_are_those_of_a_hand_computation(counts, power, expected):
    assert epoch_quotas(np.array(counts), power).tolist() == expected


def test_quotas_of_many_classes_are_less_than_one_away_from_their_shares():
    counts = np.random.default_rng(1).zipf(1.5, 3000).clip(max=10**6)
    for power in (0, 0.5):
        shares = counts**power / (counts**power).sum() * counts.sum()
        quotas = epoch_quotas(counts, power)
        assert quotas.sum() == counts.sum() and np.abs(quotas - shares).max() < 1


def test_rows_by_class_are_a_stable_sort_of_the_labels(skewed):
    chunks = np.array_split(skewed.labels, 7)
    rows = rows_by_class(chunks, class_counts(chunks, 5))
    assert rows.dtype == np.int32 and rows.tolist() == np.argsort(skewed.labels, kind="stable").tolist()


def test_every_epoch_has_its_quotas_and_every_class_goes_through_its_rows_in_turn(skewed):
    sampling = ClassSampling.of(skewed, 5, 0.5)
    rows, times = RowOrder(3, 100, sampling).at(torch.arange(1000))
    labels = torch.from_numpy(skewed.labels)[rows]
    for epoch in labels.view(10, 100):
        assert torch.bincount(epoch, minlength=5).tolist() == epoch_quotas(np.array(COUNTS), 0.5).tolist()
    shown = torch.bincount(rows, minlength=100)
    for k in (0, 1, 2, 4):
        of_class = shown[torch.from_numpy(skewed.labels) == k]
        assert of_class.max() - of_class.min() <= 1 and of_class.max() > 5
    for row in range(100):  # within an epoch the order is mixed, so the times of a row come in any order
        assert sorted(times[rows == row].tolist()) == list(range(int(shown[row])))
    assert not torch.equal(rows[:100].sort().values, rows[100:200].sort().values)
    assert not torch.equal(rows, RowOrder(4, 100, sampling).at(torch.arange(1000)).rows)


def test_what_is_shown_depends_on_nothing_but_seed_and_sample_index(skewed):
    row_order = RowOrder(3, 100, ClassSampling.of(skewed, 5, 0))
    together = row_order.at(torch.arange(300)).rows
    some = torch.tensor([299, 0, 17, 123])
    assert torch.equal(row_order.at(some).rows, together[some])


def test_a_member_is_taken_once_before_any_is_taken_again_whatever_the_sizes():
    for size in (1, 2, 5, 16, 17, 1000):
        draws = torch.arange(2 * size)
        both = [order.member_at(7, draws, torch.full_like(draws, size), torch.full_like(draws, k)) for k in (0, 1)]
        for members, passes in both:
            assert torch.equal(members.view(2, size).sort(1).values, torch.arange(size).expand(2, size))
            assert torch.equal(passes, draws // size)
        assert size < 10 or not torch.equal(both[0][0], both[1][0])
    members, _ = order.member_at(7, torch.tensor([3, 3, 3]), torch.tensor([5, 1000, 10**12]), torch.tensor([0, 0, 0]))
    assert members[0] == order.member_at(7, torch.tensor([3]), torch.tensor([5]), torch.tensor([0]))[0]
    assert members.min() >= 0 and members[2] < 10**12


def test_the_plain_order_shows_every_row_once_in_an_epoch():
    rows, times = RowOrder(5, 17).at(torch.arange(34))
    assert torch.equal(rows, order.sample_at(5, torch.arange(34), 17))
    assert times.tolist() == [0] * 17 + [1] * 17


# --- batches -----------------------------------------------------------------------------------------------


def uneven(source):
    """Return the numbered images as two classes, rows 0 to 39 and 40 to 52, and their sampling."""
    labels = (np.arange(len(source.train)) >= 40).astype(np.int64)
    return ClassSampling.of(ImageSplit("train", None, ("image",), labels), 2, 0)


def test_batches_are_the_same_for_any_number_of_processes_and_workers_and_from_any_step(source):
    def rows(steps, rank=0, world_size=1, workers=0):
        more = {"seed": 3, "stage_size": 8, "skip_bad": False, "workers": workers, "pin": False}
        batches = TrainBatches(source.train, slices(rank, world_size), sampling=uneven(source), **more)
        return [[row for batch in step for row in rows_of(batch)] for step in batches.steps(*steps)]

    alone = rows((0, 11))
    expected = RowOrder(3, 53, uneven(source)).at(torch.arange(106)).rows.tolist()
    assert [row for step in alone for row in step] == expected
    assert sum(row >= 40 for row in expected[:53]) == 27  # of 13 images
    assert [a + b for a, b in zip(rows((0, 11), 0, 2), rows((0, 11), 1, 2), strict=True)] == alone
    assert rows((4, 5), workers=1) == alone[4:5]


def test_the_next_good_image_of_the_sampled_order_takes_the_place_of_a_bad_one(broken):
    sampling = ClassSampling.of(broken.train, len(broken.classes), 0.5)
    common = {"seed": 0, "stage_size": 8, "skip_bad": True, "workers": 0, "pin": False}
    (step,) = TrainBatches(broken.train, StepSlices(20, 20, 20, 20), sampling=sampling, **common).steps(0, 1)
    intended = RowOrder(0, 20, sampling).at(torch.arange(20)).rows.tolist()
    assert {3, 11} & set(intended)
    following = [[*intended[place:], *intended[:place]] for place in range(20)]
    assert rows_of(step[0]) == [next(row for row in rows if row not in (3, 11)) for rows in following]

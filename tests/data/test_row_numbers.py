"""Row numbers and class counts, against lists of all rows."""

from __future__ import annotations

from collections.abc import Iterator

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitft.data import class_counts as counting
from vitft.data import row_numbers
from vitft.data.class_counts import class_counts, first_rows, in_chunks
from vitft.data.images import ImageSplit
from vitft.data.row_numbers import RowNumbers

LEFT_OUT = st.sets(st.integers(0, 29)).map(lambda rows: np.array(sorted(rows), dtype=np.int64))


@pytest.fixture(scope="module", autouse=True)
def small_chunks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_numbers, "CHUNK", 4)
        patch.setattr(counting, "CHUNK", 4)
        yield


@settings(max_examples=50, deadline=None)
@given(LEFT_OUT)
def test_all_rows_but_some_are_the_others_in_order(left_out: np.ndarray) -> None:
    numbers = RowNumbers.all_but(30, left_out)
    others = np.setdiff1d(np.arange(30), left_out)
    assert len(numbers) == len(others) and numbers.array().tolist() == others.tolist()
    assert [numbers[place] for place in range(len(numbers))] == others.tolist()
    assert numbers.left_out.tolist() == left_out.tolist()


def test_a_hundred_million_rows_but_one_take_no_memory_for_each() -> None:
    numbers = RowNumbers.all_but(10**8, np.array([5]))
    assert len(numbers) == 10**8 - 1 and numbers.gaps.nbytes == 8
    assert [numbers[place] for place in (4, 5, 10**8 - 2)] == [4, 6, 10**8 - 1]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-1, 5), min_size=1, max_size=30).map(np.array))
def test_classes_are_counted_in_chunks_as_at_once(labels: np.ndarray) -> None:
    counts = class_counts(in_chunks(labels), 6)
    assert counts.tolist() == [int((labels == k).sum()) for k in range(6)]
    present = labels[labels >= 0]
    firsts = first_rows(in_chunks(present), class_counts(in_chunks(present), 6))
    assert firsts.tolist() == [int(np.argmax(present == k)) if k in present else -1 for k in range(6)]


@pytest.mark.parametrize(
    "numbers", [RowNumbers.all_but(30, np.array([0, 7, 8, 29])), RowNumbers.only(np.array([9, 2]))]
)
def test_a_part_of_a_split_has_its_own_rows_and_labels(numbers: RowNumbers) -> None:
    rows = datasets.Dataset.from_dict({"image": [bytes([row]) for row in range(30)]})
    ids = np.arange(30) % 3
    whole = ImageSplit("train", rows, ("image",), ids, source_name="train")
    part = whole.part("validation", numbers)
    kept = numbers.array()
    assert [part.encoded(i) for i in range(len(part))] == [bytes([row]) for row in kept]
    assert [part.row(i).label() for i in range(len(part))] == part.labels.tolist() == ids[kept].tolist()
    assert part.class_counts(4).tolist() == np.bincount(ids[kept], minlength=4).tolist()
    assert part.where(1) == f"row {kept[1]} of train" and part.name == "validation"

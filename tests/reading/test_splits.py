from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from golden import folder, rows
from hypothesis import given, settings
from hypothesis import strategies as st

from vitft.data.images import ImageSplit
from vitft.data.order import sample_at
from vitft.data.row_numbers import RowNumbers
from vitft.errors import DataError
from vitft.reading import splits
from vitft.reading.source import open_source
from vitft.reading.splits import MAX_CARVED, Roles, assign_roles, carve, limit, named_split
from vitft.recipe.keys import DataRecipe


def roles(*names: str, known: Mapping[str, Any] | None = None, need_train: bool = True, **wanted: str) -> Roles:
    every = {role: wanted.get(role) for role in ("train", "validation", "test")}
    return assign_roles(names, every, known=known, need_train=need_train)


# --- which split serves for what ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("train", "validation", "test"), ("train", "validation", "test")),
        (("Training", "val", "eval"), ("Training", "val", "eval")),
        (("seg_train", "seg_test"), ("seg_train", None, "seg_test")),
        (("photos",), ("photos", None, None)),
        (("train", "extra"), ("train", None, None)),
        (("train", "trainval"), ("train", None, None)),
    ],
)
def test_names_tell_what_splits_serve_for(names: tuple[str, ...], expected: tuple[str | None, ...]) -> None:
    found = roles(*names)
    assert (found.train, found.validation, found.test) == expected


def test_a_split_that_is_not_used_is_named() -> None:
    assert roles("train", "extra").notes == ("splits not used: extra",)


def test_of_two_words_for_a_role_the_first_is_taken_and_the_other_named() -> None:
    found = roles("train", "dev", "valid")
    assert found.validation == "valid" and "not used: dev; to switch: --set data.validation_split=dev" in found.notes[0]


def test_two_splits_that_train_by_other_words_are_refused_with_the_ways_out() -> None:
    with pytest.raises(DataError, match=r"several .* train split: train_a, train_b(.|\n)*train_split=train_a\+train_b"):
        roles("train_a", "train_b", known={"train_a": "train", "train_b": "train"})


def test_what_the_source_says_wins_over_a_name() -> None:
    assert roles("a", "b", known={"a": "test", "b": "train"}).train == "b"


def test_a_source_without_a_training_split_is_an_error_that_lists_its_splits() -> None:
    with pytest.raises(DataError, match=r"no training split\n  allowed: one of its splits: val, test"):
        roles("val", "test")


def test_no_split_must_train_where_only_scores_are_wanted() -> None:
    found = roles("val", "test", need_train=False)
    assert (found.train, found.validation, found.test) == (None, "val", "test")


def test_splits_joined_by_plus_are_one_role() -> None:
    found = roles("a", "b", "c", train="a + c", validation="b")
    assert (found.train, found.validation, found.notes) == ("a+c", "b", ())


def test_a_part_of_joined_splits_cannot_be_in_another_role() -> None:
    with pytest.raises(DataError, match="'a' is asked for as both train and validation"):
        roles("a", "b", train="a+b", validation="a")


def test_all_that_is_not_held_out_trains() -> None:
    found = roles("0", "1", "2", validation="1")
    assert found.train == "0+2" and "0 + 2: all splits without another role" in found.notes[0]


def test_a_split_is_found_by_a_synonym() -> None:
    assert named_split(["train", "validation"], "val", "--split NAME") == "validation"


def test_a_split_that_is_not_there_gets_a_guess() -> None:
    with pytest.raises(DataError, match=r"no split 'tset'; did you mean 'test'\?(.|\n)*--split test"):
        named_split(["train", "test"], "tset", "--split NAME")


def test_joined_splits_train_together(tmp_path: Path) -> None:
    text = datasets.Value("string")
    parts = {"a": rows(["x", "y"] * 5, text), "b": rows(["y", "z"] * 5, text, 50), "c": rows(["z", "x"], text, 90)}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "d"))
    recipe = DataRecipe(dataset=str(tmp_path / "d"), train_split="a+b", validation_split="c")
    source = open_source(recipe, seed=0)
    assert isinstance(source.train, ImageSplit) and source.classes == ("x", "y", "z")
    assert np.bincount(source.train.labels).tolist() == [5, 10, 5]


def test_a_split_folder_with_a_plus_in_its_name_is_one_split(tmp_path: Path) -> None:
    root = folder(tmp_path / "p", **{"train+val__a": 4, "train+val__b": 4, "test__a": 2, "test__b": 2})
    source = open_source(DataRecipe(dataset=str(root)), seed=0)
    assert isinstance(source.train, ImageSplit) and source.train.source_name == "train+val"


def carved(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows that stay in training and those that become validation."""
    validation = carve(labels, fraction, seed=seed)
    return RowNumbers.all_but(len(labels), validation).array(), validation


# --- carving -----------------------------------------------------------------------------------------------


def test_carving_takes_a_tenth_of_each_class() -> None:
    labels = np.repeat(np.arange(4), [1000, 500, 30, 2])
    train, validation = carved(labels, 0.1, seed=3)
    assert np.bincount(labels[validation]).tolist() == [99, 50, 3, 1]
    assert np.array_equal(np.sort(np.concatenate([train, validation])), np.arange(len(labels)))


def test_carving_keeps_one_of_each_class_in_training_and_singles_there() -> None:
    labels = np.array([0, 1, 1, 2, 2, 2])
    train, validation = carved(labels, 0.9, seed=0)
    assert np.bincount(labels[train]).tolist() == [1, 1, 1]
    assert len(validation) == 3


def test_carving_stops_at_ten_thousand() -> None:
    labels = np.arange(200_000) % 7
    validation = carve(labels, 0.1, seed=0)
    counts = np.bincount(labels[validation])
    assert len(validation) == 10_000 and counts.max() - counts.min() <= 1


def test_carving_is_the_same_everywhere_and_another_by_seed() -> None:
    labels = np.arange(50) % 3
    # Written down once: a change would move images between training and validation of every user's dataset.
    assert carve(labels, 0.1, seed=0).tolist() == [22, 23, 30, 45, 46]
    assert carve(labels, 0.1, seed=1).tolist() == [16, 22, 32, 36, 42]


def test_limit_takes_equal_numbers_and_fills_up_from_larger_classes() -> None:
    labels = np.repeat(np.arange(4), [100, 100, 3, 1])
    kept = limit(labels, 20, seed=0)
    assert np.bincount(labels[kept]).tolist() == [8, 8, 3, 1]
    assert len(np.unique(kept)) == 20


def test_with_more_classes_than_are_carved_the_largest_have_one_each() -> None:
    counts = np.full(11_000, 2)
    counts[:500] = 3
    labels = np.repeat(np.arange(11_000), counts)
    train, validation = carved(labels, 0.1, seed=0)
    counts = np.bincount(labels[validation], minlength=11_000)
    assert len(validation) == MAX_CARVED and counts.max() == 1 and counts[:500].all()
    assert np.bincount(labels[train], minlength=11_000).all()


LABELS = st.lists(st.integers(0, 6), min_size=1, max_size=30).map(np.array)


@settings(max_examples=100, deadline=None)
@given(LABELS, st.floats(0.01, 0.99), st.integers(0, 9))
def test_carving_parts_all_rows_and_leaves_every_class_to_training(
    labels: np.ndarray, fraction: float, seed: int
) -> None:
    train, validation = carved(labels, fraction, seed=seed)
    assert sorted([*train, *validation]) == [*range(len(labels))]
    assert set(labels[train]) == set(labels)
    assert set(labels[validation]) == {label for label in set(labels) if (labels == label).sum() > 1}


@settings(max_examples=100, deadline=None)
@given(LABELS, st.integers(1, 70), st.integers(0, 9))
def test_a_limit_takes_as_many_as_asked_and_as_equally_as_can_be(labels: np.ndarray, most: int, seed: int) -> None:
    kept = limit(labels, most, seed=seed)
    assert len(kept) == min(most, len(labels)) == len(set(kept.tolist()))
    counts, all_counts = np.bincount(labels[kept], minlength=7), np.bincount(labels, minlength=7)
    not_whole = counts[counts < all_counts]
    assert not len(not_whole) or counts.max() - not_whole.min() <= 1


@pytest.mark.parametrize(
    ("per_class", "said"),
    [
        (2, "10 of the 20 rows of train (50.0%, so that every class has one if possible,"),
        (10, "10 of the 100 rows of train (10.0%, strat"),
    ],
)
def test_the_note_on_carving_says_the_true_share(tmp_path: Path, per_class: int, said: str) -> None:
    root = folder(tmp_path / "p", **{f"c{number}": per_class for number in range(10)})
    source = open_source(DataRecipe(dataset=str(root)), seed=0)
    assert [note for note in source.notes if said in note], source.notes


def test_a_limit_below_the_number_of_classes_names_what_is_lost(tmp_path: Path) -> None:
    root = folder(tmp_path / "p", a=6, b=6, c=6)
    source = open_source(DataRecipe(dataset=str(root), max_train_samples=2), seed=0)
    assert [note for note in source.notes if note.startswith("classes without a training image") and note[-1] in "abc"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=8, max_size=60).map(np.array), st.integers(0, 9), st.integers(0, 40))
def test_the_first_of_each_class_are_those_of_a_whole_permutation(labels: np.ndarray, seed: int, few: int) -> None:
    quota = np.minimum(np.bincount(labels, minlength=5), [0, 1, 2, 3, 60])
    with pytest.MonkeyPatch.context() as patch:  # small datasets fit into one look-up
        patch.setattr(splits, "CHUNK", 5)
        patch.setattr(splits, "_FEW", few)
        counts = np.bincount(labels, minlength=5)
        found = splits.first_of_each_class(labels, counts, quota, seed=seed, stream="carve")
    shuffled = sample_at(seed, torch.arange(len(labels)), len(labels), stream="carve").tolist()
    first = [row for k in range(5) for row in [row for row in shuffled if labels[row] == k][: quota[k]]]
    assert found.tolist() == sorted(first)

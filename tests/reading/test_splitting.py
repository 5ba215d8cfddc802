from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from vitft.errors import DataError
from vitft.reading.splitting import SplitColumn, find_split_column
from vitft.recipe.keys import DataRecipe


def find(columns: Mapping[str, Sequence[str]], **keys: Any) -> SplitColumn | None:
    return find_split_column(columns, DataRecipe(dataset="d", **keys), "t.csv")


@pytest.mark.parametrize(
    ("column", "values", "roles"),
    [
        ("split", ["test", "train", "val"], ["test", "train", "validation"]),
        ("Data Set", ["TEST", "TRAIN"], ["test", "train"]),
        ("whatever", ["test", "train"], ["test", "train"]),
        ("set", ["Train", "unlabeled"], ["train", None]),
        ("phase", ["train_set", "test_set"], ["train", "test"]),
        ("subset", ["train"], ["train"]),
    ],
)
def test_columns_that_part_the_rows(column: str, values: list[str], roles: list[str | None]) -> None:
    found = find({"label": ["a", "b"], column: values})
    assert found is not None and found.column == column and [found.roles[found.names[each]] for each in values] == roles


@pytest.mark.parametrize(
    ("column", "values", "names"),
    [
        ("is_training_image", ["0", "1"], {"0": "test", "1": "train"}),
        ("is_test", ["False", "True"], {"False": "train", "True": "test"}),
        ("validation", ["no", "yes"], {"no": "train", "yes": "validation"}),
    ],
)
def test_a_column_of_truths_parts_in_two(column: str, values: list[str], names: dict[str, str]) -> None:
    found = find({column: values})
    assert found is not None and found.names == names


@pytest.mark.parametrize(
    "columns",
    [
        {"label": ["cat", "dog"]},
        {"label": ["plane", "test", "train"]},
        {"label": ["train"]},
        {"split": ["0"]},
        {"split": [str(number) for number in range(60)]},
        {"dataset": ["cub", "imagenet"]},
        {"split": []},
    ],
    ids=["labels", "a train among vehicles", "only trains", "one value", "too many values", "a source", "no values"],
)
def test_columns_that_do_not_part_the_rows(columns: dict[str, list[str]]) -> None:
    assert find(columns) is None


@pytest.mark.parametrize(("column", "values"), [("fold", ["0", "1", "2"]), ("split", ["A", "B"]), ("set", ["x", "y"])])
def test_a_column_of_splits_that_nobody_knows_is_refused_with_both_ways_out(column: str, values: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        find({column: values})
    text = str(caught.value)
    assert "--set data.split_column=none" in text and f"--set data.split_column={column}" in text
    assert f"--set data.validation_split={values[0]}" in text


def test_the_wish_for_a_fold_makes_folds_splits() -> None:
    found = find({"fold": ["0", "1", "2"]}, validation_split="1")
    assert found is not None and found.names == {"0": "0", "1": "1", "2": "2"}


def test_none_takes_no_notice_of_splits() -> None:
    assert find({"split": ["train", "test"]}, split_column="none") is None


def test_the_users_column_is_taken_whatever_it_says() -> None:
    found = find({"split": ["train", "test"], "site": ["A", "B"]}, split_column="site")
    assert found is not None and found.names == {"A": "A", "B": "B"}


def test_a_column_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(DataError, match=r"no column 'splt'(.|\n)*allowed: split, label(.|\n)*data.split_column=split"):
        find({"split": ["train"], "label": ["a"]}, split_column="splt")


def test_the_note_says_what_each_value_means_and_how_to_leave_it() -> None:
    found = find({"is_test": ["0", "1"]})
    assert found is not None and "column is_test (0 -> train, 1 -> test)" in found.note
    assert found.note.endswith("; to ignore it: --set data.split_column=none")

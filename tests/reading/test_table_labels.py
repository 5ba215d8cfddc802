from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from vitft.errors import DataError
from vitft.reading.joining import Joined
from vitft.reading.table_labels import TableLabels, find_labels, refuse_several
from vitft.reading.tables import Table

Column = Sequence[str | None]


def find(
    columns: dict[str, Any], folders: Sequence[str] | None = None, *, wanted: str | None = None,
    split_column: str | None = None, is_listed: bool = False, classes: Sequence[str] | None = None,
) -> TableLabels | None:  # fmt: skip
    """Find the labels of a table whose row n is about the image n, in the folder ``folders[n]`` if there are any."""
    num_rows = len(next(iter(columns.values())))
    files = [f"{folders[row] if folders else ''}/{row}.jpg" for row in range(num_rows)]
    table = Table("t.csv", {"file": [str(row) for row in range(num_rows)], **columns}, is_listed)
    class_of = {file: file.partition("/")[0] for file in files} if folders else {}
    known = classes if classes is not None else set(folders or ())
    return find_labels(Joined(table, "file", files), class_of.get, known, wanted=wanted, split_column=split_column)


A, B = ["a", "b"] * 4, ["x", "y", "x", "x"] * 2


@pytest.mark.parametrize(
    ("columns", "column"),
    [
        ({"kind": B, "label": A}, "label"),
        ({"class_id": ["0", "1"] * 4, "class_name": A}, "class_name"),
        ({"species": A, "width": B}, "species"),
        ({"json.category": A}, "json.category"),
        ({"kind": A, "width": ["300"] * 8, "comment": B}, "kind"),
        ({"dataset": B, "kind": A}, "kind"),
        ({"kind": A, "score": ["0.25", "0.5"] * 4}, "kind"),
        ({"caption": [f"text {row}" for row in range(8)], "kind": A}, "kind"),
    ],
    ids=[
        "by name",
        "names before ids",
        "by a word",
        "inside a structure",
        "the only one",
        "no split",
        "no fractions",
        "no captions",
    ],
)
def test_which_column_holds_labels(columns: dict[str, Column], column: str) -> None:
    labels = find(columns)
    assert labels is not None and labels.column == column and labels.values == columns[column]


def test_another_column_named_like_a_label_is_named() -> None:
    labels = find({"label": A, "species": B})
    assert labels is not None and "not used: species; to switch: --set data.label_column=species" in labels.note


def test_a_column_that_names_the_folders_wins_over_its_name() -> None:
    labels = find({"label": B, "kind": ["A ", "b"] * 4}, folders=["a", "b"] * 4)
    assert labels is not None and labels.column == "kind" and "names the folders" in labels.note


def test_a_column_of_names_of_class_folders_elsewhere_wins() -> None:
    labels = find({"label": B, "kind": A}, classes=["a", "b", "c"])
    assert labels is not None and labels.column == "kind"


def test_the_users_column_wins() -> None:
    labels = find({"label": A, "width": ["1", "2"] * 4}, wanted="width")
    assert labels is not None and labels.column == "width"


def test_a_column_of_splits_is_no_label() -> None:
    labels = find({"set": ["train", "test"] * 4, "kind": A}, split_column="set")
    assert labels is not None and labels.column == "kind"


def test_a_column_without_any_value_is_no_label() -> None:
    labels = find({"label": [None] * 8, "kind": A})
    assert labels is not None and labels.column == "kind"


def test_a_column_chosen_as_the_only_one_is_not_sure() -> None:
    labels = find({"kind": A})
    assert labels is not None and not labels.is_sure


def test_measures_beside_class_folders_are_no_labels() -> None:
    assert find({"width": ["300", "400"] * 4, "height": ["1", "2"] * 4}, folders=["a", "b"] * 4) is None


def test_two_columns_that_could_be_labels_are_refused_with_their_counts() -> None:
    with pytest.raises(
        DataError,
        match=r"unclear which column .*\n.*kind \(2 values\), shape \(2 values\)\n.*label_column=kind",
    ):
        find({"kind": A, "shape": B})


def test_of_several_columns_of_a_list_none_is_taken() -> None:
    with pytest.raises(DataError, match=r"unclear which column .*\n.*column_2 .2 values.*column_3"):
        find({"column_2": A, "column_3": B}, is_listed=True)


# --- a column for each class -------------------------------------------------------------------------------


def test_a_column_of_0_and_1_for_each_class_names_the_class() -> None:
    labels = find({"cat": ["1.0", "0", "0"], "dog": ["0", "1", "0"]})
    assert labels is not None and labels.column == "cat,dog" and labels.values == ["cat", "dog", None]


def test_two_marks_in_a_row_are_refused_with_the_row() -> None:
    with pytest.raises(DataError, match=r"several labels per image \(row 1: cat, dog\)"):
        find({"cat": ["1", "1"], "dog": ["0", "1"]})


def test_measures_of_0_and_1_are_no_classes() -> None:
    labels = find({"kind": A, "x": ["0", "1"] * 4, "y": ["1", "0"] * 4})
    assert labels is not None and labels.column == "kind"


# --- several labels in one cell ----------------------------------------------------------------------------


@pytest.mark.parametrize("values", [["cat|dog", "cat"], ["cat|dog", "dog|eel", "eel"], ["Mass|Nodule", "No Finding"]])
def test_cells_of_several_labels_are_refused(values: list[str | None]) -> None:
    with pytest.raises(DataError, match=r"several labels per image \('.*\|.*'\); vitft supports one"):
        refuse_several(TableLabels("label", values), "t.csv")


@pytest.mark.parametrize("values", [["cat", "dog", None], []])
def test_one_label_in_each_cell_is_fine(values: list[str | None]) -> None:
    labels = TableLabels("label", [*values])
    refuse_several(labels, "t.csv")  # raises nothing
    assert labels.values == values

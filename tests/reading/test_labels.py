from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitft.errors import DataError
from vitft.reading.labels import (
    MISSING,
    Labels,
    column_values,
    join_similar,
    labels_of_text,
    onto_classes,
    read_labels,
    require_classes,
    require_labels,
    stream_label_ids,
    tidy_untyped,
)

TEXT = datasets.Value("string")


def read(values: Sequence[Any], feature: Any, parts: Any = ()) -> list[str | None]:
    """Return the name of each label."""
    rows = datasets.Dataset.from_dict({"label": list(values)}, features=datasets.Features({"label": feature}))
    return named(read_labels(rows, "label", parts))


def read_arrow(values: Any, kind: pa.DataType, feature: Any) -> Labels:
    table = datasets.table.InMemoryTable(pa.table({"label": pa.array(values, kind)}))
    info = datasets.DatasetInfo(features=datasets.Features({"label": feature}))
    return read_labels(datasets.Dataset(table, info), "label")


def named(labels: Labels) -> list[str | None]:
    return [None if index == MISSING else labels.names[index] for index in labels.ids.tolist()]


def labels(*names: str | None, is_declared: bool = False) -> Labels:
    found = labels_of_text(pa.chunked_array([pa.array(names, pa.string())]))
    return Labels(found.ids, found.names, is_declared, found.num_trimmed)


# --- columns -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "feature", "expected"),
    [
        (["b", " a", "", None], TEXT, ["b", "a", None, None]),
        (["b", "a"], datasets.Value("large_string"), ["b", "a"]),
        (["10", "9", "010"], TEXT, ["10", "9", "010"]),
        ([1, 0, None, -1], datasets.ClassLabel(names=["x", "y"]), ["y", "x", None, None]),
        ([True, False], datasets.Value("bool"), ["true", "false"]),
        ([3, -1, -100, None, 7], datasets.Value("int64"), ["3", None, None, None, "7"]),
        ([-1, 1], datasets.Value("int8"), ["-1", "1"]),
        ([3, 7], datasets.Value("uint8"), ["3", "7"]),
        ([1.0, float("nan"), 2.0], datasets.Value("float32"), ["1", None, "2"]),
    ],
    ids=["text", "large text", "digits", "declared", "truths", "missing", "a sign", "unsigned", "gaps"],
)
def test_labels_of_a_column(values: list[Any], feature: Any, expected: list[str | None]) -> None:
    assert read(values, feature) == expected


@pytest.mark.parametrize("kind", ["uint64", "float64"])
def test_numbers_too_large_to_count_are_refused(kind: str) -> None:
    with pytest.raises(DataError, match="numbers that are not class ids"):
        read_arrow(np.array([2**63 + 2048, 0], kind), getattr(pa, kind)(), datasets.Value(kind))


def test_fractions_are_refused() -> None:
    with pytest.raises(DataError, match="holds fractions"):
        read([0.5, 1.0], datasets.Value("float64"))


def test_an_id_without_a_name_is_refused() -> None:
    with pytest.raises(DataError, match="contains the id 5, but has only 2 classes"):
        read_arrow([0, 5], pa.int64(), datasets.ClassLabel(names=["a", "b"]))


def test_files_that_number_classes_differently_are_joined_by_name() -> None:
    parts = [(2, ("cat", "dog")), (3, ("dog", "eel", "cat"))]
    found = read([0, 1, 0, 1, 2], datasets.ClassLabel(names=["cat", "dog", "eel"]), parts)
    assert found == ["cat", "dog", "dog", "eel", "cat"]


def test_rows_that_were_shuffled_before_they_were_saved_keep_their_labels() -> None:
    rows = datasets.Dataset.from_dict({"label": ["a", "b", "c"]}).select([2, 0])
    assert named(read_labels(rows, "label")) == ["c", "a"]


def test_a_column_inside_a_structure_is_read() -> None:
    rows = datasets.Dataset.from_dict({"json": [{"label": "b"}, {"label": "a"}]})
    assert named(read_labels(rows, "json.label")) == ["b", "a"]


def test_values_of_declared_classes_are_their_names() -> None:
    features = datasets.Features({"split": datasets.ClassLabel(names=["train", "test"])})
    rows = datasets.Dataset.from_dict({"split": [1, 0, -1]}, features=features)
    assert column_values(rows, "split").to_pylist() == ["test", "train", None]


def test_spaces_around_a_label_are_dropped_and_counted() -> None:
    found = labels("cat", "cat ", "\tdog")
    assert found.names == ("cat", "dog") and found.num_trimmed == 2


def test_composed_and_decomposed_labels_are_one_class() -> None:
    assert labels("caf\u00e9", "cafe\u0301").names == ("caf\u00e9",)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.none(), st.text(max_size=4)), max_size=12))
def test_every_text_is_its_own_label_but_for_spaces_around_it(texts: list[str | None]) -> None:
    found = named(labels(*texts))
    assert len(found) == len(texts)
    for text, name in zip(texts, found, strict=True):
        assert (name is None) == (text is None or not text.strip())


# --- labels of files without types -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_labels", "expected"),
    [
        (["2.0", "10", None], ["2", "10", None]),
        (["-1", "0", "1"], [None, "0", "1"]),
        (["-1", "1"], ["-1", "1"]),
        (["-100", "3"], [None, "3"]),
        (["007", "7"], ["007", "7"]),
        (["2.0", "cat"], ["2.0", "cat"]),
        (["0.5", "cat"], ["0.5", "cat"]),
        ([None, None], [None, None]),
    ],
)
def test_labels_that_know_no_types(given_labels: list[str | None], expected: list[str | None]) -> None:
    assert tidy_untyped(given_labels, "t.csv") == expected


def test_fractions_in_a_table_are_refused() -> None:
    with pytest.raises(DataError, match=r"are fractions \(0\.25, 3\)"):
        tidy_untyped(["0.25", "3"], "t.csv")


# --- by name -----------------------------------------------------------------------------------------------


def onto(names: Sequence[str], classes: Sequence[str], **keys: Any) -> tuple[list[int], list[str], list[str]]:
    ids, unknown, notes = onto_classes(labels(*names), classes, **keys)
    return ids.tolist(), unknown, notes


def test_labels_are_matched_by_name_and_not_by_number() -> None:
    assert onto(["cat", "dog"], ["dog", "eel", "cat"]) == ([2, 0], [], [])


def test_names_written_otherwise_are_matched_and_said() -> None:
    ids, unknown, notes = onto(["BLACK_cat", "dog"], ["dog", "black cat"])
    assert (ids, unknown) == ([1, 0], [])
    assert notes == ["classes matched despite different spelling: BLACK_cat -> black cat"]


def test_an_exact_name_comes_before_one_that_is_alike() -> None:
    assert onto(["cat"], ["Cat", "cat"]) == ([1], [], [])


def test_names_that_differ_in_case_are_other_classes_for_who_says_so() -> None:
    assert onto(["Cat"], ["cat"], exactly=True)[1] == ["Cat"]


def test_classes_that_are_not_there_are_returned() -> None:
    assert onto(["cat", "fox"], ["cat"]) == ([0, -1], ["fox"], [])


@pytest.mark.parametrize(("name", "classes"), [("crane", ["crane", "bird", "crane"]), ("CAT", ["Cat", "dog", "cat"])])
def test_a_name_of_several_classes_is_refused_with_their_ids(name: str, classes: list[str]) -> None:
    with pytest.raises(DataError, match=rf"several classes of the model are called '{name}' \(ids 0, 2\)"):
        onto([name], classes)


def test_a_repeated_name_that_no_label_has_does_not_matter() -> None:
    assert onto(["bird"], ["crane", "bird", "crane"])[0] == [1]


def test_where_neither_side_has_names_the_numbers_are_taken_and_said() -> None:
    ids, unknown, notes = onto(["2", "0"], ["LABEL_0", "LABEL_1", "LABEL_2"])
    assert (ids, unknown) == ([2, 0], []) and "matched by number" in notes[0]


def test_numbers_beyond_the_models_are_taken_in_order_if_they_are_as_many() -> None:
    assert onto(["30", "10"], ["LABEL_0", "LABEL_1"])[0] == [1, 0]


def test_names_are_not_taken_for_numbers() -> None:
    assert onto(["cat", "dog"], ["LABEL_0", "LABEL_1"])[1] == ["cat", "dog"]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.sampled_from(["cat", "sea lion", "Tree Frog", "x-ray", "7"]), min_size=1, unique=True), st.data())
def test_any_writing_of_a_class_finds_it(classes: list[str], data: st.DataObject) -> None:
    write = data.draw(st.sampled_from([str, str.upper, str.title, lambda name: name.replace(" ", "_"), str.casefold]))
    found = onto_classes(labels(*map(write, classes)), classes)
    assert found[0].tolist() == [*range(len(classes))] and not found[1]


# --- names that differ only a little -----------------------------------------------------------------------

SIMILAR = ("cat", "Cat", "Cat", "dog", "dog_")


def test_similar_names_are_two_readings() -> None:
    said = r"'Cat' \(2\), 'cat' \(1\); 'dog' \(1\), 'dog_' \(1\)(.|\n)*keep leaves 4 classes"
    with pytest.raises(DataError, match=said):
        join_similar(labels(*SIMILAR), "stop", [])


def test_merged_names_take_the_one_that_is_written_most() -> None:
    notes: list[str] = []
    assert named(join_similar(labels(*SIMILAR), "merge", notes)) == ["Cat", "Cat", "Cat", "dog", "dog"]
    assert notes[0].startswith("classes joined")


def test_merging_leaves_rows_without_a_label_without_one() -> None:
    assert named(join_similar(labels("cat", "Cat", None), "merge", []))[2] is None


@pytest.mark.parametrize(("similar", "is_declared"), [("keep", False), ("stop", True)])
def test_names_are_kept_apart_by_wish_or_by_declaration(similar: Any, is_declared: bool) -> None:
    assert len(join_similar(labels(*SIMILAR, is_declared=is_declared), similar, []).names) == 4


# --- what training needs -----------------------------------------------------------------------------------


def test_rows_without_a_label_are_counted_and_named() -> None:
    with pytest.raises(DataError, match=r"2 of 4 rows of train have no label .*: rows 1, 3"):
        require_labels(labels("a", None, "b", ""), "train")


def test_one_class_cannot_be_trained() -> None:
    with pytest.raises(DataError, match="all 2 training images have the same label, 'a'"):
        require_classes(labels("a", "a"), "train")


def test_two_declared_classes_of_one_name_are_refused() -> None:
    with pytest.raises(DataError, match="have the same name: crane"):
        require_classes(Labels(np.array([0, 1, 2]), ("crane", "bird", "crane"), True), "train")


@pytest.mark.parametrize(
    ("feature", "classes", "expected"),
    [
        (datasets.ClassLabel(names=["a", "b"]), ("b", "a"), {0: 1, 1: 0}),
        (datasets.Value("bool"), ("false", "true"), {False: 0, True: 1}),
        (TEXT, ("x", "y"), {"x": 0, "y": 1}),
        (datasets.Value("int64"), ("3", "7"), {3: 0, 7: 1}),
    ],
    ids=["declared", "truths", "text", "numbers"],
)
def test_a_streams_raw_values_find_their_class(feature: Any, classes: tuple[str, ...], expected: object) -> None:
    assert stream_label_ids(feature, classes) == expected

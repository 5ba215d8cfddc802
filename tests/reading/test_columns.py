from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import pytest
from golden import bmp
from small_trees import images

from vitft.errors import DataError
from vitft.reading.columns import describe_columns, find_image_columns, find_label_column, flat_features

IMAGE, TEXT, NUMBER = datasets.Image(), datasets.Value("string"), datasets.Value("int64")
CATS = datasets.ClassLabel(names=["a", "b"])


def image_column(features: Mapping[str, Any], *rows: Mapping[str, Any], wanted: str | None = None, **keys: Any) -> str:
    return find_image_columns(features, rows, wanted, keys.pop("folders", ()), **keys)[0][0]


def label_column(wanted: str | None = None, **features: Any) -> str:
    return find_label_column({"image": IMAGE, **features}, "image", wanted)[0]


# --- images ------------------------------------------------------------------------------------------------


def test_an_image_column_is_known_by_its_type() -> None:
    assert image_column({"label": CATS, "x": IMAGE}) == "x"


def test_of_two_the_one_named_like_images_is_taken_and_the_other_named() -> None:
    columns, notes = find_image_columns({"mask": IMAGE, "image": IMAGE}, [], None, ())
    assert columns == ("image",) and notes == [
        "image column: image; not used: mask; to switch: --set data.image_column=mask"
    ]


def test_columns_of_which_each_row_fills_one_are_taken_together() -> None:
    columns, _ = find_image_columns({"jpg": IMAGE, "png": IMAGE}, [], None, (), are_parts=lambda _: True)
    assert columns == ("jpg", "png")


@pytest.mark.parametrize(
    ("feature", "value"),
    [
        ({"bytes": datasets.Value("binary"), "path": TEXT}, None),
        (datasets.Value("binary"), bmp(1)),
        (datasets.Value("large_binary"), bmp(1)),
        (TEXT, "1.bmp"),
    ],
    ids=["a structure", "bytes", "large bytes", "paths"],
)
def test_images_without_a_type_are_known_by_their_content(tmp_path: Path, feature: Any, value: Any) -> None:
    folders = (str(images(tmp_path, "1.bmp")),)
    assert image_column({"y": NUMBER, "x": feature}, {"y": 1, "x": value}, folders=folders) == "x"


@pytest.mark.parametrize(
    ("features", "row", "said"),
    [
        ({"x": datasets.Value("binary")}, {"x": b"no image"}, r"no image column\n.*it has: x \(binary\)"),
        ({"x": TEXT}, {"x": "gone.jpg"}, r"'x' names image files, but gone\.jpg does not exist"),
        ({"x": TEXT}, {"x": "https://example.org/a.jpg?size=1"}, r"holds URLs such as https://example.org"),
        ({}, {}, r"it has: none"),
    ],
)
def test_no_image_column_says_what_there_is(features: Any, row: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        find_image_columns(features, [row], None, ())


def test_a_wanted_column_without_images_is_refused() -> None:
    with pytest.raises(DataError, match=r"the column 'y' \(int64\) holds no images"):
        image_column({"x": IMAGE, "y": NUMBER}, {"x": None, "y": 1}, wanted="y")


def test_a_wanted_column_that_is_not_there_gets_a_guess() -> None:
    with pytest.raises(DataError, match=r"no column 'imag'; did you mean 'image'\?"):
        image_column({"image": IMAGE}, wanted="imag")


# --- labels ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({"text": TEXT, "kind": CATS}, "kind"),
        ({"few": CATS, "many": datasets.ClassLabel(names=["a", "b", "c"])}, "many"),
        ({"width": NUMBER, "label": NUMBER}, "label"),
        ({"x": TEXT, "category": TEXT}, "category"),
        ({"json": {"label": TEXT, "id": NUMBER}}, "json.label"),
        ({"width": NUMBER, "kind": TEXT}, "kind"),
        ({"split": TEXT, "kind": TEXT}, "kind"),
        ({"__key__": TEXT, "cls": NUMBER}, "cls"),
        ({"label": datasets.List(NUMBER), "class": TEXT}, "class"),
    ],
    ids=["a type", "most classes", "a name", "a word", "nested", "no measure", "no split", "no key", "no list"],
)
def test_which_column_is_the_label(features: dict[str, Any], expected: str) -> None:
    assert label_column(**features) == expected


@pytest.mark.parametrize(
    ("features", "said"),
    [
        ({}, r"no label column(.|\n)*it has: image \(Image\)"),
        ({"width": NUMBER}, "no label column"),
        ({"kind": TEXT, "shape": TEXT}, "unclear which column is the label"),
        ({"label": datasets.Value("float32")}, "no label column"),
        ({"label": datasets.List(NUMBER)}, "several labels per image"),
        ({"x": datasets.List(CATS)}, "several labels per image"),
    ],
)
def test_a_label_that_cannot_be_found_is_refused(features: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        label_column(**features)


def test_floats_that_are_whole_are_labels_if_they_are_named_so() -> None:
    features = {"image": IMAGE, "label": datasets.Value("float32"), "x": datasets.Value("float32")}
    assert find_label_column(features, "image", None, is_whole=lambda _: True)[0] == "label"


def test_a_declared_column_of_splits_is_no_label() -> None:
    features = {"image": IMAGE, "split": datasets.ClassLabel(names=["train", "val", "test"]), "label": CATS}
    assert find_label_column(features, "image", None, split_column="split")[0] == "label"


@pytest.mark.parametrize("feature", [datasets.List(CATS), datasets.Value("timestamp[s]"), IMAGE], ids=str)
def test_a_wanted_column_that_can_hold_no_labels_is_refused(feature: Any) -> None:
    with pytest.raises(DataError, match=r"cannot be the label|several labels per image"):
        label_column("x", x=feature)


def test_what_is_inside_a_structure_is_named_by_its_way() -> None:
    assert [*flat_features({"a": {"b": {"c": TEXT}}, "image": {"bytes": TEXT, "path": TEXT}})] == ["a.b.c", "image"]


def test_columns_are_described_by_their_types() -> None:
    features = {"a": IMAGE, "b": CATS, "c": datasets.List(TEXT), "d": {"e": TEXT}}
    assert describe_columns(features) == "a (Image), b (ClassLabel of 2), c (list of string), d (structure of e)"

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from golden import folder, rows
from small_trees import images

from vitft.reading.overview import Overview, overview_of, overview_of_split
from vitft.reading.source import open_for_evaluation, open_source
from vitft.recipe.keys import DataRecipe


def seen(dataset: Path, **keys: Any) -> Overview:
    return overview_of(open_source(DataRecipe(dataset=str(dataset), **keys), seed=0))


def many(number: int) -> Overview:
    classes = {f"class {k:02}": {"train": 10 + k} for k in range(number)}
    return Overview("d", {"train": 99}, {"train": "train"}, classes, "", {}, {}, [])


@pytest.fixture
def split_folders(tmp_path: Path) -> Path:
    root = folder(tmp_path / "p", Training__a=6, Training__b=6, val__a=2, val__b=2, testing__a=3, testing__b=3)
    images(root, "Training/a/.hidden.bmp")
    return root


def test_splits_have_their_counts_and_their_own_names(split_folders: Path) -> None:
    lines = [*seen(split_folders).lines()]
    assert lines[0] == f"dataset  {split_folders}"
    assert [" ".join(line.split()) for line in lines[1:4]] == [
        "train 12 images (Training)", "validation 4 images (val)", "test 6 images (testing)"
    ]  # fmt: skip


def test_a_carved_validation_is_said_to_be_a_part(tmp_path: Path) -> None:
    text = str(seen(folder(tmp_path / "p", a=10, b=10)))
    assert "validation         2 images  (part of train)" in text


def test_classes_are_listed_with_counts_by_split_and_an_example(split_folders: Path) -> None:
    assert "  a  train 6  validation 2  test 3  Training/a/00.bmp" in seen(split_folders).lines()


def test_where_labels_come_from_is_said(split_folders: Path) -> None:
    assert "classes  2, from the names of the folders" in seen(split_folders).lines()


def test_what_was_left_out_is_counted_by_its_reason(split_folders: Path) -> None:
    assert seen(split_folders).left_out == {"hidden files and folders": 1}


def test_every_note_stands_below(split_folders: Path) -> None:
    overview = seen(split_folders)
    assert overview.notes and str(overview).count("\n  note: ") == len(overview.notes)


def test_twenty_classes_are_all_listed() -> None:
    assert sum("class " in line for line in many(20).lines()) == 20


def test_of_more_classes_the_largest_and_the_smallest_are_listed() -> None:
    lines = [*many(21).lines()]
    assert "classes  21" in lines
    assert "  largest   class 20 30, class 19 29, class 18 28, class 17 27, class 16 26" in lines
    assert "  smallest  class 04 14, class 03 13, class 02 12, class 01 11, class 00 10" in lines


def test_names_that_a_terminal_would_obey_are_escaped() -> None:
    name = "a\x1b[2Jb\nc"
    overview = Overview(name, {"train": 1}, {"train": name}, {name: {"train": 1}}, name, {name: name}, {}, [name])
    assert "\x1b" not in str(overview) and len(str(overview).splitlines()) == 5


def test_plain_values_are_json_and_hold_everything(split_folders: Path) -> None:
    plain = json.loads(json.dumps(seen(split_folders).plain()))
    assert plain["splits"] == {"train": 12, "validation": 4, "test": 6}
    assert plain["classes"]["b"] == {"train": 6, "validation": 2, "test": 3}
    assert plain["examples"] == {"a": "Training/a/00.bmp", "b": "Training/b/00.bmp"}
    assert plain.keys() == {
        "dataset", "splits", "sources", "classes", "labels_from", "examples", "left_out", "notes"
    }  # fmt: skip


def test_images_without_a_path_are_named_by_their_row(tmp_path: Path) -> None:
    names = datasets.ClassLabel(names=["cat", "dog"])
    datasets.DatasetDict({"train": rows([0, 1] * 6, names), "test": rows([1, 0], names, 50)}).save_to_disk(
        str(tmp_path / "d")
    )
    assert seen(tmp_path / "d").examples["dog"].startswith("row ")


def test_a_stream_shows_its_classes_and_what_it_knows_of_counts(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    rows([0, 1] * 20, datasets.ClassLabel(names=["cat", "dog"])).to_parquet(tmp_path / "p" / "train.parquet")
    text = str(seen(tmp_path / "p", streaming=True))
    assert "classes  2" in text and "  cat dog" in text and "36 images" in text


def test_a_scored_split_shows_the_models_classes_that_it_has(tmp_path: Path) -> None:
    recipe = DataRecipe(dataset=str(folder(tmp_path / "p", test__a=3, test__b=3)))
    split = open_for_evaluation(recipe, ["b", "c", "a"], split="test")
    overview = overview_of_split(split, ["b", "c", "a"], "photos")
    assert overview.classes == {"b": {"test": 3}, "a": {"test": 3}} and overview.splits == {"test": 6}
    assert "1 of the model's 3 classes have no images here" in overview.notes

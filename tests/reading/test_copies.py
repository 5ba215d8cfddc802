from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest
from golden import bmp, rows
from hypothesis import given, settings
from hypothesis import strategies as st
from small_trees import images, write

from vitft.data.images import ImageSplit
from vitft.errors import DataError
from vitft.reading import copies
from vitft.reading.copies import Side, find_copies, part_splits
from vitft.reading.encoded import EncodedImages
from vitft.reading.source import open_source
from vitft.recipe.keys import DataRecipe


def side(name: str, contents: Sequence[bytes | str], folder: Path | None = None) -> Side:
    """Return a split of bytes, or of files in a folder."""
    kind = pa.string() if folder else pa.binary()
    table = datasets.Dataset(datasets.table.InMemoryTable(pa.table({"image": pa.array(contents, kind)})))
    numbers = np.arange(len(contents))
    folders = (str(folder),) if folder else ()
    split = ImageSplit(name, table, ("image",), numbers * 0, folders, name)
    return Side(split, EncodedImages(table.data.column("image"), folders))


def test_the_same_bytes_are_found_with_one_place_each() -> None:
    found = find_copies(side("train", [b"a", b"bb", b"cc", b"bb"]), side("test", [b"cc", b"x", b"bb"]))
    assert found.pairs == [(2, 0), (1, 2)]


def test_other_bytes_of_the_same_length_and_end_are_no_copies() -> None:
    end = b"0" * 600
    assert find_copies(side("train", [b"a" + end]), side("test", [b"b" + end])).pairs == []


def test_empty_images_are_no_copies_of_each_other() -> None:
    assert find_copies(side("train", [b""]), side("test", [b""])).pairs == []


def test_files_are_compared_by_what_is_in_them(tmp_path: Path) -> None:
    write(tmp_path, {"train/1.bmp": 1, "train/2.bmp": 2, "test/9.bmp": 2})
    train, test = side("train", ["train/1.bmp", "train/2.bmp"], tmp_path), side("test", ["test/9.bmp"], tmp_path)
    assert find_copies(train, test).pairs == [(1, 0)]


def test_files_that_are_not_there_are_no_copies(tmp_path: Path) -> None:
    assert find_copies(side("train", ["gone.bmp"], tmp_path), side("test", ["gone.bmp"], tmp_path)).pairs == []


def test_a_file_and_the_same_bytes_in_a_column_are_copies(tmp_path: Path) -> None:
    images(tmp_path, "0.bmp")
    assert find_copies(side("train", [bmp(0)]), side("test", ["0.bmp"], tmp_path)).pairs == [(0, 0)]


def test_of_very_many_files_evenly_spaced_ones_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "_MOST_FILES", 20)
    write(tmp_path, {f"{place}/{number}.bmp": number for place in ("train", "test") for number in range(16)})
    sides = [side(place, [f"{place}/{number}.bmp" for number in range(16)], tmp_path) for place in ("train", "test")]
    found = find_copies(*sides)
    assert 0 < found.num_left == 16 - len(found.pairs) < 16
    *_, said = part_splits(sides, are_accepted=True)
    assert said == (
        f"{found.num_left} of 16 images of test were not compared with those of train: too many have the same size"
    )


def test_of_very_many_images_in_a_column_evenly_spaced_ones_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "_MOST_BYTES", 20)
    contents = [bytes(size) for size in range(1, 17)]
    found = find_copies(side("train", contents), side("test", contents))
    assert 0 < found.num_left == 16 - len(found.pairs) < 16


def test_rows_that_are_the_other_side_themselves_do_not_count() -> None:
    whole, part = side("train", [b"a", b"bb", b"bb", b"ccc"]), side("validation", [b"bb", b"ccc"])
    assert find_copies(whole, part, apart_from=np.array([1, 3])).pairs == [(2, 0)]


@settings(max_examples=80, deadline=None)
@given(*[st.lists(st.binary(max_size=2), max_size=8)] * 2)
def test_every_image_that_is_on_both_sides_is_found(train: list[bytes], test: list[bytes]) -> None:
    found = find_copies(side("train", train), side("test", test))
    on_both = [row for row, image in enumerate(test) if image and image in train]
    assert [theirs for _, theirs in found.pairs] == on_both
    assert all(train[mine] == test[theirs] for mine, theirs in found.pairs)


def test_copies_are_refused_with_some_of_them_named() -> None:
    both = [bytes([number]) * 9 for number in range(5)]
    with pytest.raises(DataError) as caught:
        list(part_splits([side("train", both), side("val", [b"x"]), side("test", both)], are_accepted=False))
    text = str(caught.value)
    assert "5 of 5 images of test are also in train: row 0 of test is row 0 of train" in text
    assert "; ..." in text and "--set data.allow_overlap=true" in text


def test_copies_are_noted_with_some_of_them_named() -> None:
    [note] = part_splits([side("train", [b"a", b"b"]), side("test", [b"b"])], are_accepted=True)
    assert note == "1 of 1 images of test are also in train: row 0 of test is row 1 of train"


# --- in a dataset ------------------------------------------------------------------------------------------


def overlapping(root: Path) -> str:
    names = datasets.ClassLabel(names=["cat", "dog"])
    parts = {"train": rows([0, 1] * 6, names), "test": rows([1, 0], names, 11)}
    datasets.DatasetDict(parts).save_to_disk(str(root))
    return str(root)


def test_an_image_in_two_splits_of_ones_own_data_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 of 2 images of test are also in train: row 0 of test is row 11 of train"):
        open_source(DataRecipe(dataset=overlapping(tmp_path / "d")), seed=0)


def test_an_overlap_that_is_allowed_is_noted(tmp_path: Path) -> None:
    source = open_source(DataRecipe(dataset=overlapping(tmp_path / "d"), allow_overlap=True), seed=0)
    assert [note for note in source.notes if note.startswith("1 of 2 images of test are also in train")]


def test_a_linked_test_folder_that_is_the_training_folder_is_refused(tmp_path: Path) -> None:
    images(tmp_path, *(f"train/{name}/{number}.bmp" for name in "ab" for number in range(4)))
    (tmp_path / "test").symlink_to("train")
    with pytest.raises(DataError, match="8 of 8 images of test are also in train"):
        open_source(DataRecipe(dataset=str(tmp_path)), seed=0)


def test_copies_across_a_carved_validation_split_are_noted(tmp_path: Path) -> None:
    write(tmp_path, {f"{name}/{number}.bmp": ord(name) for name in "ab" for number in range(10)})
    source = open_source(DataRecipe(dataset=str(tmp_path)), seed=0)
    assert [note for note in source.notes if "2 of the 2 images carved out for validation have a copy in train" in note]

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_trees import described, images, listed

from vitft.reading.joining import MISSING, FileIndex, Joined, join_table, names_images
from vitft.reading.listing import Listing
from vitft.reading.tables import Table


def index(*paths: str) -> FileIndex:
    listing = Listing("/photos")
    for path in paths:
        folder, _, name = path.rpartition("/")
        listing.images.setdefault(folder, []).append(name)
    return FileIndex(listing)


def joined(paths: tuple[str, ...], name: str = "t.csv", role: str | None = None, **columns: list[str | None]) -> Joined:
    found = join_table(Table(name, columns), index(*paths), role=role)
    assert found is not None
    return found


# --- as people write paths ---------------------------------------------------------------------------------

PART = st.sampled_from(["a", "b", "Cat", "café", "1 2"])
STEM = st.sampled_from(["1", "01", "img_1", "Ü"])
FILE = st.builds(lambda parts, stem, end: "/".join([*parts, stem + end]), st.lists(PART, min_size=1, max_size=3), STEM,
                 st.sampled_from([".jpg", ".PNG", ".jpeg"]))  # fmt: skip
FORMS = {
    "relative": lambda path: path,
    "from here": lambda path: f"./{path}",
    "backslashes": lambda path: path.replace("/", "\\"),
    "a drive": lambda path: "C:\\Users\\Ann\\data\\" + path.replace("/", "\\"),
    "absolute": lambda path: f"/home/ann/data/{path}",
    "kaggle": lambda path: f"../input/dataset/{path}",
    "an address": lambda path: f"s3://bucket/{path}",
    "two slashes": lambda path: path.replace("/", "//"),
    "decomposed": lambda path: unicodedata.normalize("NFD", path),
    "spaces around": lambda path: f" {path} ",
    "without suffix": lambda path: path[: path.rindex(".")],
    "bare": lambda path: path.rpartition("/")[2],
    "bare, no suffix": lambda path: path.rpartition("/")[2].rpartition(".")[0],
    "another suffix's case": lambda path: path[: path.rindex(".")] + path[path.rindex(".") :].swapcase(),
}


@settings(max_examples=200, deadline=None)
@given(st.sets(FILE, min_size=1, max_size=8), st.sampled_from(sorted(FORMS)), st.data())
def test_every_form_of_a_path_finds_its_file_or_is_ambiguous(files: set[str], form: str, data: st.DataObject) -> None:
    file = data.draw(st.sampled_from(sorted(files)))
    found, depth = index(*sorted(files)).find(FORMS[form](file), "")
    assert file in found and depth >= 1


@settings(max_examples=60, deadline=None)
@given(st.sets(FILE, min_size=1, max_size=8), st.sampled_from(sorted(FORMS)))
def test_no_row_gets_the_image_of_another(files: set[str], form: str) -> None:
    paths = sorted(files)
    table = Table("t.csv", {"image": [FORMS[form](path) for path in paths]})
    found = join_table(table, index(*paths), role=None, wanted="image")
    assert found is not None
    for row, path in enumerate(paths):
        assert found.files[row] in (path, MISSING) and (found.files[row] == path) != (row in found.ambiguous)


def test_a_path_counts_from_the_table_first_and_then_from_the_folder() -> None:
    files = index("a/1.jpg", "labels/a/1.jpg")
    assert files.find("a/1.jpg", "labels")[0] == ["labels/a/1.jpg"]
    assert files.find("a/1.jpg", "")[0] == ["a/1.jpg"]
    assert files.find("../a/1.jpg", "labels")[0] == ["a/1.jpg"]


def test_of_files_with_one_name_a_row_means_the_one_in_its_split() -> None:
    files = FileIndex(described({"train": 1, "test": 1}), lambda path: path.partition("/")[0])
    assert files.find("0.jpg", "", "test")[0] == ["test/0.jpg"]


def test_of_files_with_one_name_a_row_means_the_one_beside_its_table() -> None:
    assert index("a/x/1.jpg", "b/x/1.jpg").find("1.jpg", "b")[0] == ["b/x/1.jpg"]


def test_a_suffix_that_is_written_must_be_right() -> None:
    assert index("a/1.jpg").find("1.png", "")[0] == []


def test_a_file_beside_the_folder_is_found_by_its_path(tmp_path: Path) -> None:
    images(tmp_path, "photos/1.jpg", "elsewhere/2.jpg")
    files = FileIndex(listed(tmp_path / "photos"))
    expected = [str(tmp_path / "elsewhere" / "2.jpg")]
    assert files.find("../elsewhere/2.jpg", "")[0] == expected
    assert files.find(str(tmp_path / "elsewhere" / "2.jpg"), "")[0] == expected


@pytest.mark.parametrize("text", ["", " ", "/", "..", "a\0b.jpg", "x" * 5000 + ".jpg", "~", "\\", "C:", "http://"])
def test_what_is_no_path_finds_nothing(text: str) -> None:
    assert index("a/1.jpg").find(text, "")[0] == []


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=20))
def test_any_text_may_be_looked_for(text: str) -> None:
    found, _ = index("a/1.jpg", "2.png").find(text, "a")
    assert set(found) <= {"a/1.jpg", "2.png"}


# --- the column of the files -------------------------------------------------------------------------------

FILES = tuple(f"{number}.jpg" for number in range(300, 304))


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"width": ["300", "301"], "file": ["302.jpg", "303.jpg"]}, "file"),
        ({"label": ["x", "y"], "id": ["300", "301"]}, "id"),
        ({"mask": ["300.jpg", "301.jpg"], "image": ["302.jpg", "303.jpg"]}, "image"),
        ({"file": ["300.jpg", "gone.jpg"], "other": ["gone.jpg", "lost.jpg"]}, "file"),
        ({"file": ["300.jpg", *[f"gone{number}.jpg" for number in range(20)]]}, "file"),
    ],
    ids=["a width is no file", "an id without suffix", "named like files", "most found", "one found of many"],
)
def test_the_column_by_which_files_are_found(columns: dict[str, list[str | None]], expected: str) -> None:
    assert joined(FILES, **columns).column == expected


@pytest.mark.parametrize(
    "columns",
    [{"width": ["300", "301"]}, {"file": ["a.jpg", "b.jpg"]}, {"label": ["x", "y"]}, {"split": ["300", "301"]}, {}],
    ids=["a width", "not here", "no files", "a split", "no columns"],
)
def test_a_table_that_names_no_image_is_not_joined(columns: dict[str, list[str | None]]) -> None:
    assert join_table(Table("t.csv", columns), index(*FILES), role=None) is None


def test_the_users_column_is_taken() -> None:
    table = Table("t.csv", {"image": ["300.jpg"], "mask": ["301.jpg"]})
    found = join_table(table, index(*FILES), role=None, wanted="mask")
    assert found is not None and found.files == ["301.jpg"]


def test_rows_whose_file_is_not_there_are_missing_and_empty_ones_are_not() -> None:
    found = joined(FILES, file=["300.jpg", "gone.jpg", None, "301.jpg"])
    assert found.files == ["300.jpg", MISSING, MISSING, "301.jpg"] and found.missing == [1]


def test_a_row_with_another_folder_is_not_the_file_of_the_same_name() -> None:
    found = joined(("cat/1.jpg", "cat/2.jpg"), file=["cat/1.jpg", "dog/2.jpg"])
    assert found.files == ["cat/1.jpg", MISSING] and found.missing == [1]


def test_folders_that_are_nowhere_here_are_somebody_elses() -> None:
    assert joined(("1.jpg", "2.jpg"), file=["/data/x/1.jpg", "/data/x/2.jpg"]).files == ["1.jpg", "2.jpg"]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [({"x": ["a.jpg", "b.jpg", "c"]}, "x"), ({"x": ["a.jpg", "b", "c"]}, None), ({"x": [None]}, None), ({}, None)],
)
def test_texts_that_look_like_images_are_told(columns: dict[str, list[str | None]], expected: str | None) -> None:
    assert names_images(Table("t.csv", columns)) == expected

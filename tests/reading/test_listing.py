from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_trees import images, listed, write

from vitft.errors import DataError
from vitft.reading.listing import (
    HIDDEN,
    NOT_FILES,
    NOT_UTF8,
    count,
    describe_left_out,
    image_files,
    is_image_name,
)


def test_images_are_sorted_by_folder_and_other_files_stand_apart(tmp_path: Path) -> None:
    listing = listed(write(tmp_path, {"b/2.jpg": 1, "b/1.PNG": 2, "a.webp": 3, "b/notes.txt": "", "x.csv": ""}))
    assert listing.images == {"": ["a.webp"], "b": ["1.PNG", "2.jpg"]}
    assert listing.others == ["b/notes.txt", "x.csv"]
    assert listing.paths() == ["a.webp", "b/1.PNG", "b/2.jpg"] and listing.num_images == 3


@pytest.mark.parametrize("place", [".hidden.jpg", ".cache/a.jpg", "__MACOSX/a.jpg", "a/@eaDir/deep/a.jpg"])
def test_hidden_images_are_left_out_and_counted(tmp_path: Path, place: str) -> None:
    listing = listed(images(tmp_path, "a/1.jpg", place))
    assert listing.paths() == ["a/1.jpg"] and listing.left_out == {HIDDEN: [place]}


def test_hidden_files_of_other_kinds_are_not_mentioned(tmp_path: Path) -> None:
    assert listed(write(tmp_path, {"a/.DS_Store": "", "__MACOSX/a/labels.csv": ""})).others == []


def test_a_name_that_is_not_utf8_is_left_out_with_all_below_it(tmp_path: Path) -> None:
    bad = os.fsencode(tmp_path) + b"/caf\xe9"
    try:
        os.mkdir(bad)  # noqa: PTH102
    except OSError:
        pytest.skip("this file system takes Unicode only")
    Path(os.fsdecode(bad), "1.jpg").touch()
    listing = listed(images(tmp_path, "a/1.jpg"))
    assert listing.paths() == ["a/1.jpg"] and list(listing.left_out) == [NOT_UTF8]


def test_a_reason_is_told_with_names_that_can_be_printed() -> None:
    [said] = describe_left_out({NOT_UTF8: [os.fsdecode(b"b\xe9/1.jpg"), "a.jpg"]})
    assert said == "2 images left out: names that are not UTF-8 (a.jpg, ...)"
    [said] = describe_left_out({NOT_UTF8: [os.fsdecode(b"b\xe9/1.jpg")]})
    assert said.isprintable() and said.isascii()


def test_a_pipe_is_no_image(tmp_path: Path) -> None:
    os.mkfifo(images(tmp_path, "1.jpg") / "2.jpg")
    listing = listed(tmp_path)
    assert listing.paths() == ["1.jpg"] and listing.left_out == {NOT_FILES: ["2.jpg"]}


def test_a_pipe_called_like_a_table_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(images(tmp_path, "a/1.jpg") / "labels.csv")
    assert listed(tmp_path).others == []


def test_a_table_whose_link_leads_nowhere_is_listed_as_it_must_be_missed(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").symlink_to("gone.csv")
    assert listed(tmp_path).others == ["labels.csv"]


# --- links -------------------------------------------------------------------------------------------------


def test_a_linked_folder_is_followed_even_beside_the_one_it_leads_to(tmp_path: Path) -> None:
    images(tmp_path, "test/a/1.jpg")
    (tmp_path / "val").symlink_to("test")
    assert listed(tmp_path).paths() == ["test/a/1.jpg", "val/a/1.jpg"]


def test_a_link_out_of_the_folder_is_followed(tmp_path: Path) -> None:
    images(tmp_path, "store/1.jpg", "photos/b/1.jpg")
    (tmp_path / "photos" / "a").symlink_to(tmp_path / "store")
    (tmp_path / "photos" / "b" / "2.jpg").symlink_to(tmp_path / "store" / "1.jpg")
    assert listed(tmp_path / "photos").paths() == ["a/1.jpg", "b/1.jpg", "b/2.jpg"]


@pytest.mark.parametrize("target", ["..", ".", "../.."])
def test_a_link_to_a_folder_above_is_not_followed_but_named(tmp_path: Path, target: str) -> None:
    images(tmp_path, "p/a/b/1.jpg")
    (tmp_path / "p" / "a" / "b" / "up").symlink_to(target)
    listing = listed(tmp_path / "p")
    assert listing.paths() == ["a/b/1.jpg"] and listing.loops == ["a/b/up"]


def test_two_folders_that_link_to_each_other_end(tmp_path: Path) -> None:
    images(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "a" / "to_b").symlink_to("../b")
    (tmp_path / "b" / "to_a").symlink_to("../a")
    listing = listed(tmp_path)
    assert {"a/1.jpg", "b/2.jpg", "a/to_b/2.jpg", "b/to_a/1.jpg"} == set(listing.paths())
    assert sorted(listing.loops) == ["a/to_b/to_a", "b/to_a/to_b"]


def test_links_that_would_multiply_without_end_are_stopped(tmp_path: Path) -> None:
    images(tmp_path, "deep/1.jpg")
    for level in range(8):  # 4 ** 8 ways to the same image
        folder = tmp_path / f"level{level}"
        folder.mkdir()
        for way in range(4):
            (folder / f"way{way}").symlink_to(f"../level{level + 1}" if level < 7 else "../deep")
    listing = listed(tmp_path)
    assert listing.num_images < 2000 and listing.loops


def test_an_image_whose_link_leads_nowhere_is_listed_as_it_must_be_missed(tmp_path: Path) -> None:
    images(tmp_path, "1.jpg")
    (tmp_path / "2.jpg").symlink_to("gone.jpg")
    assert listed(tmp_path).paths() == ["1.jpg", "2.jpg"]


def test_a_folder_that_cannot_be_read_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images(tmp_path, "shut/1.jpg")
    scandir = os.scandir

    def refuse(path: str) -> object:
        if path.endswith("shut"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr("vitft.reading.listing.os.scandir", refuse)
    with pytest.raises(DataError, match=r"cannot read the folder .*shut: Permission denied"):
        listed(tmp_path)


# --- properties --------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "B", "1.jpg", "2.JPEG", "x.tif", "é.png", ".h", ".i.jpg", "__MACOSX", "t.txt", "jpg"])
PATHS = st.sets(st.lists(NAMES, min_size=1, max_size=3).map("/".join), max_size=12)


@settings(max_examples=40, deadline=None)
@given(PATHS)
def test_every_image_is_read_or_left_out_once_and_nothing_else_is(paths: set[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted(paths):
            try:
                write(Path(folder), {path: ""})
            except OSError:
                continue  # a folder of this name is there, or a file on the way
        there = sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())
        listing = listed(Path(folder))
        left_out = [path for paths in listing.left_out.values() for path in paths]
        assert sorted([*listing.paths(), *left_out]) == [path for path in there if is_image_name(path)]
        assert not [path for path in listing.paths() if "/." in f"/{path}" or "__MACOSX" in path]
        assert not set(listing.others) & {*listing.paths(), *left_out} and set(listing.others) <= set(there)
        assert image_files(folder) == [os.path.join(folder, path) for path in listing.paths()]  # noqa: PTH118


@pytest.mark.parametrize(("name", "is_one"), [("a.JPG", True), ("a.jpg.txt", False), ("jpg", False), (".jpg", True)])
def test_suffixes_tell_images(name: str, is_one: bool) -> None:
    assert is_image_name(name) is is_one


def test_counts_have_their_plural() -> None:
    assert [count(1, "image"), count(0, "image"), count(2000, "row")] == ["1 image", "0 images", "2,000 rows"]

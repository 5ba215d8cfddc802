from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from golden import bmp

from vitft.data.images import ImageSplit, StreamSplit
from vitft.errors import DataError
from vitft.reading.source import open_source
from vitft.reading.tars import holds_examples, open_tars
from vitft.recipe.keys import DataRecipe


def tar(path: Path, **members: bytes | str | int) -> str:
    """Write a tar; ``a__b_jpg`` stands for a/b.jpg, a number for its image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, content in members.items():
            data = (
                bmp(content) if isinstance(content, int) else content.encode() if isinstance(content, str) else content
            )
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return str(path)


def mixed(path: Path, labels: str = "abab", first: int = 0) -> str:
    """Write a tar whose images are jpg and png in turn."""
    members: dict[str, bytes | str | int] = {}
    for number, label in enumerate(labels):
        members |= {f"{number}.{'jpg' if number % 2 else 'png'}": first + number, f"{number}.cls": label}
    return tar(path, **members)


def test_images_of_mixed_suffixes_are_one_column(tmp_path: Path) -> None:
    rows = open_tars([mixed(tmp_path / "a.tar")], is_streaming=False)
    assert [row["bytes"] for row in rows["image"]] == [bmp(number) for number in range(4)]


def test_text_labels_stay_as_they_are_written(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", **{"0.jpg": 0, "0.cls": "007\n", "1.jpg": 1, "1.cls": " dog "})
    assert open_tars([path], is_streaming=False)["cls"] == ["007", "dog"]


def test_json_members_become_columns(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", **{"0.jpg": 0, "0.json": '{"label": "a", "box": [1, 2]}', "1.jpg": 1, "1.json": "{"})
    rows = open_tars([path], is_streaming=False)
    assert rows["json.label"] == ["a", None]


def test_members_that_appear_late_are_columns_too(tmp_path: Path) -> None:
    members: dict[str, bytes | str | int] = {f"{number:02}.jpg": number for number in range(20)}
    path = tar(tmp_path / "a.tar", **members, **{"19.cls": "x"})
    assert open_tars([path], is_streaming=False)["cls"][19] == "x"


def test_folders_in_a_tar_part_examples_of_one_name(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", **{"a/0.jpg": 0, "a/0.cls": "a", "b/0.jpg": 1, "b/0.cls": "b"})
    assert open_tars([path], is_streaming=False)["cls"] == ["a", "b"]


def test_what_macos_puts_beside_members_is_passed_over(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", **{"._0.jpg": "x", "0.jpg": 0, "0.cls": "a", "._0.cls": "y"})
    assert open_tars([path], is_streaming=False)["cls"] == ["a"]


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", **{"0.jpg": 0, "0.mask.png": 1, "0.cls": "a"})
    with pytest.raises(DataError, match=r"several images with the same name \(\.mask\.png\)"):
        open_tars([path], is_streaming=False)


def test_a_tar_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no images"):
        open_tars([tar(tmp_path / "a.tar", **{"0.cls": "a"})], is_streaming=False)


@pytest.mark.parametrize("is_streaming", [False, True])
def test_a_tar_that_is_cut_off_is_named(tmp_path: Path, is_streaming: bool) -> None:
    path = Path(mixed(tmp_path / "a.tar"))
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(DataError, match=r"cannot read .*a\.tar"):
        open_tars([str(path)], is_streaming=is_streaming)


def test_a_tar_that_was_changed_is_not_taken_from_the_cache(tmp_path: Path) -> None:
    path = mixed(tmp_path / "a.tar", "aabb")
    assert open_tars([path], is_streaming=False)["cls"] == [*"aabb"]
    mixed(tmp_path / "a.tar", "aabba")
    assert open_tars([path], is_streaming=False)["cls"] == [*"aabba"]


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"0.jpg": 0, "0.cls": "a"}, True),
        ({"0.jpg": 0, "1.jpg": 1}, False),
        ({"notes.txt": "x"}, False),
        ({}, False),
    ],
    ids=["examples", "an archive of images", "an archive", "empty"],
)
def test_an_archive_of_files_is_no_webdataset(
    tmp_path: Path, members: dict[str, bytes | str | int], expected: bool
) -> None:
    assert holds_examples(tar(tmp_path / "a.tar", **members)) is expected


def test_a_broken_tar_counts_as_examples_so_that_it_is_said_when_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"no tar")
    assert holds_examples(str(path))


def test_a_local_tar_of_mixed_suffixes_trains(tmp_path: Path) -> None:
    mixed(tmp_path / "w" / "train-0.tar", "abab" * 3)
    source = open_source(DataRecipe(dataset=str(tmp_path / "w")), seed=0)
    assert isinstance(source.train, ImageSplit) and source.classes == ("a", "b")
    assert {source.train.encoded(row) for row in range(len(source.train))} < {bmp(number) for number in range(12)}


def test_a_stream_of_a_local_tar_of_mixed_suffixes_has_every_image_with_its_label(tmp_path: Path) -> None:
    mixed(tmp_path / "w" / "train-0.tar", "abab" * 3)
    mixed(tmp_path / "w" / "val-0.tar", "baab", 100)
    source = open_source(DataRecipe(dataset=str(tmp_path / "w"), streaming=True), seed=0)
    assert isinstance(source.train, StreamSplit) and source.classes == ("a", "b")
    seen = [(source.train.encoded(row), source.train.label(row)) for row in source.train.rows]
    assert sorted(seen) == sorted((bmp(number), number % 2) for number in range(12))

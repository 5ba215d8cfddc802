from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa
import pytest

from vitft.errors import DataError
from vitft.reading.guard import guard_classes
from vitft.reading.labels import Labels, labels_of_text


def labels(names: Sequence[str], each: int = 5, *, is_declared: bool = False) -> Labels:
    found = labels_of_text(pa.chunked_array([pa.array([*names] * each, pa.string())]))
    return Labels(found.ids, found.names, is_declared)


def guard(names: Sequence[str], each: int = 5, others: Sequence[Labels] = (), *, are_folders: bool = True) -> None:
    guard_classes(labels(names, each), "the names of the folders", others=others, are_folders=are_folders)


def refusal(do: Callable[[], None]) -> str:
    """Return why classes are refused; empty if they are not."""
    try:
        do()
    except DataError as error:
        return error.wrong
    return ""


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["train", "test"], "test, train are split names"),
        (["seg_train", "seg_test", "seg_pred"], "are split names"),
        (["train", "extra"], "train are split names"),
        (["fold1", "fold2", "fold3"], "are folds"),
        (["2024-05-30", "2024-05-31"], "are dates"),
        (["20240530", "20240531"], "are dates"),
        (["cat", "dog", "unlabeled"], "unlabeled is beside 2 class folders, but its name says that its images"),
        (["cat", "dog", "Unsorted_images"], "Unsorted_images is"),
        (["images", "masks"], "kinds of file"),
        (["cats", "labels"], "kinds of file"),
    ],
)
def test_folders_that_are_no_classes_are_refused(names: list[str], why: str) -> None:
    with pytest.raises(DataError, match=why):
        guard(names)


@pytest.mark.parametrize(
    "names",
    [
        ["control", "test"],
        ["train", "plane", "car", "ship"],
        ["cat", "dog"],
        [str(number) for number in range(100)],
        ["1990", "2000"],
        ["20240530", "cat"],
        ["cat", "unknown"],
        ["mask", "no mask"],
        ["a", "b", "c", "labels"],
    ],
    ids=lambda names: names[0],
)
def test_folders_that_are_classes_pass(names: list[str]) -> None:
    assert refusal(lambda: guard(names)) == ""


@pytest.mark.parametrize("number", [20, 200])
def test_numbers_with_gaps_in_a_column_look_like_a_measure(number: int) -> None:
    with pytest.raises(DataError, match=rf"{number} different numbers from 300 to \d+, like a measure"):
        guard([str(300 + 7 * each) for each in range(number)], are_folders=False)


@pytest.mark.parametrize(
    ("names", "each"),
    [([*map(str, range(300, 340))], 5), ([str(7 * k) for k in range(10)], 5), ([str(7 * k) for k in range(30)], 20)],
    ids=["no gaps", "few", "many images each"],
)
def test_numbers_that_may_be_classes_pass(names: list[str], each: int) -> None:
    assert refusal(lambda: guard(names, each, are_folders=False)) == ""


@pytest.mark.parametrize("are_folders", [True, False])
def test_a_class_for_each_image_is_refused(are_folders: bool) -> None:
    with pytest.raises(DataError, match="its own label"):
        guard([f"image {chr(97 + number)}" for number in range(9)], 1, are_folders=are_folders)


def test_captions_that_come_twice_now_and_then_are_refused() -> None:
    texts = [f"a photo of {number}" for number in range(150)]
    with pytest.raises(DataError, match="there are 150 classes for 160 images"):
        guard_classes(labels([*texts, *texts[:10]], 1), "the column text", others=(), are_folders=False)


def test_classes_that_come_again_in_another_split_are_meant() -> None:
    names = [f"person {chr(97 + number)}" for number in range(9)]
    assert refusal(lambda: guard(names, 1, [labels(names, 2)])) == ""
    assert refusal(lambda: guard(names, 1))


def test_declared_classes_are_taken_as_they_are() -> None:
    declared, plain = (labels(["train", "test"], is_declared=each) for each in (True, False))
    assert refusal(lambda: guard_classes(declared, "", others=(), are_folders=True)) == ""
    assert refusal(lambda: guard_classes(plain, "", others=(), are_folders=True))


def test_the_refusal_shows_the_reading_and_the_ways_out() -> None:
    with pytest.raises(DataError) as caught:
        guard(["train", "test"])
    text = str(caught.value)
    assert "Read from the names of the folders: 2 classes: test, train" in text
    assert "--set data.class_level=N" in text and "--set data.accept_classes=true" in text

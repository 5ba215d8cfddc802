from __future__ import annotations

import pytest
from small_trees import described

from vitft.reading.class_level import mask_files
from vitft.reading.folders import read_places
from vitft.reading.places import MASKS, OUTSIDE, STRAY, Places


def read(*, wanted: tuple[str, ...] = (), level: int | None = None, accept: bool = False, **counts: int) -> Places:
    """Read folders of so many images; ``a__b`` stands for a/b."""
    listing = described({name.replace("__", "/"): number for name, number in counts.items()})
    return read_places(listing, wanted=wanted, class_level=level, accept_classes=accept)


def read_paths(counts: dict[str, int], **keys: object) -> Places:
    return read_places(described(counts), **keys)  # type: ignore[arg-type]


def said(places: Places) -> str:
    assert places.problem is not None, places
    return str(places.problem)


# --- classes -----------------------------------------------------------------------------------------------


def test_folders_are_classes_and_numbers_stand_by_their_value() -> None:
    assert read(**{"10": 2, "9": 2, "0": 2}).classes == ["0", "9", "10"]


def test_a_wrapping_folder_is_passed_through_with_a_note() -> None:
    places = read(flowers__flowers__a=2, flowers__flowers__b=2)
    assert places.classes == ["a", "b"] and "flowers/flowers, which only wraps" in places.notes[0] + places.notes[1]


def test_a_folder_that_only_says_images_is_passed_through() -> None:
    assert read(images__a=2, images__b=2).classes == ["a", "b"]


def test_archives_cut_into_folders_of_images_are_laid_together() -> None:
    places = read(images_001__images__a=2, images_001__images__b=2, images_002__images__b=3)
    assert places.classes == ["a", "b"] and places.problem is None


def test_deeper_folders_belong_to_the_class_above_them() -> None:
    places = read(a=2, b=2, b__more=3)
    assert places.class_of["b/more"] == "b" and places.notes == [
        "3 images in deeper folders take the class of the folder above them"
    ]


def test_a_folder_inside_each_class_is_no_second_reading() -> None:
    assert read(a__images=2, b__images=2).classes == ["a", "b"]
    assert read(a__a_1=2, b__b_1=2).classes == ["a", "b"]


def test_masks_beside_images_are_left_out() -> None:
    places = read(a__images=2, a__masks=2, b__images=2, b__masks=2)
    assert places.classes == ["a", "b"] and places.left_out == {"a/masks": MASKS, "b/masks": MASKS}


def test_masks_above_classes_are_left_out() -> None:
    places = read(images__a=2, images__b=2, masks__a=2, masks__b=2)
    assert places.classes == ["a", "b"] and places.left_out == {"masks/a": MASKS, "masks/b": MASKS}


def test_images_and_masks_alone_name_no_classes() -> None:
    assert read(images=4, masks=4).classes == []


def test_images_and_masks_are_classes_for_who_says_so() -> None:
    assert read(images=4, masks=4, accept=True).classes == ["images", "masks"]


def test_composed_and_decomposed_names_are_one_class() -> None:
    places = read_paths({"train/caf\u00e9": 2, "train/tea": 2, "test/cafe\u0301": 1, "test/tea": 1})
    assert places.classes == ["caf\u00e9", "tea"]


def test_images_above_the_classes_are_strays() -> None:
    places = read_paths({"": 1, "a": 2, "b": 2})
    assert places.left_out == {"": STRAY} and "" not in places.class_of


def test_flat_images_have_no_class_and_no_problem() -> None:
    places = read_paths({"": 4})
    assert places.classes == [] and places.problem is None and places.split_of == {"": "train"}


# --- splits ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "test"), ("Training Set", "Testing Set"), ("seg_train", "seg_test"), ("train_images", "val_images"),
        ("trainset", "testset"), ("train2017", "val2017"), ("TRAIN", "Eval"), ("data_train", "data_test"),
    ],
)  # fmt: skip
def test_split_folders_are_known_by_any_of_their_words(train: str, test: str) -> None:
    places = read_paths({f"{train}/a": 3, f"{train}/b": 3, f"{test}/a": 1, f"{test}/b": 1})
    assert places.classes == ["a", "b"] and places.has_splits and places.split_of[f"{test}/a"] == test
    assert places.roles[train] == "train" and places.roles[test] in ("test", "validation")


def test_a_class_called_test_is_a_class() -> None:
    assert read(test=4, control=4).classes == ["control", "test"]


def test_a_class_called_train_among_vehicles_is_a_class() -> None:
    assert read(train=4, plane=4, car=4).classes == ["car", "plane", "train"]


def test_splits_below_each_class_are_one_split_each() -> None:
    places = read(a__train=3, a__test=1, b__train=3, b__test=1)
    assert places.classes == ["a", "b"] and set(places.split_of.values()) == {"train", "test"}


def test_a_class_with_images_in_one_split_only_is_read_with_the_others() -> None:
    places = read(a__train=3, a__test=1, b__train=3)
    assert places.classes == ["a", "b"] and places.split_of["b/train"] == "train"


def test_splits_may_lie_below_a_folder_which_is_said() -> None:
    places = read(data__train__a=2, data__train__b=2, data__test__a=1, data__test__b=1)
    assert places.classes == ["a", "b"] and places.notes[0] == "splits are read below data/"


def test_the_same_folder_twice_as_archives_leave_it_is_passed_through() -> None:
    places = read(train__train__a=2, train__train__b=2, test__test__a=1, test__test__b=1)
    assert places.classes == ["a", "b"] and places.problem is None


def test_a_test_split_of_flat_images_is_a_split_without_labels() -> None:
    places = read(train__a=4, train__b=4, test=3)
    assert places.split_of["test"] == "test" and places.class_of["test"] is None


def test_images_outside_of_the_splits_are_left_out() -> None:
    places = read_paths({"data/train/a": 4, "data/train/b": 4, "data/test/a": 2, "data/test/b": 2, "samples": 1})
    assert places.left_out == {"samples": OUTSIDE} and places.problem is None


def test_more_images_outside_of_the_splits_than_inside_are_two_readings() -> None:
    assert "with splits" in said(read_paths({"data/train/a": 2, "data/test/a": 1, "a": 9, "b": 9}))


def test_a_split_folder_that_the_user_names_is_one() -> None:
    places = read(wanted=("fold1", "fold2"), fold1__a=2, fold1__b=2, fold2__a=2, fold2__b=2)
    assert places.classes == ["a", "b"] and set(places.split_of.values()) == {"fold1", "fold2"}


def test_a_folder_beside_the_splits_does_not_say_where_classes_are() -> None:
    places = read(train__a=5, train__b=5, test__a=2, test__b=2, extra__x__y=1)
    assert places.classes[:2] == ["a", "b"] and places.roles["extra"] is None


# --- two readings ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "counts",
    [
        {"fold0/a": 2, "fold0/b": 2, "fold1/a": 2, "fold1/b": 2},
        {"full/a": 2, "full/b": 2, "thumbs/a": 2, "thumbs/b": 2},
        {"dogs/lab": 2, "dogs/pug": 2, "cats/tabby": 2, "cats/manx": 2},
        {"40X/benign": 2, "40X/malignant": 2, "100X/benign": 2, "100X/malignant": 2},
    ],
    ids=lambda counts: next(iter(counts)),
)
def test_two_levels_that_could_be_classes_are_shown_with_their_counts(counts: dict[str, int]) -> None:
    text = said(read_paths(counts))
    assert "level 1: 2 classes" in text and "level 2:" in text and "--set data.class_level=1 or --set" in text


@pytest.mark.parametrize(("level", "classes"), [(1, ["cats", "dogs"]), (2, ["lab", "manx", "pug", "tabby"])])
def test_the_users_level_of_classes_is_taken(level: int, classes: list[str]) -> None:
    places = read(level=level, dogs__lab=2, dogs__pug=2, cats__tabby=2, cats__manx=2)
    assert places.classes == classes and places.problem is None


def test_a_level_that_names_the_splits_is_refused() -> None:
    text = said(read(level=1, train__a=2, train__b=2, test__a=1, test__b=1))
    assert "level 1 of the folders names the splits" in text and "--set data.class_level=2" in text


def test_a_level_that_is_not_there_is_refused() -> None:
    assert "no image is in a folder at level 3" in said(read(level=3, a=2, b=2))


# --- masks by name -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "masks"),
    [
        (["1.png", "1_mask.png", "2.png"], ["1_mask.png"]),
        (["b (1).png", "b (1)_mask.png", "b (1)_mask_1.png"], ["b (1)_mask.png", "b (1)_mask_1.png"]),
        (["mask_1.png", "mask_2.png"], []),
        (["man_mask.png", "woman_mask.png"], []),
    ],
)  # fmt: skip
def test_a_mask_is_named_after_the_image_beside_it(names: list[str], masks: list[str]) -> None:
    assert list(mask_files(names)) == masks

from __future__ import annotations

import unicodedata
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitft.reading.words import (
    SPLIT_WORDS,
    Role,
    alike,
    flag_role,
    in_order,
    is_fold,
    is_images,
    is_label_name,
    is_masks,
    is_measure,
    is_size,
    is_split_name,
    roles_of,
    split_and_rest,
)

ROLES: tuple[Role, ...] = get_args(Role)
WRITTEN = st.sampled_from([str.lower, str.upper, str.title])
AROUND = st.sampled_from(["{}", "{}_set", "{}-images", "{} Set", "images_{}", "{}_2017", "{}.split", "01_{}"])
OWN = st.sampled_from(["", "seg_", "dogs_", "x-", "clothing "])


@settings(max_examples=100, deadline=None)
@given(st.data(), WRITTEN, AROUND, OWN)
def test_names_written_alike_are_the_splits_they_say(data: st.DataObject, written, around: str, own: str) -> None:  # type: ignore[no-untyped-def]
    roles = data.draw(st.lists(st.sampled_from(ROLES), min_size=2, unique=True))
    words = {role: data.draw(st.sampled_from(SPLIT_WORDS[role])) for role in roles}
    names = {own + around.format(written(word)): role for role, word in words.items()}
    assert roles_of(names) == names


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.text(max_size=12), st.sampled_from(["train", "x_test", "Val", "test2"])), unique=True))
def test_roles_do_not_depend_on_the_order_of_names(names: list[str]) -> None:
    assert roles_of(names) == roles_of(names[::-1])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(["cat", "trainer", "contest", "Latest", "protest", "device", "evaluate"]), unique=True))
def test_a_word_that_only_holds_a_split_word_is_no_split(names: list[str]) -> None:
    assert set(roles_of(names).values()) <= {None}


def test_further_words_count_only_beside_another_split_that_has_them() -> None:
    assert roles_of(["bullet_train", "test_tube"]) == {"bullet_train": None, "test_tube": None}
    assert roles_of(["seg_train", "seg_test", "seg_pred"]) == {
        "seg_train": "train",
        "seg_test": "test",
        "seg_pred": None,
    }


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("train_val_images", "train"), ("trainval", "train"), ("train_test_split", None), ("TrainSet", "train"),
        ("testset", "test"), ("TestImages", "test"), ("valid", "validation"), ("validation_data", "validation"),
        ("dataset", None), ("train2017", "train"), ("", None),
    ],
)  # fmt: skip
def test_what_a_name_says_of_a_split(name: str, role: Role | None) -> None:
    assert split_and_rest(name) == (role, ())


@pytest.mark.parametrize(
    ("question", "yes", "no"),
    [
        (is_masks, ["masks", "Labels", "ground_truth", "train_masks", "annotations"], ["cat", "mask_wearing_person"]),
        (is_images, ["images", "JPEGImages", "train_images", "img"], ["cat", "train", "image_of_cat"]),
        (is_fold, ["fold1", "Fold_3", "split_0", "cv2"], ["fold", "cat1", "train1"]),
        (is_size, ["thumbs", "224x224", "40X", "full"], ["cat", "x-ray"]),
        (is_label_name, ["label", "Class", "category_id", "json.label", "species"], ["width", "file", "glass"]),
        (is_measure, ["width", "x_min", "image_id", "date", "row"], ["kind", "species", "class"]),
        (is_split_name, ["split", "Data Set", "is_train", "is_training_image", "fold", "phase"], ["label", "settled"]),
    ],
    ids=lambda each: getattr(each, "__name__", None),
)
def test_lists_of_words_know_what_they_should(question, yes: list[str], no: list[str]) -> None:  # type: ignore[no-untyped-def]
    assert ([each for each in yes if not question(each)], [each for each in no if question(each)]) == ([], [])


@pytest.mark.parametrize(
    ("column", "role"),
    [("is_train", "train"), ("Test?", "test"), ("in_validation_set", "validation"), ("training image", "train"),
     ("label", None)],
)  # fmt: skip
def test_a_column_of_truths_names_its_split(column: str, role: Role | None) -> None:
    assert flag_role(column) == role


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-(10**17), 10**17), unique=True))
def test_numbers_stand_by_their_value(numbers: list[int]) -> None:
    assert in_order(map(str, numbers)) == [str(each) for each in sorted(numbers)]


def test_one_name_that_is_no_number_makes_all_of_them_text() -> None:
    assert in_order(["10", "9", "b"]) == ["10", "9", "b"]


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=10))
def test_alike_takes_no_notice_of_case_separators_and_composition(name: str) -> None:
    assert alike(unicodedata.normalize("NFD", name)) == alike(name)
    assert alike(f" {name.replace(' ', '_')}\t") == alike(name)


def test_other_words_are_not_alike() -> None:
    assert len({alike(name) for name in ("cat", "cats", "c at", "kat")}) == 4

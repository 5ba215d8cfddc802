"""Refuse classes that look like something else: splits, folds, dates, masks, measures, a class per image."""

from __future__ import annotations

import re
from collections.abc import Sequence

from vitft.errors import DataError, shorten
from vitft.reading.labels import Labels
from vitft.reading.words import is_date, is_fold, is_images, is_masks, is_unlabelled, roles_of, words_of

_MANY_NUMBERS = 20  # classes that are numbers, with gaps between them


def guard_classes(train: Labels, where: str, *, others: Sequence[Labels], are_folders: bool) -> None:
    """Raise a DataError if the training classes do not look like classes.

    Args:
        train: the training labels; class names that the dataset declares are accepted.
        where: a description of where they come from.
        others: the labels of other splits; classes that occur there too are accepted.
        are_folders: whether they are folder names.

    Raises:
        DataError: saying what was read, and how to change it.
    """
    if train.is_declared:
        return
    used = train.used()
    if are_folders and (unlabelled := [name for name in used if is_unlabelled(name)]):
        raise DataError(
            f"{shorten(unlabelled)} is beside {len(used) - len(unlabelled):,} class folders, "
            "but its name says that its images have no labels",
            allowed="folders named after what their images show",
            hint="move it out of the dataset, or accept it as a class: --set data.accept_classes=true",
        )
    reason = _names_that_are_none(used) if are_folders else _numbers_of_many_values(used, len(train.ids))
    if reason is None and len(used) == len(train.ids) and not _come_again(used, others):
        reason = "every training image has its own label"
    elif reason is None and len(used) > max(len(train.ids) // 2, 100) and not _come_again(used, others):
        reason = f"there are {len(used):,} classes for {len(train.ids):,} images"
    if reason is None:
        return
    elsewhere = "--set data.class_level=N, " * are_folders + "--set data.label_column=NAME"
    raise DataError(
        f"the classes do not look like labels: {reason}. Read from {where}: {len(used):,} classes: {shorten(used)}",
        allowed="classes with several images each, named after what the images show",
        hint=f"read them from elsewhere ({elsewhere}), or accept them: --set data.accept_classes=true",
    )


def _names_that_are_none(names: Sequence[str]) -> str | None:
    roles = {name: role for name, role in roles_of(names).items() if role}
    if len(set(roles.values())) > 1 or ("train" in roles.values() and 3 * len(roles) > len(names)):
        return f"{', '.join(sorted(roles))} are split names"
    if all(map(is_fold, names)):
        return f"{shorten(list(names), 3)} are folds"
    if all(map(is_date, names)):
        return f"{shorten(list(names), 3)} are dates"
    masks = [name for name in names if is_masks(name)]
    said = {word for name in masks for word in words_of(name)}
    is_contrast = any(said & {*words_of(name)} for name in names if name not in masks)  # mask and no_mask
    if all(is_images(name) or is_masks(name) for name in names) or (
        masks and len(names) <= 3 and len(masks) * 2 >= len(names) and not is_contrast
    ):
        return f"{shorten(list(names), 3)} are kinds of files"
    if len(names) <= 3 and any(words_of(name) in (["images"], ["imgs"], ["img"], ["image"]) for name in names):
        return f"one of {shorten(list(names), 3)} just means images"
    return None


def _numbers_of_many_values(names: Sequence[str], num_images: int) -> str | None:
    if len(names) < _MANY_NUMBERS or not all(re.fullmatch(r"[+-]?\d+", name) for name in names):
        return None
    numbers = sorted(map(int, names))
    if numbers[-1] - numbers[0] + 1 > 2 * len(numbers) and num_images < 20 * len(numbers):
        return f"they are {len(names):,} different numbers from {numbers[0]} to {numbers[-1]}, like a measure or an id"
    return None


def _come_again(used: Sequence[str], others: Sequence[Labels]) -> bool:
    """Return whether other splits have mostly the same classes, which is true of labels but not of captions."""
    known = set(used)
    for labels in others:
        names = set(labels.used())
        if names and len(names & known) * 2 >= len(names):
            return True
    return False

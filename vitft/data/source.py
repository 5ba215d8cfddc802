"""Any `datasets` source -> ImageSource: columns, classes and splits chosen, each choice with its reason.

Everything here is decided from names, types and labels; no image is decoded, and memory grows with the labels
only. The same data give the same source in every process, whatever the machine or cache folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vitft.data.columns import (
    LOOKED_AT,
    describe_columns,
    find_image_column,
    find_label_column,
    flat_features,
)
from vitft.data.fingerprint import fingerprint
from vitft.data.images import ImageSource, ImageSplit, StreamSplit, encoded_image, undecoded
from vitft.data.labels import MISSING, Labels, classes_of, onto_classes, read_labels, require_labels, shorten
from vitft.data.opening import OpenedSource, open_splits
from vitft.data.splits import MAX_CARVED, Roles, assign_roles, carve, limit, named_split
from vitft.data.streams import stream_features, stream_source
from vitft.errors import DataError
from vitft.recipe import DataRecipe

__all__ = ["ImageSource", "ImageSplit", "StreamSplit", "encoded_image", "open_for_evaluation", "open_source"]


def open_source(data: DataRecipe, *, seed: int) -> ImageSource:
    """Open a dataset for training: find columns and classes, assign splits, carve validation if need be.

    Args:
        data: the recipe's `data` section.
        seed: the run's seed; it decides which rows are carved and which ``max_train_samples`` keeps.

    Raises:
        DataError: if the dataset cannot be opened, or cannot be trained on as it is.
    """
    opened = open_splits(data)
    wanted = {"train": data.train_split, "validation": data.validation_split, "test": data.test_split}
    roles = assign_roles(list(opened.splits), wanted)
    assert roles.train is not None, roles
    image_column, label_column, column_notes = _find_columns(opened, roles.train, data)
    notes = [*opened.notes, *roles.notes, *column_notes]
    if data.streaming:
        return stream_source(opened, roles, image_column, label_column, data, seed, notes)
    return _indexed_source(opened, roles, image_column, label_column, data, seed, notes)


def open_for_evaluation(data: DataRecipe, classes: Sequence[str], *, split: str | None) -> ImageSplit:
    """Open one split of a dataset to judge a model by, its labels translated by name to the model's classes.

    Args:
        data: the recipe's `data` section.
        classes: the model's class names, by id.
        split: the split to open; test if None, else validation.

    Raises:
        DataError: if the split is not there, has no labels, or has labels that the model does not know.
    """
    if data.streaming:
        raise DataError("evaluation needs every image of a split exactly once, not a stream", hint="leave --streaming")
    opened = open_splits(data)
    names = list(opened.splits)
    wanted = {"train": None, "validation": data.validation_split, "test": data.test_split}
    roles = assign_roles(names, wanted, need_train=False)
    candidates = [named_split(names, split, "--split NAME")] if split else [roles.test, roles.validation]
    for name in candidates:
        if name is None:
            continue
        image_column, label_column, _ = _find_columns(opened, name, data, may_lack_label=split is None)
        labels = _read_split(opened, name, label_column) if label_column else None
        if labels is None:
            continue
        ids, unknown = onto_classes(labels, classes)
        if unknown:
            raise DataError(
                f"the model does not know {len(unknown)} of the classes in {name}: {shorten(unknown)}",
                allowed=f"the model's {len(classes)} classes: {shorten(list(classes))}",
                hint="rename the classes, or choose another column: --set data.label_column=NAME",
            )
        return _image_split(opened, name, name, image_column, ids, np.arange(len(ids)))
    if split is not None:
        raise DataError(
            f"the split {split!r} has no labels to judge by",
            allowed=f"a labelled split among {', '.join(names)}",
            hint="--split NAME",
        )
    raise DataError(
        "the dataset has no labelled test or validation split",
        allowed=f"one of its splits: {', '.join(names)}",
        hint=f"--split {names[0]}" if names else None,
    )


# --- random access -----------------------------------------------------------------------------------------


def _indexed_source(
    opened: OpenedSource, roles: Roles, image_column: str, label_column: str,
    data: DataRecipe, seed: int, notes: list[str],
) -> ImageSource:  # fmt: skip
    assert roles.train is not None
    train = _read_split(opened, roles.train, label_column)
    if train is None:
        raise DataError(
            f"no row of {roles.train} has a label in {label_column!r}",
            hint="--set data.label_column=NAME or --set data.train_split=NAME",
        )
    classes = classes_of(train, label_column, notes)
    parts: dict[str, tuple[str, np.ndarray, np.ndarray]] = {}  # role -> source's split, labels, row numbers
    for role, name in (("validation", roles.validation), ("test", roles.test)):
        if name is None:
            continue
        labels = _read_split(opened, name, label_column)
        if labels is None:
            notes.append(f"{role}: {name} was left out, as none of its {len(opened.splits[name]):,} rows has a label")
            continue
        ids, unknown = onto_classes(labels, classes)
        in_train = np.bincount(train.ids, minlength=len(classes)) > 0
        unknown += [classes[index] for index in np.unique(ids[ids != MISSING]).tolist() if not in_train[index]]
        if unknown:
            raise DataError(
                f"{name} has classes of which {roles.train} has no image: {shorten(unknown)}",
                allowed=f"the classes of {roles.train}: {shorten(np.array(classes)[in_train].tolist())}",
                hint="correct the labels, move some of these images into training, or name other splits: "
                f"--set data.{role}_split=NAME",
            )
        parts[role] = (name, ids, np.arange(len(ids)))
    train_rows = np.arange(len(train.ids))
    if "validation" not in parts:
        train_rows, held_out = carve(train.ids, data.validation_fraction, seed=seed)
        if len(held_out) == 0:
            raise DataError(
                f"{roles.train} has no class with two images, so no validation images can be taken from it",
                hint="add images, or give a validation split: --set data.validation_split=NAME",
            )
        parts["validation"] = (roles.train, train.ids[held_out], held_out)
        share = "at most 10,000" if len(held_out) == MAX_CARVED else f"{data.validation_fraction:.0%}"
        notes.append(
            f"validation: {len(held_out):,} of the {len(train.ids):,} rows of {roles.train} ({share}, "
            f"stratified, seed {seed}), as the dataset has no validation split"
        )
    _note_classes(train.ids, parts["validation"][1], classes, roles.train, notes)
    if data.max_train_samples is not None and data.max_train_samples < len(train_rows):
        kept = limit(train.ids[train_rows], data.max_train_samples, seed=seed)
        notes.append(
            f"train: {len(kept):,} of {len(train_rows):,} rows, as many of each class as the data allow "
            f"(data.max_train_samples, seed {seed})"
        )
        train_rows = train_rows[kept]
    parts["train"] = (roles.train, train.ids[train_rows], train_rows)
    splits = {
        role: _image_split(opened, role, name, image_column, ids, rows) for role, (name, ids, rows) in parts.items()
    }
    columns = {
        split.source_name: opened.splits[split.source_name].data.column(image_column) for split in splits.values()
    }
    return ImageSource(
        id=opened.id,
        revision=opened.revision,
        fingerprint=fingerprint(columns, splits, classes),
        classes=classes,
        train=splits["train"],
        validation=splits["validation"],
        test=splits.get("test"),
        notes=tuple(notes),
    )


def _find_columns(
    opened: OpenedSource, name: str, data: DataRecipe, *, may_lack_label: bool = False
) -> tuple[str, str, list[str]]:
    rows = opened.splits[name]
    if data.streaming:
        features, first = stream_features(rows), list(undecoded(rows).take(LOOKED_AT))
    else:
        _require_rows(rows, name)
        features, first = rows.features, list(undecoded(rows.select(range(min(LOOKED_AT, len(rows))))))
    image_column, image_notes = find_image_column(features, first, data.image_column, opened.folders.get(name, ()))
    try:
        label_column, label_notes = find_label_column(features, image_column, data.label_column)
    except DataError:
        if not may_lack_label:
            raise
        return image_column, "", []
    return image_column, label_column, [*image_notes, *label_notes]


def _read_split(opened: OpenedSource, name: str, label_column: str) -> Labels | None:
    """Return the labels of a split, or None if it has none at all; only some missing is an error."""
    rows = opened.splits[name]
    _require_rows(rows, name)
    if label_column not in flat_features(rows.features):
        return None
    labels = read_labels(rows, label_column)
    if (labels.ids == MISSING).all():
        return None
    require_labels(labels, name)
    return labels


def _require_rows(rows: Any, name: str) -> None:
    if len(rows) == 0:
        raise DataError(
            f"the split {name!r} is empty",
            allowed="splits with at least one image",
            hint="fill it, or name another: --set data.train_split=NAME (validation_split, test_split)",
        )


def _note_classes(
    train: np.ndarray, validation: np.ndarray, classes: Sequence[str], name: str, notes: list[str]
) -> None:
    counts = np.bincount(train, minlength=len(classes))
    seen = np.bincount(validation, minlength=len(classes)) > 0
    single = [classes[k] for k in np.flatnonzero(counts == 1).tolist()]
    absent = [classes[k] for k in np.flatnonzero(counts == 0).tolist()]
    unseen = [classes[k] for k in np.flatnonzero((counts > 0) & ~seen).tolist()]
    if absent:
        notes.append(f"classes without any image in {name}: {shorten(absent)}")
    if single:
        notes.append(f"classes with one image in {name}, which stays in training: {shorten(single)}")
    if unseen:
        notes.append(f"classes of training that validation lacks: {shorten(unseen)}")


def _image_split(
    opened: OpenedSource, role: str, name: str, image_column: str, ids: np.ndarray, rows: np.ndarray
) -> ImageSplit:
    dataset = opened.splits[name]
    if image_column not in dataset.features:
        raise DataError(
            f"the split {name!r} has no column {image_column!r}",
            allowed=describe_columns(dataset.features),
            hint="give every split the same columns, or choose another: --set data.image_column=NAME",
        )
    dataset = undecoded(dataset.with_format(None).select_columns([image_column]))
    if len(rows) < len(dataset):
        dataset = dataset.select(rows)
    return ImageSplit(role, dataset, image_column, ids, opened.folders.get(name, ()), name, rows)

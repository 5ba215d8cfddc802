"""Choose the columns and rows of an opened source: images, labels, splits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vitft.data.images import ImageSplit, undecoded
from vitft.errors import DataError
from vitft.reading.columns import LOOKED_AT, describe_columns, find_image_columns, find_label_column, flat_features
from vitft.reading.labels import MISSING, Labels, column_values, one_hot, read_labels, require_labels
from vitft.reading.opened import OpenedSource
from vitft.reading.splits import Roles
from vitft.reading.streams import stream_features
from vitft.recipe.keys import DataRecipe

_NO_ROWS = "add images, or choose another: --set data.train_split=NAME (validation_split, test_split)"


@dataclass(frozen=True)
class Columns:
    """The columns of images and labels; ``label`` is empty if there is none."""

    images: tuple[str, ...]
    label: str
    labels_from: str


@contextmanager
def telling(notes: Sequence[str]) -> Iterator[None]:
    """Add the notes so far to a DataError, because they help to explain it."""
    try:
        yield
    except DataError as error:
        fresh = [note for note in notes if note not in error.wrong]
        if type(error) is not DataError or not fresh:
            raise
        told = "".join(f"\n  note: {note}" for note in fresh)
        raise DataError(error.wrong + told, allowed=error.allowed, hint=error.hint) from error


def join_splits(opened: OpenedSource, roles: Roles) -> OpenedSource:
    """Add the splits that the user has joined with ``+``."""
    joined = [name for name in (roles.train, roles.validation, roles.test) if name and name not in opened.splits]
    if not joined:
        return opened
    splits, folders, parts = dict(opened.splits), dict(opened.folders), dict(opened.parts)
    for name in joined:
        members = name.split("+")
        splits[name] = datasets.concatenate_datasets([opened.splits[member] for member in members])
        folders[name] = opened.folders.get(members[0], ())
        parts[name] = {}
    return replace(opened, splits=splits, folders=folders, parts=parts)


def find_columns(
    opened: OpenedSource, name: str, data: DataRecipe, notes: list[str], *, may_lack_label: bool = False
) -> Columns:
    """Find the image and label columns in one split of a source, and note each choice.

    Raises:
        DataError: if there is no image column or, unless ``may_lack_label``, no label column.
    """
    if opened.columns is not None:
        _require_rows(opened.splits[name], name)
        return Columns((opened.columns[0],), opened.columns[1], opened.labels_from)
    rows = opened.splits[name]
    if data.streaming:
        features, first = stream_features(rows), list(undecoded(rows).take(LOOKED_AT))
    else:
        _require_rows(rows, name)
        features, first = rows.features, list(undecoded(rows.select(range(min(LOOKED_AT, len(rows))))))
    images, image_notes = find_image_columns(
        features, first, data.image_column, opened.folders.get(name, ()), lambda names: _are_parts(rows, names)
    )
    try:
        label, label_notes = find_label_column(
            features,
            images[0],
            data.label_column,
            split_column=opened.split_column,
            is_whole=lambda each: _is_whole(rows, each),
            is_one_hot=lambda names: _is_one_hot(rows, names),
        )
    except DataError:
        if not may_lack_label:
            raise
        return Columns(images, "", "")
    notes += [*image_notes, *label_notes]
    return Columns(images, label, f"the column {label}")


def _are_parts(rows: Any, names: Sequence[str]) -> bool:
    """Return whether each row fills exactly one of the image columns."""
    if not hasattr(rows, "data"):
        return False
    filled = np.zeros(len(rows.data), dtype=np.int64)
    for name in names:
        column = rows.data.column(name)
        if pa.types.is_struct(column.type):
            has_bytes = pc.is_valid(pc.struct_field(column, "bytes"))
            column_filled = pc.or_(has_bytes, pc.is_valid(pc.struct_field(column, "path")))
        else:
            column_filled = pc.is_valid(column)
        filled += column_filled.to_numpy().astype(np.int64)
    return bool((filled == 1).all())


def _is_one_hot(rows: Any, columns: Sequence[str]) -> bool:
    hot = one_hot(rows, columns) if hasattr(rows, "data") else None
    return hot is not None and bool(hot.any())


def _is_whole(rows: Any, column: str) -> bool:
    if not hasattr(rows, "data"):
        return False
    values = pc.cast(column_values(rows, column), pa.float64())
    return bool(pc.all(pc.equal(values, pc.floor(values)), skip_nulls=True).as_py())


def read_split(opened: OpenedSource, name: str, label_column: str, *, has_signs: bool = False) -> Labels | None:
    """Return the labels of a split, or None if it has none at all; raise if only some are missing."""
    rows = opened.splits[name]
    _require_rows(rows, name)
    known = flat_features(rows.features)
    if label_column not in known and not ("," in label_column and set(label_column.split(",")) <= set(known)):
        return None
    labels = read_labels(rows, label_column, opened.parts.get(name, {}).get(label_column, ()), has_signs=has_signs)
    if (labels.ids == MISSING).all():
        return None
    require_labels(labels, name)
    return labels


def _require_rows(rows: Any, name: str) -> None:
    if len(rows) == 0:
        raise DataError(f"the split {name!r} is empty", allowed="splits with at least one image", hint=_NO_ROWS)


def image_split(
    opened: OpenedSource, role: str, name: str, image_columns: Sequence[str], ids: np.ndarray
) -> ImageSplit:
    """Make an ImageSplit of all rows of a source's split and their class ids."""
    dataset = opened.splits[name]
    for column in image_columns:
        if column not in dataset.features:
            raise DataError(
                f"the split {name!r} has no column {column!r}",
                allowed=describe_columns(dataset.features),
                hint="give every split the same columns, or choose another: --set data.image_column=NAME",
            )
    rows = undecoded(dataset.with_format(None).select_columns(list(image_columns)))
    return ImageSplit(role, rows, tuple(image_columns), ids, opened.folders.get(name, ()), name)

"""Labels as class ids: read once through arrow, without touching an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vitft.data.columns import flat_features
from vitft.errors import DataError

MISSING = -1
_SHOWN = 8


@dataclass(frozen=True, eq=False)
class Labels:
    """The labels of one split: ``ids`` index into ``names``; -1 is no label.

    ``is_declared`` tells that the names come with the dataset (a ClassLabel) and not from the rows.
    """

    ids: np.ndarray  # int64, (n,)
    names: tuple[str, ...]
    is_declared: bool


def read_labels(dataset: Any, column: str) -> Labels:
    """Read a ClassLabel, text or integer column; ``outer.inner`` reads inside a structure.

    Text becomes classes in sorted order, integers in numeric order. None, "" and -1 are missing labels.

    Raises:
        DataError: if a number is not whole, or an id has no name.
    """
    values = pa.chunked_array(_column(dataset, column))
    feature = flat_features(dataset.features)[column]
    if isinstance(feature, datasets.ClassLabel):
        ids = _as_numpy(values)
        if len(ids) and int(ids.max()) >= feature.num_classes:
            raise DataError(
                f"the column {column!r} has the id {int(ids.max())} among {feature.num_classes} classes",
                hint="correct the dataset, or choose another column: --set data.label_column=NAME",
            )
        return Labels(np.maximum(ids, MISSING), tuple(feature.names), True)
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        return labels_of_text(values)
    if pa.types.is_boolean(values.type):
        return Labels(_as_numpy(pc.cast(values, pa.int64())), ("false", "true"), True)
    numbers = _as_numpy(_whole_numbers(values, column))
    present = np.unique(numbers[numbers != MISSING])
    ids = np.where(numbers == MISSING, MISSING, np.searchsorted(present, numbers))
    return Labels(ids.astype(np.int64), tuple(str(number) for number in present.tolist()), False)


def labels_of_text(values: Any) -> Labels:
    """Return the labels of an arrow column of text."""
    encoded = pc.dictionary_encode(pc.if_else(pc.equal(values, ""), None, values)).combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0)
    spelled = encoded.dictionary.to_pylist()
    names = sorted(spelled)
    place = {name: index for index, name in enumerate(names)}
    new_id = np.array([*(place[name] for name in spelled), MISSING], dtype=np.int64)
    return Labels(new_id[_as_numpy(encoded.indices)], tuple(names), False)


def onto_classes(labels: Labels, classes: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Translate ids by class name.

    Returns:
        The ids among ``classes`` (int64, (n,)), and the names of labels in use that are not among them.
    """
    place = {name: index for index, name in enumerate(classes)}
    new_id = np.array([*(place.get(name, MISSING) for name in labels.names), MISSING], dtype=np.int64)
    used = np.unique(labels.ids[labels.ids != MISSING])
    unknown = [labels.names[index] for index in used.tolist() if labels.names[index] not in place]
    return new_id[labels.ids], unknown


def require_labels(labels: Labels, split: str) -> None:
    """Raise a DataError with the count and the first rows if some rows of a split have no label."""
    missing = np.flatnonzero(labels.ids == MISSING)
    if len(missing) == 0:
        return
    first = ", ".join(map(str, missing[:_SHOWN].tolist())) + (", ..." if len(missing) > _SHOWN else "")
    raise DataError(
        f"{len(missing):,} of {len(labels.ids):,} rows of {split} have no label (None or -1): rows {first}",
        allowed="a label for every image",
        hint="label these rows or remove them, or choose another column: --set data.label_column=NAME",
    )


def classes_of(train: Labels, label_column: str, notes: list[str]) -> tuple[str, ...]:
    """Return the class names that training labels give, noting where they come from.

    Raises:
        DataError: if there are fewer than two classes, a class for each image, or two of one name.
    """
    num_used = len(np.unique(train.ids))
    if num_used < 2:
        raise DataError(
            f"all {len(train.ids):,} training images have the same label, {train.names[int(train.ids[0])]!r}",
            allowed="at least two classes",
            hint="choose another column: --set data.label_column=NAME, or add images of other classes",
        )
    if not train.is_declared and num_used == len(train.ids) > 10:
        raise DataError(
            f"every training image has a label of its own in {label_column!r}, so it is no label column",
            allowed="a column in which several images share a label",
            hint="--set data.label_column=NAME",
        )
    if not train.is_declared:
        notes.append(f"classes: the {num_used} values of {label_column} in training, sorted")
    if len(set(train.names)) < len(train.names):
        raise DataError(
            "two classes have the same name: " + shorten(sorted({n for n in train.names if train.names.count(n) > 1})),
            hint="rename one of them",
        )
    return train.names


def shorten(names: Sequence[str]) -> str:
    """Return the first few names and how many more there are."""
    shown = ", ".join(names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else "")


def stream_label_ids(feature: Any, classes: Sequence[str]) -> Mapping[Any, int]:
    """Return class id by raw value of a stream's label column."""
    if isinstance(feature, datasets.ClassLabel):
        return {index: classes.index(name) for index, name in enumerate(feature.names) if name in classes}
    if feature.dtype == "bool":
        return {word == "true": index for index, word in enumerate(classes)}
    if feature.dtype in ("string", "large_string"):
        return {name: index for index, name in enumerate(classes)}
    return {int(name): index for index, name in enumerate(classes)}


def _column(dataset: Any, column: str) -> list[Any]:
    """Return the chunks of a column. The rows must be the table's: a dataset without an indices mapping."""
    outer, *inner = (column,) if column in dataset.features else tuple(column.split("."))
    values = dataset.data.column(outer)
    for name in inner:
        values = pc.struct_field(values, name)
    return values.chunks or [pa.array([], values.type)]


def _whole_numbers(values: Any, column: str) -> Any:
    if not pa.types.is_floating(values.type):
        return values
    # Integers with gaps become floats in a CSV reader; NaN is such a gap.
    values = pc.if_else(pc.is_nan(values), None, values)
    if pc.any(pc.not_equal(values, pc.floor(values))).as_py():
        raise DataError(
            f"the label column {column!r} holds fractions, which name no classes",
            allowed="a ClassLabel, text or integer column",
            hint="--set data.label_column=NAME",
        )
    return values


def _as_numpy(values: Any) -> np.ndarray:
    whole = pc.fill_null(pc.cast(values, pa.int64()), MISSING)
    return np.asarray(whole.to_numpy(), dtype=np.int64)

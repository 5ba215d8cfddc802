"""A source that is ready for training: splits of encoded images with class ids, by random access or as a stream."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from vitft.data.class_counts import class_counts, in_chunks
from vitft.data.row_numbers import RowNumbers
from vitft.data.staging import WHITE_LEVEL
from vitft.errors import DataError, UsageError, shorten
from vitft.outside import printable


@dataclass(frozen=True)
class EncodedRow:
    """A row that has not been read yet."""

    index: int
    """Its number in the split; -1 in a stream without row numbers."""
    encoded: Callable[[], bytes | str]
    """Returns the undecoded bytes of its image, or the path of its file; empty bytes if it has no image."""
    label: Callable[[], int]
    """Returns its class id."""
    where: Callable[[], str]
    """Returns its name for messages."""
    white_level: int
    """The value that means white in 16-bit grey images."""


def file_row(index: int, path: str | Path, white_level: int) -> EncodedRow:
    """Return an image file without a label as a row."""
    return EncodedRow(index, lambda: str(path), lambda: -1, lambda: str(path), white_level)


@dataclass(frozen=True, eq=False)
class ImageSplit:
    """Encoded images and their labels with random access. Can be sent to other processes."""

    name: str
    """"train", "validation" or "test"; in evaluation the source's own name."""
    rows: Any
    """All rows of the source, `datasets.Dataset` with only the image columns: memory-mapped, images not decoded."""
    image_columns: tuple[str, ...]
    """Columns of the images; if there are several, each row fills one."""
    ids: np.ndarray
    """Class ids, int64: of this split's rows if ``numbers`` lists them, else of all rows of the source."""
    folders: tuple[str, ...] = ()
    """Where relative paths may start from."""
    source_name: str = ""
    """The source's own name of the split that the rows come from."""
    numbers: RowNumbers | None = None
    """Which rows of the source this split has; None for all."""
    white_level: int = WHITE_LEVEL
    """The value that means white in 16-bit grey images."""
    notes: tuple[str, ...] = ()
    """What was chosen about its rows; all choices if it was opened without a source."""
    labels_from: str = ""
    """A description of where its labels come from, if it was opened without a source."""

    def __len__(self) -> int:
        return len(self.ids) if self.numbers is None else len(self.numbers)

    @cached_property
    def labels(self) -> np.ndarray:
        """Class ids, int64, (n,); an array of its own if ``ids`` has more rows than the split."""
        return self.ids if self._has_own_ids else np.concatenate([*self.label_chunks()])

    @property
    def row_numbers(self) -> RowNumbers:
        """Which rows of the source this split has."""
        return RowNumbers.all_of(len(self.ids)) if self.numbers is None else self.numbers

    @property
    def source_rows(self) -> np.ndarray:
        """Row numbers in the source, int64, (n,); an array of its own."""
        return self.row_numbers.array()

    def label_chunks(self) -> Iterator[np.ndarray]:
        """Return an iterator over the class ids of all rows in order, int64, a chunk at a time."""
        if self._has_own_ids:
            return in_chunks(self.ids)
        return (self.ids[start:stop] for start, stop in self.row_numbers.runs())

    def class_counts(self, num_classes: int) -> np.ndarray:
        """Return how many rows each class has, int64, (num_classes,); counted once."""
        known: dict[int, np.ndarray] = self.__dict__.setdefault("_class_counts", {})
        if num_classes not in known:
            counts = class_counts(in_chunks(self.ids), num_classes)
            if not self._has_own_ids:
                counts -= np.bincount(self.ids[self.row_numbers.left_out], minlength=num_classes)
            known[num_classes] = counts
        return known[num_classes].copy()

    def part(self, name: str, numbers: RowNumbers) -> ImageSplit:
        """Return the split ``name`` of some rows of this one, which has all rows of the source."""
        assert self.numbers is None, self.name
        return replace(
            self, name=name, numbers=numbers, ids=self.ids if numbers.listed is None else self.ids[numbers.listed]
        )

    def row(self, index: int) -> EncodedRow:
        """Return a row without reading it yet."""
        return EncodedRow(
            index,
            partial(self.encoded, index),
            partial(self.label, index),
            partial(self.where, index),
            self.white_level,
        )

    def label(self, index: int) -> int:
        """Return the class id of a row."""
        return int(self.ids[index if self._has_own_ids else self._number(index)])

    @property
    def _has_own_ids(self) -> bool:
        return self.numbers is None or self.numbers.listed is not None

    def encoded(self, index: int) -> bytes | str:
        """Return the undecoded bytes of an image, or the path of its file; empty bytes if the row has no image."""
        return encoded_image(filled(self.rows[self._number(index)], self.image_columns), self.folders)

    def source(self, index: int) -> str:
        """Return the path of a row's file, or its number in the source if it has none."""
        path = _path_of(filled(self.rows[self._number(index)], self.image_columns))
        return resolve_path(path, self.folders) if path else f"row {self._number(index)} of {self.source_name}"

    def where(self, index: int) -> str:
        """Return a row's name for messages, with its number in the source: ``row 17 of train (photos/a.jpg)``."""
        path = _path_of(filled(self.rows[self._number(index)], self.image_columns))
        return f"row {self._number(index)} of {self.source_name}" + (f" ({printable(path)})" if path else "")

    def _number(self, index: int) -> int:
        return int(index) if self.numbers is None else self.numbers[index]


@dataclass(frozen=True, eq=False)
class StreamSplit:
    """Images and labels that can only be read in order. Can be sent to other processes."""

    name: str
    rows: Any
    """`datasets.IterableDataset`, images not decoded."""
    image_columns: tuple[str, ...]
    """Columns of the images; if there are several, each row fills one."""
    label_column: str
    num_rows: int | None
    """The number of rows, if the source says so; an estimate for a carved part."""
    label_ids: Mapping[Any, int] = field(default_factory=dict)
    """Class id by the raw value of the label column."""
    folders: tuple[str, ...] = ()
    white_level: int = WHITE_LEVEL
    """The value that means white in 16-bit grey images."""

    def row(self, row: Mapping[str, Any], number: int = -1) -> EncodedRow:
        """Return a row in the form that all splits share; ``number`` is its number in the stream, if known."""
        where = "an image of the stream" if number < 0 else f"row {number} of the stream's {self.name}"
        return EncodedRow(number, partial(self.encoded, row), partial(self.label, row), lambda: where, self.white_level)

    def source(self, index: int) -> str:
        """Return the number of a row; in a stream no path is kept."""
        return f"row {index} of the stream's {self.name}"

    def encoded(self, row: Mapping[str, Any]) -> bytes | str:
        """Return the undecoded bytes of a row's image, or the path of its file."""
        return encoded_image(filled(row, self.image_columns), self.folders)

    def label(self, row: Mapping[str, Any]) -> int:
        """Return a row's class id; raise a DataError if its label is not one of the training classes."""
        value = label_value(row, self.label_column)
        value = int(value) if isinstance(value, float) and value.is_integer() else value
        if value in self.label_ids:
            return self.label_ids[value]
        raise DataError(
            f"a row of {self.name} has the label {value!r}",
            allowed=f"one of: {shorten([*map(str, self.label_ids)])}",
            hint="label every image, or choose another column: --set data.label_column=NAME",
        )


@dataclass(frozen=True, eq=False)
class ImageSource:
    """The splits and classes that a run trains and evaluates on."""

    id: str
    """Full Hub id, absolute path, or ``builtin:digits``."""
    revision: str | None
    """Commit of a Hub dataset."""
    fingerprint: str
    """Changes if rows, order, labels or classes of a split in use change; the same on every machine."""
    classes: tuple[str, ...]
    train: ImageSplit | StreamSplit | None
    validation: ImageSplit | StreamSplit | None
    test: ImageSplit | StreamSplit | None
    notes: tuple[str, ...]
    """Every choice, with its reason."""
    labels_from: str = ""
    """A description of where labels come from: ``the column fine_label``, ``the names of the folders``."""
    label_column: str | None = None
    """The column of the labels; None if they are not in a column of the dataset."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """The number of image files in no split, by reason."""

    def split_to_judge_by(self, wanted: str | None = None) -> ImageSplit:
        """Return the split with a role or name; without one: test, else validation, else train.

        A name that training and the validation carved out of it share is training's.

        Raises:
            UsageError: if there is no such split.
        """
        splits = {role: getattr(self, role) for role in ("test", "validation", "train")}
        splits = {role: split for role, split in splits.items() if isinstance(split, ImageSplit)}
        by_name = {split.source_name: split for split in splits.values()} | splits
        found: ImageSplit | None = next(iter(splits.values()), None) if wanted is None else by_name.get(wanted)
        if found is not None:
            return found
        raise UsageError(f"the dataset has no split {wanted!r}", allowed=", ".join(splits), hint="--split NAME")

    @property
    def white_level(self) -> int:
        """The value that means white in 16-bit grey images."""
        return next((split.white_level for split in (self.train, self.validation, self.test) if split), WHITE_LEVEL)


def filled(row: Mapping[str, Any], columns: Sequence[str]) -> Any:
    """Return the value of the first image column that a row fills; None if it fills none."""
    return next((row[column] for column in columns if _has_image(row.get(column))), None)


def encoded_image(value: Any, folders: Sequence[str] = ()) -> bytes | str:
    """Return the bytes or the path from an undecoded value of an image column; b"" if it has neither."""
    if isinstance(value, Mapping):
        value = value["bytes"] if value.get("bytes") is not None else value.get("path")
    if isinstance(value, str):
        return resolve_path(value, folders)
    return value if value is not None else b""


def resolve_path(path: str, folders: Sequence[str]) -> str:
    """Return a path; a relative one is joined to the first of ``folders`` where it exists."""
    # os.path: this runs for every image, and pathlib takes ten times as long.
    if os.path.isabs(path) or not folders:  # noqa: PTH117
        return path
    if len(folders) == 1:
        return os.path.join(folders[0], path)  # noqa: PTH118
    candidates = [os.path.join(folder, path) for folder in folders]  # noqa: PTH118
    return next((path for path in candidates if os.path.exists(path)), candidates[0])  # noqa: PTH110


def undecoded(rows: Any) -> Any:
    """Return a Dataset or IterableDataset whose image columns give bytes and paths, not Pillow images."""
    for column, feature in (rows.features or {}).items():
        if isinstance(feature, datasets.Image) and feature.decode:
            rows = rows.cast_column(column, datasets.Image(decode=False))
    return rows


def label_value(row: Mapping[str, Any], label_column: str) -> Any:
    """Return the raw label in a row; ``outer.inner`` reads inside a structure."""
    value: Any = row
    for key in (label_column,) if label_column in row else tuple(label_column.split(".")):
        value = None if value is None else value[key]
    return value


def _has_image(value: Any) -> bool:
    if isinstance(value, Mapping):
        return value.get("bytes") is not None or bool(value.get("path"))
    return value is not None


def _path_of(value: Any) -> str | None:
    path = value.get("path") if isinstance(value, Mapping) else value
    return path if isinstance(path, str) else None

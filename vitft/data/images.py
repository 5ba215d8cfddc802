"""What a source becomes: splits of encoded images with class ids, in random access or as a stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import datasets
import numpy as np

from vitft.data.columns import resolve_path
from vitft.data.labels import shorten
from vitft.errors import DataError


@dataclass(frozen=True, eq=False)
class ImageSplit:
    """Images and labels with random access; images stay encoded. Can be sent to other processes."""

    name: str
    """"train", "validation" or "test"; for evaluation the source's own name."""
    rows: Any
    """`datasets.Dataset` with the image column alone: memory-mapped, images not decoded."""
    image_column: str
    labels: np.ndarray
    """Class ids, int64, (n,), aligned with ``rows``."""
    folders: tuple[str, ...] = ()
    """Where relative paths may start."""
    source_name: str = ""
    """The source's own name of the split that the rows come from."""
    source_rows: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Row numbers in that split, int64, (n,)."""

    def __len__(self) -> int:
        return len(self.labels)

    def encoded(self, index: int) -> bytes | str:
        """Return the undecoded content of an image file, or its path; empty bytes if the row has no image."""
        return encoded_image(self.rows[int(index)][self.image_column], self.folders)

    def where(self, index: int) -> str:
        """Name a row for people, by its number in the source: ``row 17 of train (photos/a.jpg)``."""
        path = _path_of(self.rows[int(index)][self.image_column])
        return f"row {self.source_rows[index]} of {self.source_name}" + (f" ({path})" if path else "")


@dataclass(frozen=True, eq=False)
class StreamSplit:
    """Images and labels that come one after another. Can be sent to other processes."""

    name: str
    rows: Any
    """`datasets.IterableDataset`, images not decoded."""
    image_column: str
    label_column: str
    num_rows: int | None
    """How many rows there are, where the source says so; a carved part is estimated."""
    label_ids: Mapping[Any, int] = field(default_factory=dict)
    """Class id by the raw value of the label column."""
    folders: tuple[str, ...] = ()

    def encoded(self, row: Mapping[str, Any]) -> bytes | str:
        """Return the undecoded content of a row's image, or its path."""
        return encoded_image(row[self.image_column], self.folders)

    def label(self, row: Mapping[str, Any]) -> int:
        """Return a row's class id; raise a DataError if it has none that training knows."""
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
    """What a run trains on and is judged by."""

    id: str
    """Full Hub id, absolute path, or ``builtin:digits``."""
    revision: str | None
    """Commit of a Hub dataset."""
    fingerprint: str
    """Changes with rows, order, labels or classes of any split in use; the same on every machine."""
    classes: tuple[str, ...]
    train: ImageSplit | StreamSplit | None
    validation: ImageSplit | StreamSplit | None
    test: ImageSplit | StreamSplit | None
    notes: tuple[str, ...]
    """Every choice that was made, as a sentence with its reason."""


def encoded_image(value: Any, folders: Sequence[str] = ()) -> bytes | str:
    """Return the bytes or the path in an undecoded value of an image column; b"" if there is neither."""
    if isinstance(value, Mapping):
        value = value["bytes"] if value.get("bytes") is not None else value.get("path")
    if isinstance(value, str):
        return resolve_path(value, folders)
    return value if value is not None else b""


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


def _path_of(value: Any) -> str | None:
    path = value.get("path") if isinstance(value, Mapping) else value
    return path if isinstance(path, str) else None

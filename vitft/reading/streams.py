"""Read a dataset as a stream: without random access, carving, limits and order are not exact."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from vitft.data.images import ImageSource, StreamSplit, encoded_image, filled, label_value, undecoded
from vitft.reading.columns import LOOKED_AT, flat_features
from vitft.reading.labels import (
    MISSING,
    labels_of_text,
    read_labels,
    require_classes,
    require_labels,
    stream_label_ids,
)
from vitft.reading.opened import OpenedSource
from vitft.reading.splits import Roles
from vitft.recipe.keys import DataRecipe


def stream_source(
    opened: OpenedSource, roles: Roles, image_columns: tuple[str, ...], label_column: str,
    data: DataRecipe, seed: int, notes: list[str],
) -> ImageSource:  # fmt: skip
    """Make the source of a run that streams its dataset, from the roles and columns chosen so far."""
    assert roles.train is not None
    splits: dict[str, StreamSplit] = {}
    classes: tuple[str, ...] = ()
    counts = dict(opened.num_rows)
    for role, name in (("train", roles.train), ("validation", roles.validation), ("test", roles.test)):
        if name is None:
            continue
        rows = undecoded(opened.splits[name])
        features = flat_features(stream_features(rows))
        if label_column not in features:
            notes.append(f"{role}: {name} was left out, because it has no column {label_column}")
            continue
        if role == "train":
            classes, counted = _stream_classes(rows, features[label_column], label_column, notes)
            counts[name] = counts.get(name) or counted
        elif all(label_value(row, label_column) in (None, "", MISSING) for row in rows.take(LOOKED_AT)):
            notes.append(f"{role}: {name} was left out, because its first {LOOKED_AT} rows have no label")
            continue
        label_ids = stream_label_ids(features[label_column], classes)
        folders = opened.folders.get(name, ())
        splits[role] = StreamSplit(role, rows, image_columns, label_column, counts.get(name), label_ids, folders)
    if "validation" not in splits:
        splits["train"], splits["validation"] = _carve_stream(splits["train"], data.validation_fraction, seed)
        notes.append(
            f"validation: about {data.validation_fraction:.0%} of {roles.train}, by a hash of each image, "
            "because the dataset has no validation split; every evaluation reads the whole stream"
        )
    if data.max_train_samples is not None:
        train = splits["train"]
        num_rows = min(train.num_rows or data.max_train_samples, data.max_train_samples)
        splits["train"] = replace(train, rows=train.rows.take(data.max_train_samples), num_rows=num_rows)
        notes.append(f"train: the first {data.max_train_samples:,} rows of the stream (data.max_train_samples)")
    notes.append("streaming: no check for images that are in two splits or cannot be decoded")
    notes.append("streaming: shuffled by shard and in a buffer; a resumed run is not identical bit for bit")
    parts = [f"{role}\0{splits[role].num_rows}\0{splits[role].rows.num_shards}" for role in sorted(splits)]
    text = "\0".join([Path(opened.id).name, str(opened.revision), *classes, *parts])
    return ImageSource(
        id=opened.id,
        revision=opened.revision,
        fingerprint=hashlib.blake2b(text.encode(), digest_size=16).hexdigest(),
        classes=classes,
        train=splits["train"],
        validation=splits["validation"],
        test=splits.get("test"),
        notes=tuple(notes),
        labels_from=f"the column {label_column}",
        label_column=label_column,
    )


def stream_features(rows: Any) -> Any:
    """Return the types of a stream's columns, from its first rows if its format does not declare them."""
    return rows.features if rows.features is not None else rows._resolve_features().features


def _stream_classes(rows: Any, feature: Any, label_column: str, notes: list[str]) -> tuple[tuple[str, ...], int | None]:
    """Return the classes, and the number of rows if they were counted on the way."""
    if isinstance(feature, datasets.ClassLabel):
        return tuple(feature.names), None
    values = [label_value(row, label_column) for row in rows.select_columns([_outer(rows, label_column)])]
    if feature.dtype in ("string", "large_string"):
        labels = labels_of_text(pa.chunked_array([pa.array(values, pa.string())]))
    else:
        labels = read_labels(datasets.Dataset.from_dict({label_column: values}), label_column)
    require_labels(labels, "the training stream")
    notes.append(f"classes: the stream was read once to find the values of {label_column}")
    require_classes(labels, "the stream")
    return labels.names, len(values)


def _outer(rows: Any, column: str) -> str:
    """Return the column of a stream that holds the label, which may be a structure."""
    return column if column in stream_features(rows) else column.split(".")[0]


def _carve_stream(train: StreamSplit, fraction: float, seed: int) -> tuple[StreamSplit, StreamSplit]:
    kept, held_out = (
        train.rows.filter(
            partial(_is_held_out, columns=train.image_columns, fraction=fraction, seed=seed, wanted=wanted)
        )
        for wanted in (False, True)
    )
    num_held_out = None if train.num_rows is None else round(train.num_rows * fraction)
    num_kept = None if train.num_rows is None or num_held_out is None else train.num_rows - num_held_out
    return (
        replace(train, rows=kept, num_rows=num_kept),
        replace(train, name="validation", rows=held_out, num_rows=num_held_out),
    )


def _is_held_out(row: Mapping[str, Any], *, columns: tuple[str, ...], fraction: float, seed: int, wanted: bool) -> bool:
    # By content, because row numbers of a stream depend on the sharding. Equal images stay together.
    image = encoded_image(filled(row, columns))
    content = image.encode() if isinstance(image, str) else image
    word = hashlib.blake2b(content, digest_size=8, key=seed.to_bytes(8, "little")).digest()
    return (int.from_bytes(word, "little") < fraction * 2**64) == wanted

"""Read labels as class ids through arrow, without touching an image, and match them to classes by name."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vitft.data.class_counts import class_counts, in_chunks
from vitft.errors import DataError, shorten
from vitft.names import is_placeholder
from vitft.reading.columns import flat_features
from vitft.reading.words import alike, in_order
from vitft.recipe.choices import SimilarNames

MISSING = -1
_NO_LABEL = (-1, -100)  # numbers for a missing label: -1 by convention, -100 because losses ignore it
_SHOWN = 8
_WHOLE = re.compile(r"[+-]?\d+")
_WHOLE_AS_FLOAT = re.compile(r"[+-]?\d+\.0*")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")

Parts = Sequence[tuple[int, tuple[str, ...]]]
"""For each file of a split, its number of rows and its class names by id."""


@dataclass(frozen=True, eq=False)
class Labels:
    """The labels of one split: ``ids`` index into ``names``; -1 means no label.

    ``is_declared``: the names come with the dataset (a ClassLabel) and not from the rows. ``num_trimmed``: how many
    labels had spaces around them.
    """

    ids: np.ndarray  # int64, (n,)
    names: tuple[str, ...]
    is_declared: bool
    num_trimmed: int = 0

    @cached_property
    def counts(self) -> np.ndarray:
        """How many rows each class has, int64, (K,)."""
        return class_counts(in_chunks(self.ids), len(self.names))

    def used(self) -> list[str]:
        """Return the names of the classes that have a row, in their order."""
        return [self.names[k] for k in np.flatnonzero(self.counts).tolist()]

    def take(self, rows: np.ndarray) -> Labels:
        """Return the labels of some rows."""
        return replace(self, ids=self.ids[rows])


def read_labels(dataset: Any, column: str, parts: Parts = (), *, has_signs: bool = False) -> Labels:
    """Read a ClassLabel, text or integer column; ``outer.inner`` reads inside a structure.

    Text becomes classes in sorted order, integers in numeric order. None, "", -1 and -100 are missing labels, but -1
    is a class if -1 and 1 are the only values.

    Args:
        dataset: a dataset with random access.
        column: its label column.
        parts: the class names of its files, if they differ; ids are joined by name.
        has_signs: whether -1 and 1 are known to be the classes, so that -1 is a label.

    Raises:
        DataError: if a number is not whole, or an id has no name.
    """
    if column not in flat_features(dataset.features):
        return _of_one_hot(dataset, column.split(","))
    values = pa.chunked_array(_column(dataset, column))
    feature = flat_features(dataset.features)[column]
    if isinstance(feature, datasets.ClassLabel):
        return _of_class_label(_as_numpy(values), column, parts or [(len(values), tuple(feature.names))])
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        return labels_of_text(values)
    if pa.types.is_boolean(values.type):
        return Labels(_as_numpy(pc.cast(values, pa.int64())), ("false", "true"), True)
    numbers = _as_numpy(_whole_numbers(values, column))
    distinct = np.sort(pc.unique(pa.array(numbers)).to_numpy())
    is_sign = has_signs or distinct.tolist() == [-1, 1]
    is_missing = np.zeros(len(numbers), dtype=bool) if is_sign else np.isin(numbers, _NO_LABEL)
    is_missing |= np.asarray(pc.is_null(values, nan_is_null=True).to_numpy())
    present = distinct if not is_missing.any() else np.unique(numbers[~is_missing])
    ids = np.where(is_missing, MISSING, np.searchsorted(present, numbers))
    return Labels(ids.astype(np.int64), tuple(str(number) for number in present.tolist()), False)


def one_hot(dataset: Any, columns: Sequence[str]) -> np.ndarray | None:
    """Return columns of 0 and 1 side by side, bool (n, K); None if they hold anything else."""
    hot = np.zeros((len(dataset), len(columns)), dtype=bool)
    for place, column in enumerate(columns):
        values = pc.cast(pa.chunked_array(_column(dataset, column)), pa.float64())
        numbers = np.asarray(pc.fill_null(values, -1.0).to_numpy())
        if not np.isin(numbers, (0.0, 1.0)).all():
            return None
        hot[:, place] = numbers == 1
    return hot


def _of_one_hot(dataset: Any, columns: Sequence[str]) -> Labels:
    hot = one_hot(dataset, columns)
    if hot is None or (hot.sum(1) > 1).any():
        raise DataError(
            f"the columns {shorten(columns)} mark several labels per image; vitft supports one",
            allowed="a single 1 in each row",
            hint="--set data.label_column=NAME to train one of them against the rest",
        )
    used = np.flatnonzero(hot.any(0))
    names = in_order(columns[place] for place in used.tolist())
    new_id = np.array([names.index(name) if name in names else MISSING for name in columns], dtype=np.int64)
    return Labels(np.where(hot.any(1), new_id[hot.argmax(1)], MISSING), tuple(names), False)


def labels_of_text(values: Any) -> Labels:
    """Return the labels of an arrow column of text, without spaces around them."""
    tidy = pc.utf8_trim_whitespace(values)
    num_trimmed = pc.sum(pc.not_equal(tidy, values)).as_py() or 0
    encoded = pc.dictionary_encode(pc.if_else(pc.equal(tidy, ""), None, tidy)).combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0)
    # Not by arrow: up to pyarrow 25, utf8_normalize gives NFD whatever form is asked for.
    spelled = [unicodedata.normalize("NFC", name) for name in encoded.dictionary.to_pylist()]
    names = in_order(set(spelled))
    place = {name: index for index, name in enumerate(names)}
    new_id = np.array([*(place[name] for name in spelled), MISSING], dtype=np.int64)
    return Labels(new_id[_as_numpy(encoded.indices)], tuple(names), False, num_trimmed)


def tidy_untyped(labels: Sequence[str | None], where: str) -> list[str | None]:
    """Tidy labels from a file without types: ``2.0`` among whole numbers is 2, and -1 is a missing label.

    Raises:
        DataError: if they are fractions, which cannot name classes.
    """
    distinct = {label.strip() for label in labels if label is not None}
    if not distinct or not all(map(_NUMBER.fullmatch, distinct)):
        return list(labels)
    if not all(_WHOLE.fullmatch(each) or _WHOLE_AS_FLOAT.fullmatch(each) for each in distinct):
        raise DataError(
            f"the labels of {where} are fractions ({shorten(sorted(distinct), 3)}), which cannot name classes",
            allowed="a column of names or whole numbers",
            hint="--set data.label_column=NAME",
        )
    whole = {each: re.sub(r"\.0*$", "", each).removeprefix("+") for each in distinct}
    missing = set() if set(whole.values()) <= {"-1", "1"} and len(set(whole.values())) > 1 else {"-1", "-100"}
    tidy = (None if label is None else whole[label.strip()] for label in labels)
    return [None if label in missing else label for label in tidy]


# --- by name -----------------------------------------------------------------------------------------------


def onto_classes(
    labels: Labels, classes: Sequence[str], *, exactly: bool = False
) -> tuple[np.ndarray, list[str], list[str]]:
    """Translate ids by class name: exact matches first, then names that differ only in case, spaces and separators.

    Args:
        labels: the labels of a split.
        classes: the names to translate to, by id; a model may have the same name twice.
        exactly: whether only exact matches count.

    Returns:
        The ids in ``classes`` (int64, (n,)), the names of used labels that it lacks, and notes.

    Raises:
        DataError: if a used label is the name of several classes.
    """
    if labels.names == tuple(classes):
        return labels.ids, [], []
    used = labels.used()
    by_number = _by_number(used, classes)
    if by_number is not None:
        new_id = np.array([*(by_number.get(name, MISSING) for name in labels.names), MISSING], dtype=np.int64)
        said = ", ".join(f"{name} is {classes[place]}" for name, place in list(by_number.items())[:4])
        return (
            new_id[labels.ids],
            [],
            [f"classes: matched by number, because the model's classes have no names: {said}"],
        )
    places: dict[str, list[int]] = {}
    loose: dict[str, list[int]] = {}
    for index, name in enumerate(classes):
        places.setdefault(name, []).append(index)
        loose.setdefault(alike(name), []).append(index)
    found: dict[str, int] = {}
    renamed, unknown = [], []
    for name in used:
        same = places.get(name) or ([] if exactly else loose.get(alike(name), []))
        if len(same) > 1:
            raise DataError(
                f"several classes of the model are called {name!r} (ids {', '.join(map(str, same))}), so it is "
                "unclear which one that label means",
                allowed="classes with different names",
                hint="give them different names in id2label of the model's config.json, such as "
                + ", ".join(f"{name} {place + 1}" for place in range(len(same))),
            )
        if not same:
            unknown.append(name)
            continue
        found[name] = same[0]
        if name not in places:
            renamed.append(f"{name} -> {classes[same[0]]}")
    new_id = np.array([*(found.get(name, MISSING) for name in labels.names), MISSING], dtype=np.int64)
    notes = [f"classes matched despite different spelling: {shorten(renamed)}"] if renamed else []
    return new_id[labels.ids], unknown, notes


def _by_number(used: Sequence[str], classes: Sequence[str]) -> dict[str, int] | None:
    """Return the class of each label if neither the model's classes nor the labels have names."""
    if not used or not all(map(is_placeholder, classes)) or not all(map(_WHOLE.fullmatch, used)):
        return None
    if all(0 <= int(name) < len(classes) for name in used):
        return {name: int(name) for name in used}
    return {name: place for place, name in enumerate(in_order(used))} if len(used) == len(classes) else None


def join_similar(labels: Labels, similar: SimilarNames, notes: list[str]) -> Labels:
    """Join training labels whose names differ only in case, spaces and separators, if the user asked for that.

    Raises:
        DataError: if there are some, and the user has not said whether they are one class.
    """
    if labels.num_trimmed:
        notes.append(f"{labels.num_trimmed:,} labels had spaces around them, which were removed")
    groups: dict[str, list[int]] = {}
    for index, name in enumerate(labels.names):
        groups.setdefault(alike(name), []).append(index)
    same = [group for group in groups.values() if len(group) > 1]
    if same and labels.is_declared:
        some = "; ".join(", ".join(repr(labels.names[k]) for k in group) for group in same[:4])
        notes.append(f"classes declared by the dataset with nearly the same names: {some}")
    if not same or labels.is_declared or similar == "keep":
        return labels
    counts = labels.counts
    some = "; ".join(", ".join(f"{labels.names[k]!r} ({counts[k]:,})" for k in group) for group in same[:4])
    if similar == "stop":
        raise DataError(
            f"the labels can be read in two ways, because some differ only in case, spaces or separators: {some}",
            allowed="names that are the same, or clearly different",
            hint="--set data.similar_names=merge makes each of these one class, "
            f"--set data.similar_names=keep leaves {len(labels.names)} classes",
        )
    best = {k: max(group, key=lambda k: (counts[k], -k)) for group in same for k in group}
    names = tuple(name for k, name in enumerate(labels.names) if best.get(k, k) == k)
    new_id = np.array([*(names.index(labels.names[best.get(k, k)]) for k in range(len(labels.names))), MISSING])
    notes.append(f"classes joined, because their names differ only in case, spaces or separators: {some}")
    return replace(labels, ids=new_id.astype(np.int64)[labels.ids], names=names)


# --- what training needs -----------------------------------------------------------------------------------


def require_labels(labels: Labels, split: str) -> None:
    """Raise a DataError with the count and the first rows if some rows of a split have no label."""
    if labels.counts.sum() == len(labels.ids):
        return
    missing = np.flatnonzero(labels.ids == MISSING)
    first = ", ".join(map(str, missing[:_SHOWN].tolist())) + (", ..." if len(missing) > _SHOWN else "")
    raise DataError(
        f"{len(missing):,} of {len(labels.ids):,} rows of {split} have no label (empty, -1 or -100): rows {first}",
        allowed="a label for every image",
        hint="label or remove these rows, or choose another column: --set data.label_column=NAME",
    )


def require_classes(train: Labels, where: str) -> None:
    """Raise a DataError if training labels give fewer than two classes, or two with the same name."""
    if len(train.used()) < 2:
        raise DataError(
            f"all {len(train.ids):,} training images have the same label, {train.names[int(train.ids[0])]!r}",
            allowed="at least two classes",
            hint="add images of other classes, or read the labels from elsewhere: "
            "--set data.label_column=NAME, --set data.class_level=N",
        )
    if len(set(train.names)) < len(train.names):
        raise DataError(
            f"two classes of {where} have the same name: "
            + shorten(sorted({name for name in train.names if train.names.count(name) > 1})),
            hint="rename one of them",
        )


def stream_label_ids(feature: Any, classes: Sequence[str]) -> Mapping[Any, int]:
    """Return the class id of each raw value of a stream's label column."""
    if isinstance(feature, datasets.ClassLabel):
        return {index: classes.index(name) for index, name in enumerate(feature.names) if name in classes}
    if feature.dtype == "bool":
        return {word == "true": index for index, word in enumerate(classes)}
    if feature.dtype in ("string", "large_string"):
        return {name: index for index, name in enumerate(classes)}
    return {int(name): index for index, name in enumerate(classes)}


def _of_class_label(ids: np.ndarray, column: str, parts: Parts) -> Labels:
    """Join the ids of files by class name, in the order of the first file's names."""
    names = tuple(dict.fromkeys(name for _, part in parts for name in part))
    if len(parts) == 1:
        names = parts[0][1]  # two equal names are an error later on
    joined = np.full(len(ids), MISSING, dtype=np.int64)
    start = 0
    for num_rows, part in parts:
        mine = ids[start : start + num_rows]
        if len(mine) and int(mine.max()) >= len(part):
            raise DataError(
                f"the column {column!r} contains the id {int(mine.max())}, but has only {len(part)} classes",
                hint="correct the dataset, or choose another column: --set data.label_column=NAME",
            )
        order = range(len(names)) if len(parts) == 1 else [names.index(name) for name in part]
        joined[start : start + num_rows] = np.array([*order, MISSING], dtype=np.int64)[np.where(mine < 0, -1, mine)]
        start += num_rows
    return Labels(joined, names, True)


def column_values(dataset: Any, column: str) -> Any:
    """Return a column as arrow text or numbers; a ClassLabel as its names."""
    values = pa.chunked_array(_column(dataset, column))
    feature = flat_features(dataset.features)[column]
    if isinstance(feature, datasets.ClassLabel):
        names = pa.array([*feature.names], pa.string())
        ids = pc.cast(values, pa.int64())
        return pc.take(names, pc.if_else(pc.and_(pc.greater_equal(ids, 0), pc.less(ids, len(names))), ids, None))
    return pc.cast(values, pa.string())


def _column(dataset: Any, column: str) -> list[Any]:
    """Return the chunks of a column."""
    outer, *inner = (column,) if column in dataset.features else tuple(column.split("."))
    values = dataset.data.column(outer)
    for name in inner:
        values = pc.struct_field(values, name)
    if getattr(dataset, "_indices", None) is not None:  # rows that were shuffled or selected before saving
        values = pc.take(values, dataset._indices.column(0))
    return values.chunks or [pa.array([], values.type)]


def _whole_numbers(values: Any, column: str) -> Any:
    if not pa.types.is_floating(values.type):
        return values
    # CSV readers turn integers with gaps into floats, and the gaps into NaN.
    values = pc.cast(values, pa.float64())  # arrow has no kernels for half precision
    values = pc.if_else(pc.is_nan(values), None, values)
    if pc.any(pc.not_equal(values, pc.floor(values))).as_py():
        raise DataError(
            f"the label column {column!r} holds fractions, which cannot name classes",
            allowed="a ClassLabel, text or integer column",
            hint="--set data.label_column=NAME",
        )
    return values


def _as_numpy(values: Any) -> np.ndarray:
    try:
        whole = pc.fill_null(pc.cast(values, pa.int64()), MISSING)
    except pa.ArrowInvalid as error:
        raise DataError(
            f"the label column holds numbers that are not class ids: {error}",
            allowed="a ClassLabel, text or integer column",
            hint="--set data.label_column=NAME",
        ) from error
    return np.asarray(whole.to_numpy(), dtype=np.int64)

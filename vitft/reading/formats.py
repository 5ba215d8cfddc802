"""Read data files that hold images themselves: parquet, arrow and webdataset."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from vitft.errors import DataError, shorten
from vitft.reading.columns import LOOKED_AT, find_image_columns
from vitft.reading.evidence import table_role
from vitft.reading.labels import Parts
from vitft.reading.opened import OpenedSource, reading, refuse_stream
from vitft.reading.plain import require_plain
from vitft.reading.shards import class_names, row_groups_of, schema_of
from vitft.reading.tars import holds_examples, open_tars
from vitft.recipe.keys import DataRecipe

FORMATS = {".parquet": "parquet", ".arrow": "arrow", ".tar": "webdataset"}
_STREAMS = ("parquet", "webdataset")
_SHARD = re.compile(r"(.+?)-\d{5}-of-\d{5}")


def holds_images(root: Path, names: Sequence[str], kind: str, data: DataRecipe) -> bool:
    """Return whether files of a format hold images, rather than only naming or describing them."""
    if kind == "webdataset":
        return any(holds_examples(str(root / name)) for name in names[:3])
    try:
        path = root / next((name for name in names if sum(row_groups_of(root / name))), names[0])
        features = datasets.Features.from_arrow_schema(schema_of(path)[0])
        batches = pq.ParquetFile(path).iter_batches(LOOKED_AT) if kind == "parquet" else ()
        rows: list[Any] = next((batch.to_pylist() for batch in batches if batch.num_rows), [])
        columns, _ = find_image_columns(features, rows, data.image_column, ())
    except DataError as error:
        return "is broken" in error.wrong  # reported when it is opened
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):  # broken: reported when it is opened
        return True
    return getattr(features[columns[0]], "dtype", None) not in ("string", "large_string")


def open_format(
    root: Path,
    names: Sequence[str],
    kind: str,
    data: DataRecipe,
    *,
    id: str | None = None,
    notes: Sequence[str] = (),
    left_out: Mapping[str, Sequence[str]] | None = None,
) -> OpenedSource:
    """Load data files, one split at a time because their columns may differ (a test split without labels)."""
    if data.streaming and kind not in _STREAMS:
        refuse_stream(data, f"{kind} files cannot be streamed")
    splits: dict[str, list[str]] = {}
    for name in names:
        splits.setdefault(split_of(name), []).append(name)
    _refuse_configurations(root, splits)
    opened: dict[str, Any] = {}
    folders: dict[str, tuple[str, ...]] = {}
    parts: dict[str, Mapping[str, Parts]] = {}
    counts: dict[str, int | None] = {}
    notes = list(notes)
    for split, members in splits.items():
        require_plain([str(root / name) for name in members])
        groups = {} if kind == "webdataset" else _filled(root, split, members, notes)
        counts[split] = sum(map(sum, groups.values())) if groups else None
        paths = [str(root / name) for name in groups or members]
        if groups:
            parts[split] = reading(root, partial(class_names, paths))
        opened[split] = reading(root, partial(_load, kind, paths, [*groups.values()], data.streaming))
        if data.streaming and parts.get(split):
            refuse_stream(data, "its files number the classes differently")
        own_folder = os.path.commonpath([Path(path).parent for path in paths])
        folders[split] = tuple(dict.fromkeys((own_folder, str(root))))
    return OpenedSource(
        id or str(root),
        None,
        opened,
        folders=folders,
        num_rows=counts if data.streaming else {},
        parts=parts,
        has_splits=len(splits) > 1 or any(_names_split(name) for name in names),
        left_out={reason: len(paths) for reason, paths in (left_out or {}).items()},
        notes=tuple(notes),
    )


def _refuse_configurations(root: Path, splits: Mapping[str, Sequence[str]]) -> None:
    """Raise if several folders each have files of the same split: small/train.parquet, large/train.parquet."""
    for split, names in splits.items():
        folders = sorted({name.rpartition("/")[0] for name in names if _names_split(Path(name).name)})
        if len(folders) > 1:
            raise DataError(
                f"{root} can be read in {len(folders)} ways, because {' and '.join(folders[:4])} each have files "
                f"of the split {split}",
                allowed="one configuration of the dataset",
                hint=f"--dataset {root / folders[0]}",
            )


def _filled(root: Path, split: str, names: Sequence[str], notes: list[str]) -> dict[str, list[int]]:
    """Return the files of a split that have rows, with the rows of each of their row groups; note the others.

    Raises:
        DataError: if none has rows.
    """
    groups = {name: reading(root, partial(row_groups_of, root / name)) for name in names}
    empty = [name for name in names if not sum(groups[name])]
    if len(empty) == len(names):
        raise DataError(
            f"the split {split} of {root} is empty: no row in {shorten(names, 4)}",
            allowed="splits with images",
            hint="add images, or move the files away",
        )
    if empty:
        notes.append(f"left out, because it has no rows: {shorten(empty, 4)}")
    return {name: groups[name] for name in names if name not in empty}


def _load(kind: str, paths: Sequence[str], groups: Sequence[Sequence[int]], is_streaming: bool) -> Any:
    """Load the files of a split; ``groups`` are the numbers of rows in the row groups of each."""
    if kind == "webdataset":
        return open_tars(paths, is_streaming=is_streaming)
    # `datasets` reads as many rows at once as a file's first row group has, and fails if that is none. The option
    # would also change the name of its cache, so it is given only where it must be.
    is_odd = kind == "parquet" and not all(rows[0] for rows in groups)
    options = {"batch_size": max(map(max, groups))} if is_odd else {}
    # Wildcard characters in a folder's name must not act as a pattern.
    files = [glob.escape(path) for path in paths]
    return datasets.load_dataset(kind, data_files=files, split="train", streaming=is_streaming, **options)


def _names_split(name: str) -> bool:
    return _SHARD.fullmatch(Path(name).stem) is not None or table_role(name) is not None


def split_of(name: str) -> str:
    """Return the split that a data file's path names, as `datasets` does; ``train`` if it names none.

    ``data/train-00000-of-00004.parquet`` and ``val/0.parquet`` name theirs, as does ``extra-00000-of-00001.parquet``.
    """
    if shard := _SHARD.fullmatch(Path(name).stem):
        return shard[1]
    return table_role(name) or "train"

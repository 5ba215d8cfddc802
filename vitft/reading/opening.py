"""A dataset's name -> its splits, as `datasets` gives them. The only choice made here is the split column.

builtin   made in memory
hub       `datasets.load_dataset`, which caches or streams it
local     a folder or a file: see local.py
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vitft.builtin.digits import load_digits
from vitft.errors import DataError, VitftError
from vitft.libraries import count_no_downloads
from vitft.names import DatasetName, classify_dataset, explain_hub_error, find_dataset_on_hub
from vitft.reading.columns import flat_features
from vitft.reading.downloads import downloaded_tars, load_verified, refuse_mixed_names
from vitft.reading.labels import column_values
from vitft.reading.local import open_file, open_folder
from vitft.reading.opened import OpenedSource, known_error, known_rows, link_of, refuse, refuse_stream
from vitft.reading.splitting import SplitColumn, find_split_column
from vitft.reading.streams import stream_features
from vitft.reading.words import is_split_name, roles_of
from vitft.recipe.keys import DataRecipe
from vitft.retry import patiently

_COMMIT = re.compile(r"[/\\]([0-9a-f]{40})[/\\]")
_PLAIN = ("string", "large_string", "int", "bool", "uint")
_LOOKED_THROUGH = 2000  # rows inspected to see whether a column may name splits


def open_splits(data: DataRecipe) -> OpenedSource:
    """Open the dataset that ``data.dataset`` names.

    Raises:
        DataError: if it cannot be found, reached, read or streamed.
    """
    count_no_downloads()
    if data.dataset is None:
        raise DataError(
            "no dataset was given",
            allowed="a folder, a file, a Hub id or builtin:digits",
            hint="--dataset builtin:digits",
        )
    name = classify_dataset(data.dataset)
    try:
        opened = _open(name, data)
        _refuse_idle_keys(opened, data)
        if data.streaming and data.split_column != "none":
            _refuse_split_column(opened, data)
        return opened if opened.columns is not None or data.streaming else _by_split_column(opened, data)
    finally:
        # Otherwise we would keep the memory used to fill the cache: hundreds of MB for large row groups.
        pa.default_memory_pool().release_unused()


def _refuse_idle_keys(opened: OpenedSource, data: DataRecipe) -> None:
    """Raise if a key for folders or tables is set, but the dataset is neither."""
    if opened.columns is not None:
        return
    idle = [key for key in ("table", "class_level") if getattr(data, key)]
    idle += ["layout"] if data.layout in ("folders", "table") else []
    if idle:
        raise DataError(
            f"data.{idle[0]}={getattr(data, idle[0])} does not apply to {opened.id}: its images are not files in "
            "folders",
            hint=f"leave out data.{idle[0]}",
        )


def _open(name: DatasetName, data: DataRecipe) -> OpenedSource:
    if name.kind != "hub":
        refuse(data, "revision", "it is for Hub datasets")
    if name.kind == "hub":
        return _open_hub(name.text, data)
    if name.kind == "builtin":
        refuse(data, "config", "it is for Hub datasets")
        refuse_stream(data, "it is already in memory")
        return OpenedSource(name.text, None, dict(load_digits()), "builtin")
    return open_file(Path(name.text), data) if name.kind == "file" else open_folder(Path(name.text), data)


# --- the split column --------------------------------------------------------------------------------------


def _by_split_column(opened: OpenedSource, data: DataRecipe) -> OpenedSource:
    """Split a source by its split column, if it has one and does not name splits itself."""
    found: dict[str, SplitColumn] = {}
    for name, rows in opened.splits.items():
        values = {column: _distinct(rows, column) for column in _may_name_splits(rows)}
        wanted_here = data.split_column in (None, "none") or data.split_column in values
        column = (
            find_split_column(values, data, f"{name} of {opened.id}")
            if wanted_here or len(opened.splits) == 1
            else None
        )
        if column is not None:
            found[name] = column
    if not found:
        return opened
    if len(opened.splits) > 1:
        _require_agreement(opened, found)
        return replace(opened, split_column=next(iter(found.values())).column)
    (name, rows), column = next(iter(opened.splits.items())), next(iter(found.values()))
    values = column_values(rows, column.column)
    splits, parts = {}, {}
    for split in dict.fromkeys(column.names.values()):
        meant = [value for value, its in column.names.items() if its == split]
        chosen = np.flatnonzero(np.asarray(pc.is_in(values, value_set=pa.array(meant, values.type)).to_numpy()))
        if len(chosen):
            splits[split] = rows.select(chosen)
            parts[split] = opened.parts.get(name, {})
    notes = [*opened.notes, column.note]
    without = len(rows) - sum(map(len, splits.values()))
    if without:
        notes.append(f"{without:,} rows left out, because they have no value in {column.column}")
    folders = dict.fromkeys(splits, opened.folders.get(name, ()))
    return replace(
        opened,
        splits=splits,
        folders=folders,
        parts=parts,
        roles=column.roles,
        has_splits=True,
        split_column=column.column,
        notes=tuple(notes),
    )


def _refuse_split_column(opened: OpenedSource, data: DataRecipe) -> None:
    """Raise if a stream has a split column, as its rows are read in order whatever the column says."""
    for name, rows in opened.splits.items():
        features = flat_features(stream_features(rows))
        column = data.split_column or next((each for each in features if is_split_name(each)), None)
        if column is not None and (data.split_column or len(opened.splits) == 1):
            raise DataError(
                f"{name} of {opened.id} has the column {column!r}, which may name splits, but a stream cannot be "
                "split by a column",
                allowed="reading without --streaming, or ignoring the column",
                hint="leave out --streaming, or --set data.split_column=none",
            )


def _require_agreement(opened: OpenedSource, found: Mapping[str, SplitColumn]) -> None:
    """Raise if a column says that rows of one split belong to another split."""
    roles = roles_of(opened.splits)
    for name, column in found.items():
        others = {its for its in column.names.values() if column.roles.get(its) not in (roles[name], None)}
        if roles[name] is not None and others:
            raise DataError(
                f"{opened.id} can be read in two ways: {name} as it is; or split by its column {column.column!r}, "
                f"which says that some of its rows belong to {', '.join(sorted(others))}",
                allowed="splits and columns that agree",
                hint="to keep the splits as they are: --set data.split_column=none",
            )


def _may_name_splits(rows: Any) -> list[str]:
    """Return the plain columns that have few different values in the first rows."""
    found = []
    for name, feature in flat_features(rows.features).items():
        kind = str(getattr(feature, "dtype", ""))
        if isinstance(feature, datasets.ClassLabel) or (is_split_name(name) and kind.startswith("float")):
            found.append(name)
        elif isinstance(feature, datasets.Value) and str(feature.dtype).startswith(_PLAIN):
            first = column_values(rows, name).slice(0, _LOOKED_THROUGH)
            if len(pc.unique(first)) <= 50:
                found.append(name)
    return found


def _distinct(rows: Any, column: str) -> list[str]:
    return sorted(str(value) for value in pc.unique(column_values(rows, column)).to_pylist() if value is not None)


# --- the Hub -----------------------------------------------------------------------------------------------


def _open_hub(name: str, data: DataRecipe) -> OpenedSource:
    found = find_dataset_on_hub(name, data.revision)
    if found.unreachable is not None and not _is_cached(found.id):
        # Without this, `datasets` would retry for half a minute.
        raise explain_hub_error(found.unreachable, found.id, kind="dataset", revision=data.revision)

    def load() -> Any:
        return datasets.load_dataset(found.id, data.config, revision=data.revision, streaming=data.streaming)

    try:
        opened = patiently(load) if data.streaming else load_verified(found.id, found.revision, load)
        if not data.streaming and any(rows.info.builder_name == "webdataset" for rows in opened.values()):
            opened = downloaded_tars(found.id, found.revision) or opened
    except VitftError:
        raise
    except Exception as error:  # `datasets`, the Hub client or a file format may raise anything
        tars = downloaded_tars(found.id, found.revision) if isinstance(link_of(error), ValueError) else {}
        if tars and not data.streaming:  # its reader fails on labels that are words
            return OpenedSource(found.id, found.revision, tars, "hub", notes=(found.note,) if found.note else ())
        raise (
            known_error(error, found.id, data.config)
            or explain_hub_error(error, found.id, kind="dataset", revision=data.revision)
        ) from error
    notes = [] if found.note is None else [found.note]
    if not data.streaming:
        refuse_mixed_names(opened, found.id)
    cached_commit = None if data.streaming else _commit_in_cache(opened)
    if found.revision is None and cached_commit is not None:
        notes.append(f"dataset: commit {cached_commit[:12]} from this machine's cache; the Hub was not contacted")
        if re.fullmatch("[0-9a-f]{40}", data.revision or "") and data.revision != cached_commit:
            raise DataError(
                f"this machine's cache has commit {cached_commit} of {found.id}, not {data.revision}",
                hint=f"go online, or --set data.revision={cached_commit}",
            )
    counts = {split: known_rows(rows) for split, rows in opened.items()} if data.streaming else {}
    return OpenedSource(
        found.id, cached_commit or found.revision, dict(opened), "hub", num_rows=counts, notes=tuple(notes)
    )


def _is_cached(hub_id: str) -> bool:
    owner_and_name = hub_id.split("/")
    owner_and_name[-1] = datasets.naming.camelcase_to_snakecase(owner_and_name[-1])
    return (Path(datasets.config.HF_DATASETS_CACHE).expanduser() / "___".join(owner_and_name)).is_dir()


def _commit_in_cache(opened: Mapping[str, Any]) -> str | None:
    for rows in opened.values():
        for file in rows.cache_files:
            if match := _COMMIT.search(file["filename"]):
                return match[1]
    return None

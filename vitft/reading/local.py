"""A folder or file on this machine -> its splits: which of its formats holds the images, and what it says.

Candidates are looked at first: image files (with class folders and tables), parquet, arrow, webdataset. One that
holds images is read; of two, neither, until the user says which.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq

from vitft.errors import DataError, did_you_mean, shorten
from vitft.reading.columns import LOOKED_AT, find_image_columns
from vitft.reading.files import FilesReading, Rows, read_files, table_role
from vitft.reading.labels import Parts, tidy_untyped
from vitft.reading.listing import IMAGE_SUFFIXES, Listing, count, describe_left_out, list_folder
from vitft.reading.shards import class_names
from vitft.reading.tables import SUFFIXES as TABLE_SUFFIXES
from vitft.reading.tars import holds_examples, open_tars
from vitft.reading.words import Role
from vitft.recipe import DataRecipe

IMAGE, LABEL = "image", "label"
_FORMATS = {".parquet": "parquet", ".arrow": "arrow", ".tar": "webdataset"}
_STREAMS = ("parquet", "webdataset")
_SHARD = re.compile(r"(.+?)-\d{5}-of-\d{5}")
_NO_IMAGES = (
    ".txt", ".json", ".jsonl", ".xml", ".csv", ".tsv", ".md", ".rst", ".html", ".pdf", ".py", ".sh", ".ipynb", ".yaml",
    ".yml", ".toml", ".ini", ".cfg", ".log", ".db", ".lnk", ".pth", ".pt", ".safetensors", ".zip", ".gz",
)  # fmt: skip
_ARCHIVES = (".zip", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")


@dataclass(frozen=True)
class OpenedSource:
    """A source with its splits: Dataset, or IterableDataset when streamed.

    Attributes:
        id: full Hub id, absolute path, or a built-in's name.
        revision: commit of a Hub dataset.
        splits: by their own names.
        kind: ``hub``, ``local`` or ``builtin``.
        folders: per split, where relative paths may start.
        num_rows: per split of a stream, where known.
        roles: what splits serve for, where the source says so.
        parts: per split and column, the class names of its files where they differ.
        columns: those of images and labels, where reading the source has settled them.
        has_splits: whether the source names splits.
        labels_from: where labels come from, where reading the source has settled it.
        left_out: image files in no split, by the reason.
        notes: what was chosen.
    """

    id: str
    revision: str | None
    splits: Mapping[str, Any]
    kind: str = "local"
    folders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    num_rows: Mapping[str, int | None] = field(default_factory=dict)
    roles: Mapping[str, Role | None] = field(default_factory=dict)
    parts: Mapping[str, Mapping[str, Parts]] = field(default_factory=dict)
    columns: tuple[str, str] | None = None
    has_splits: bool = True
    labels_from: str = ""
    left_out: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def open_file(path: Path, data: DataRecipe) -> OpenedSource:
    """Open one file: parquet, arrow, a webdataset tar, or a table that names images."""
    refuse(data, "config", "it belongs to datasets with several configurations")
    suffix = path.suffix.lower()
    if suffix in _FORMATS:
        return _open_format(path.parent, [path.name], _FORMATS[suffix], data, id=str(path))
    if suffix in TABLE_SUFFIXES:
        refuse_stream(data, f"{suffix} files are not streamed")
        alone = data.model_copy(update={"table": (path.name,), "layout": "table"})
        listing = Listing(str(path.parent), others=[path.name])
        try:
            reading = read_files(listing, alone)
        except DataError:  # bare names, which the folder must be searched for
            reading = read_files(list_folder(str(path.parent)), alone)
            reading.left_out.clear()  # what else lies in the folder does not matter
        return _opened_files(str(path.parent), reading, data, id=str(path))
    hint = "unpack it, and give the folder" if suffix in _ARCHIVES else None
    if suffix in IMAGE_SUFFIXES:
        hint = f"give the folder of class folders: --dataset {path.parent}"
    known = ", ".join((*_FORMATS, *TABLE_SUFFIXES[:-1]))
    raise DataError(f"{path} is no dataset", allowed=f"a file ending in {known}", hint=hint)


def open_folder(root: Path, data: DataRecipe) -> OpenedSource:
    """Open a folder: a saved dataset, a copy of a Hub repository, or files of one of the formats."""
    for marker in ("dataset_dict.json", "state.json"):
        if (root / marker).is_file():
            return _open_saved(root, data, is_dict=marker == "dataset_dict.json")
    if data.config is not None or _has_configs(root):
        return _open_clone(root, data)
    listing = list_folder(str(root))
    by_format: dict[str, list[str]] = {}
    for name in listing.others:
        if kind := _FORMATS.get(Path(name).suffix.lower()):
            by_format.setdefault(kind, []).append(name)
    holding = {kind: names for kind, names in by_format.items() if _holds_images(root, names, kind, data)}
    if data.layout in _FORMATS.values():
        if data.layout not in by_format:
            raise DataError(f"{root} holds no {data.layout} files", hint="leave data.layout away")
        return _open_format(root, by_format[data.layout], data.layout, data, listing=listing)
    others = [name for kind, names in by_format.items() if kind not in holding for name in names]
    if data.layout == "auto" and holding:
        return _open_chosen(root, listing, holding, others, data)
    return _open_images(root, listing, others, data)


# --- which format ------------------------------------------------------------------------------------------


def _open_chosen(
    root: Path, listing: Listing, holding: Mapping[str, Sequence[str]], others: Sequence[str], data: DataRecipe
) -> OpenedSource:
    """Open the format that holds images, if it is the only one and no image files make a dataset beside it."""
    readings = [f"{kind} ({count(len(names), 'file')}, such as {names[0]})" for kind, names in holding.items()]
    notes = []
    tables = [name for name in listing.others if Path(name).suffix.lower() in (".csv", ".tsv", ".jsonl", ".json")]
    if listing.images or tables:
        try:
            reading = read_files(_copy(listing), data, [name for name in others if name.endswith(".parquet")])
        except DataError as error:
            if listing.images:
                why = error.wrong.splitlines()[0]
                notes.append(f"{count(listing.num_images, 'image file')} left out: {why}")
            if tables:
                notes.append(f"{shorten(tables, 4)} left out: the images are in {readings[0]}")
        else:
            number = sum(len(rows.paths) for rows in reading.splits.values())
            kind = "folders" if reading.label_column == "class_folder" else "table"
            readings.append(f"{count(number, 'image file')} with labels from {reading.labels_from}")
            raise _several(root, readings, [*holding, kind])
    if len(holding) > 1:
        raise _several(root, readings, [*holding])
    kind, names = next(iter(holding.items()))
    if others:
        notes.append(f"{shorten(list(others), 4)} left out: no images in it")
    left_out = {"they are in no data file": listing.paths()} if listing.images else {}
    return _open_format(root, names, kind, data, listing=listing, notes=notes, left_out=left_out)


def _copy(listing: Listing) -> Listing:
    return Listing(
        listing.root, dict(listing.images), listing.others, {k: list(v) for k, v in listing.left_out.items()}
    )


def _several(root: Path, readings: Sequence[str], layouts: Sequence[str]) -> DataError:
    return DataError(
        f"{root} can be read in {len(readings)} ways: " + "; or ".join(readings),
        allowed="one of them",
        hint=" or ".join(f"--set data.layout={layout}" for layout in layouts),
    )


def _holds_images(root: Path, names: Sequence[str], kind: str, data: DataRecipe) -> bool:
    """Return whether files of a format hold images, and do not just name or describe them."""
    if kind == "webdataset":
        return any(holds_examples(str(root / name)) for name in names[:3])
    if kind == "arrow":
        return True
    try:
        schema = pq.read_schema(root / names[0])
        features = datasets.Features.from_arrow_schema(schema)
        first = pq.ParquetFile(root / names[0])
        rows = next(first.iter_batches(LOOKED_AT)).to_pylist() if first.metadata.num_rows else []
        columns, _ = find_image_columns(features, rows, data.image_column, ())
    except DataError:
        return False
    except Exception:  # broken: said when it is opened
        return True
    return getattr(features[columns[0]], "dtype", None) not in ("string", "large_string")


def _open_images(root: Path, listing: Listing, others: Sequence[str], data: DataRecipe) -> OpenedSource:
    """Open a folder of image files."""
    tables = [name for name in listing.others if Path(name).suffix.lower() in TABLE_SUFFIXES]
    if not listing.images and not tables:
        known = ", ".join((*_FORMATS, *TABLE_SUFFIXES[:-1]))
        raise DataError(
            f"{root} holds no images and no data files" + _what_else(listing),
            allowed=f"class folders of images, files ending in {known}, or a saved dataset",
            hint=f"ls {root}",
        )
    refuse_stream(data, "image files are read one by one anyway")
    parquet = [name for name in others if name.endswith(".parquet")]
    reading = read_files(listing, data, parquet)
    _check_suffixes(listing, reading, data)
    for name in others:
        if not any(name in note for note in reading.notes) and name not in reading.labels_from:
            reading.notes.append(f"{name} left out: it holds no images with labels")
    return _opened_files(str(root), reading, data)


def _what_else(listing: Listing) -> str:
    reasons = list(describe_left_out(listing.left_out))
    suffixes = _suffixes(listing.others)
    if suffixes:
        reasons.append(f"files of other kinds: {suffixes}")
    return f" ({'; '.join(reasons)})" if reasons else ""


def _suffixes(names: Sequence[str]) -> str:
    counts: dict[str, int] = {}
    for name in names:
        suffix = Path(name).suffix or "no suffix"
        counts[suffix] = counts.get(suffix, 0) + 1
    return ", ".join(
        f"{suffix} ({number:,})" for suffix, number in sorted(counts.items(), key=lambda item: -item[1])[:6]
    )


def _check_suffixes(listing: Listing, reading: FilesReading, data: DataRecipe) -> None:
    """Note files with no image name; refuse to lose a whole class folder of them."""
    told = " ".join(reading.notes)
    strange = [
        name for name in listing.others
        if name not in reading.tables and name not in told and Path(name).suffix.lower() not in (*_FORMATS, ".md")
    ]  # fmt: skip
    if strange:
        reading.notes.append(f"{count(len(strange), 'file')} with no image name left out: {_suffixes(strange)}")
    if reading.label_column != "class_folder":
        return
    levels = {path.count("/") for rows in reading.splits.values() for path in rows.paths[:50]}
    parents = {path.rpartition("/")[0].rpartition("/")[0] for rows in reading.splits.values() for path in rows.paths}
    with_images = {parent for folder in listing.images for parent in _ancestors(folder)}
    lost: dict[str, list[str]] = {}
    images = [name for name in strange if Path(name).suffix.lower() not in _NO_IMAGES]
    for name in [*images, *(path for paths in listing.left_out.values() for path in paths)]:
        folder = name.rpartition("/")[0]
        is_hidden = any(part.startswith((".", "__MACOSX")) for part in name.split("/"))
        is_beside = folder.rpartition("/")[0] in parents and name.count("/") in levels
        if folder and is_beside and not is_hidden and folder not in with_images:
            lost.setdefault(folder, []).append(name)
    if lost and not data.accept_classes:
        folder, names = next(iter(lost.items()))
        said = folder.encode("utf-8", "backslashreplace").decode()
        raise DataError(
            f"the class folder {said} holds {count(len(names), 'file')} ({_suffixes(names)}), and none can be read, so "
            "a class would be missing" + (f"; so do {len(lost) - 1} others" if len(lost) > 1 else ""),
            allowed=f"images with UTF-8 names ending in {', '.join(sorted(IMAGE_SUFFIXES))}",
            hint="convert or rename them, or go on without: --set data.accept_classes=true",
        )


def _ancestors(folder: str) -> list[str]:
    parts = folder.split("/")
    return ["/".join(parts[: depth + 1]) for depth in range(len(parts))]


def _opened_files(root: str, reading: FilesReading, data: DataRecipe, *, id: str | None = None) -> OpenedSource:
    """Make datasets of paths and labels; nothing is copied into a cache."""
    if reading.missing and data.bad_images == "stop":
        where, name = reading.missing[0]
        more = (
            f", and {len(reading.missing) - 1:,} other rows name files that are missing"
            if len(reading.missing) > 1
            else ""
        )
        raise DataError(
            f"{where} names {name}, which is not there{more}",
            allowed="rows whose image is there",
            hint="mend or remove these rows, or pass over them: --bad-images skip",
        )
    notes = [*reading.notes, *describe_left_out(reading.left_out)]
    if reading.missing:
        notes.append(
            f"{count(len(reading.missing), 'row')} passed over, whose file is not there ({reading.missing[0][1]})"
        )
    if reading.label_column != "class_folder":
        for rows in reading.splits.values():
            rows.labels = tidy_untyped(rows.labels, reading.labels_from)
    features = datasets.Features({IMAGE: datasets.Image(decode=False), LABEL: datasets.Value("string")})
    splits = {name: _dataset(rows, features) for name, rows in reading.splits.items()}
    return OpenedSource(
        id or root,
        None,
        splits,
        folders=dict.fromkeys(splits, (root,)),
        roles=reading.roles,
        columns=(IMAGE, LABEL),
        has_splits=reading.has_splits,
        labels_from=reading.labels_from,
        left_out={reason: len(paths) for reason, paths in reading.left_out.items()},
        notes=tuple(notes),
    )


def _dataset(rows: Rows, features: datasets.Features) -> Any:
    return datasets.Dataset.from_dict({IMAGE: rows.paths, LABEL: rows.labels}, features=features)


# --- saved datasets and copies of repositories --------------------------------------------------------------


def _open_saved(root: Path, data: DataRecipe, *, is_dict: bool) -> OpenedSource:
    refuse(data, "config", "a saved dataset has one")
    refuse_stream(data, "a saved dataset is read in place")
    parts: dict[str, Mapping[str, Parts]] = {}
    for state in sorted(root.glob("*/state.json" if is_dict else "state.json")):
        files = _saved_files(state)
        if not files:  # `datasets` saves no rows, and cannot load them again
            raise DataError(f"{state.parent} is empty", allowed="splits with at least one image", hint="save it again")
        parts[state.parent.name if is_dict else "train"] = reading(root, lambda files=files: class_names(files))  # type: ignore[misc]
    loaded = reading(root, lambda: datasets.load_from_disk(str(root)))
    splits = dict(loaded) if is_dict else {"train": loaded}
    return OpenedSource(str(root), None, splits, parts=parts, has_splits=is_dict)


def _saved_files(state: Path) -> list[str]:
    """Return the data files of a saved split.

    Raises:
        DataError: if the description of the split is not one.
    """
    try:
        files = [
            str(state.parent / each["filename"])
            for each in json.loads(state.read_text(encoding="utf-8"))["_data_files"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{state} does not describe a saved dataset: {type(error).__name__}: {error}",
            allowed="what save_to_disk of `datasets` writes",
            hint="save it again",
        ) from error
    return files


def _open_clone(root: Path, data: DataRecipe) -> OpenedSource:
    """Open a copy of a Hub repository, whose README says which files make which configuration and split."""
    if data.streaming:
        loaded = reading(root, lambda: datasets.load_dataset(str(root), data.config, streaming=True), data.config)
        counts = {split: known_rows(rows) for split, rows in loaded.items()}
        return OpenedSource(str(root), None, dict(loaded), num_rows=counts)
    loaded = reading(root, lambda: datasets.load_dataset(str(root), data.config), data.config)
    return OpenedSource(str(root), None, dict(loaded), folders=dict.fromkeys(loaded, (str(root),)))


def _has_configs(root: Path) -> bool:
    readme = root / "README.md"
    if not readme.is_file():
        return False
    head = readme.read_text(encoding="utf-8", errors="replace")
    return head.startswith("---") and re.search(r"^configs:", head.split("\n---", 1)[0], re.MULTILINE) is not None


# --- data files --------------------------------------------------------------------------------------------


def _open_format(
    root: Path,
    names: Sequence[str],
    kind: str,
    data: DataRecipe,
    *,
    id: str | None = None,
    listing: Listing | None = None,
    notes: Sequence[str] = (),
    left_out: Mapping[str, Sequence[str]] | None = None,
) -> OpenedSource:
    """Load data files, each split alone: their columns may differ (a test split without labels)."""
    if data.streaming and kind not in _STREAMS:
        refuse_stream(data, f"{kind} files are not streamed")
    splits: dict[str, list[str]] = {}
    for name in names:
        splits.setdefault(split_of(name), []).append(name)
    opened: dict[str, Any] = {}
    folders: dict[str, tuple[str, ...]] = {}
    parts: dict[str, Mapping[str, Parts]] = {}
    for split, members in splits.items():
        paths = [str(root / name) for name in members]
        opened[split] = reading(root, lambda paths=paths: _load(kind, paths, data.streaming))  # type: ignore[misc]
        if kind != "webdataset":
            parts[split] = reading(root, lambda paths=paths: class_names(paths))  # type: ignore[misc]
        if data.streaming and parts.get(split):
            refuse_stream(data, "its files number the classes differently")
        own_folder = os.path.commonpath([Path(path).parent for path in paths])
        folders[split] = tuple(dict.fromkeys((own_folder, str(root))))
    counts = {split: _count_parquet(root, splits[split]) if kind == "parquet" else None for split in splits}
    known = _SPLIT_NAMED.search
    return OpenedSource(
        id or str(root),
        None,
        opened,
        folders=folders,
        num_rows=counts if data.streaming else {},
        parts=parts,
        has_splits=len(splits) > 1 or any(known(name) is not None for name in names),
        left_out={reason: len(paths) for reason, paths in (left_out or {}).items()},
        notes=tuple(notes),
    )


_SPLIT_NAMED = re.compile(r"train|test|val|dev|eval|-of-", re.IGNORECASE)


def _load(kind: str, paths: Sequence[str], is_streaming: bool) -> Any:
    if kind == "webdataset":
        return open_tars(paths, is_streaming=is_streaming)
    return datasets.load_dataset(kind, data_files=list(paths), split="train", streaming=is_streaming)


def _count_parquet(root: Path, names: Sequence[str]) -> int:
    return sum(int(pq.read_metadata(root / name).num_rows) for name in names)


def split_of(name: str) -> str:
    """Return the split that a data file belongs to by its path, as `datasets` does; ``train`` if it has none.

    ``data/train-00000-of-00004.parquet`` and ``val/0.parquet`` name theirs, as does ``extra-00000-of-00001.parquet``.
    """
    if shard := _SHARD.fullmatch(Path(name).stem):
        return shard[1]
    return table_role(name) or "train"


# --- what goes wrong ---------------------------------------------------------------------------------------


def reading(root: Path, load: Callable[[], Any], config: str | None = None) -> Any:
    """Return what ``load`` returns; whatever `datasets` and the file formats raise becomes a DataError."""
    try:
        return load()
    except DataError:
        raise
    except Exception as error:  # whatever `datasets` and the file formats raise
        if (told := known_error(error, str(root), config)) is not None:
            raise told from error
        link: BaseException = error
        while link.__cause__ is not None:  # `datasets` wraps the reason in a sentence that says nothing
            link = link.__cause__
        if isinstance(link, DataError):
            raise link from None
        lines = str(link).strip().splitlines() or [""]
        raise DataError(
            f"cannot read {root}: {type(link).__name__}: {lines[0]}",
            hint="look at the files: all of a split must be whole, of one format and with the same columns",
        ) from error


def known_error(error: Exception, name: str, config: str | None) -> DataError | None:
    """Return what `datasets` means by an error about a configuration or an empty split, else None."""
    text = str(error)
    if "corresponds to no data" in text:
        return DataError(f"a split of {name} is empty", allowed="splits with images", hint="fill it or remove it")
    listed = re.search(r"(?:available configs|Available|configurations in the cache)[^\[\n:]*:? *\[?([^\]\n]*)", text)
    if not isinstance(error, ValueError) or not ("onfig" in text and listed):
        return None
    configs = re.findall(r"[\w.\-]+", listed[1])
    guess = did_you_mean(config, configs) if config else configs[0] if configs else None
    wrong = f"{name} has no configuration {config!r}" if config else f"{name} has several configurations"
    return DataError(wrong, allowed=", ".join(configs), hint=f"--set data.config={guess}" if guess else None)


def known_rows(rows: Any) -> int | None:
    """Return the number of rows of a stream's split, where its description says so."""
    splits = rows.info.splits or {}
    count = splits[str(rows.split)].num_examples if str(rows.split) in splits else None
    return count or None


def refuse(data: DataRecipe, key: str, why: str) -> None:
    """Raise if a key of the recipe is set that does not apply."""
    value = getattr(data, key)
    if value is not None:
        raise DataError(f"data.{key}={value} does not apply to {data.dataset}: {why}", hint=f"leave data.{key} away")


def refuse_stream(data: DataRecipe, why: str) -> None:
    """Raise if a stream is asked for where there is none."""
    if data.streaming:
        raise DataError(
            f"{data.dataset} cannot be streamed: {why}",
            allowed="Hub datasets, and webdataset or parquet files",
            hint="leave --streaming away",
        )

"""A dataset's name -> its splits, as `datasets` gives them; nothing is chosen here yet.

builtin   made in memory
hub       `datasets.load_dataset`, which keeps it in its cache, or streams it
folder    saved by `save_to_disk`; or parquet, arrow, csv, jsonl, webdataset files; or class folders
file      one such file
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")  # before the import: else every load calls a counting host

import datasets
import pyarrow as pa

from vitft.builtin.digits import load_digits
from vitft.data.columns import IMAGE_SUFFIXES, LOOKED_AT, find_image_column
from vitft.data.folders import as_datasets, list_files, sort_into_classes
from vitft.data.splits import TEST_NAMES, TRAIN_NAMES, VALIDATION_NAMES
from vitft.data.tables import require_plain
from vitft.errors import DataError, did_you_mean
from vitft.names import DatasetName, classify_dataset, explain_hub_error, find_dataset_on_hub
from vitft.recipe import DataRecipe
from vitft.retry import patiently

# Each load would call a counting host. The attribute too: `datasets` may have been imported before this line.
os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")
datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = os.environ["HF_UPDATE_DOWNLOAD_COUNTS"].upper() in (
    "1",
    "ON",
    "YES",
    "TRUE",
)

_BUILDERS = {
    ".parquet": "parquet", ".arrow": "arrow", ".tar": "webdataset",
    ".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".json": "json", ".ndjson": "json",
}  # fmt: skip
_TABLES = ("csv", "json")
_STREAMS = ("parquet", "webdataset")
_SHARD = re.compile(r"(.+?)-\d{5}-of-\d{5}")
_COMMIT = re.compile(r"[/\\]([0-9a-f]{40})[/\\]")


@dataclass(frozen=True)
class OpenedSource:
    """A source with its splits: Dataset, or IterableDataset when streamed.

    ``folders``: per split, where relative paths may start. ``num_rows``: per split of a stream, where known.
    """

    id: str
    revision: str | None
    splits: Mapping[str, Any]
    folders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    num_rows: Mapping[str, int | None] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def open_splits(data: DataRecipe) -> OpenedSource:
    """Open what ``data.dataset`` names.

    Raises:
        DataError: if it cannot be found, reached, read or streamed.
    """
    if data.dataset is None:
        raise DataError(
            "no dataset was given",
            allowed="a folder, a file, a Hub id or builtin:digits",
            hint="--dataset builtin:digits",
        )
    name = classify_dataset(data.dataset)
    try:
        return _open(name, data)
    finally:
        # What the import into the cache needed, hundreds of MB for large row groups, would stay with us.
        pa.default_memory_pool().release_unused()


def _open(name: DatasetName, data: DataRecipe) -> OpenedSource:
    if name.kind != "hub":
        _refuse(data, "revision", "it belongs to Hub datasets")
    if name.kind == "hub":
        return _open_hub(name.text, data)
    if name.kind == "builtin":
        _refuse(data, "config", "it belongs to Hub datasets")
        _refuse_stream(data, "it is in memory already")
        return OpenedSource(name.text, None, dict(load_digits()))
    if name.kind == "file":
        return _open_file(Path(name.text), data)
    return _open_folder(Path(name.text), data)


# --- the Hub -----------------------------------------------------------------------------------------------


def _open_hub(name: str, data: DataRecipe) -> OpenedSource:
    found = find_dataset_on_hub(name, data.revision)
    if found.unreachable is not None and not _is_cached(found.id):
        # Without this, `datasets` would try again for half a minute.
        raise explain_hub_error(found.unreachable, found.id, kind="dataset", revision=data.revision)
    try:
        opened = patiently(
            lambda: datasets.load_dataset(found.id, data.config, revision=data.revision, streaming=data.streaming)
        )
    except Exception as error:  # whatever `datasets`, the Hub client or a file format raise
        raise (
            _known_error(error, found.id, data.config)
            or explain_hub_error(error, found.id, kind="dataset", revision=data.revision)
        ) from error
    notes = [] if found.note is None else [found.note]
    cached_commit = None if data.streaming else _commit_in_cache(opened)
    if found.revision is None and cached_commit is not None:
        notes.append(f"dataset: commit {cached_commit[:12]} from this machine's cache; the Hub was not asked")
        if re.fullmatch("[0-9a-f]{40}", data.revision or "") and data.revision != cached_commit:
            raise DataError(
                f"this machine's cache has commit {cached_commit} of {found.id}, not {data.revision}",
                hint=f"go online, or --set data.revision={cached_commit}",
            )
    counts = {split: _known_rows(rows) for split, rows in opened.items()} if data.streaming else {}
    return OpenedSource(found.id, cached_commit or found.revision, dict(opened), {}, counts, tuple(notes))


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


def _known_rows(rows: Any) -> int | None:
    splits = rows.info.splits or {}
    count = splits[str(rows.split)].num_examples if str(rows.split) in splits else None
    return count or None


def _known_error(error: Exception, name: str, config: str | None) -> DataError | None:
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


# --- local files and folders -------------------------------------------------------------------------------


def _open_file(path: Path, data: DataRecipe) -> OpenedSource:
    _refuse(data, "config", "it belongs to datasets with several configurations")
    builder = _BUILDERS.get(path.suffix.lower())
    if builder is None:
        hint = "unpack it, and give the folder" if path.suffix.lower() in (".zip", ".gz", ".tgz") else None
        if path.suffix.lower() in IMAGE_SUFFIXES:
            hint = f"give the folder of class folders: --dataset {path.parent}"
        raise DataError(f"{path} is no dataset", allowed=f"a file ending in {', '.join(_BUILDERS)}", hint=hint)
    return _load_files(path.parent, {split_of(path.name): [path.name]}, builder, data, id=str(path))


def _open_folder(root: Path, data: DataRecipe) -> OpenedSource:
    for marker in ("dataset_dict.json", "state.json"):
        if (root / marker).is_file():
            return _open_saved(root, data, is_dict=marker == "dataset_dict.json")
    if data.config is not None or _has_configs(root):
        return _open_clone(root, data)
    files = list_files(str(root))
    by_builder: dict[str, list[str]] = {}
    for name in files:
        builder = _BUILDERS.get(Path(name).suffix.lower())
        if builder is not None:
            by_builder.setdefault(builder, []).append(name)
    wanted = [name for name in (data.train_split, data.validation_split, data.test_split) if name]
    folders = sort_into_classes(files, wanted)
    for builder in ("parquet", "arrow"):
        if builder in by_builder:
            return _load_files(root, _by_split(by_builder[builder]), builder, data)
    table_notes: list[str] = []
    for builder in _TABLES:
        tables = by_builder.get(builder, [])
        if tables and (opened := _open_tables(root, tables, builder, data, must_fit=not folders.splits)):
            return opened
        table_notes += [f"{name} was left out: it names no image files" for name in tables[:3] if folders.splits]
    if "webdataset" in by_builder and folders.num_classes < 2:
        return _load_files(root, _by_split(by_builder["webdataset"]), "webdataset", data)
    if not folders.splits:
        raise DataError(
            f"{root} holds no images and no data files",
            allowed=f"class folders of images, files ending in {', '.join(_BUILDERS)}, or a saved dataset",
            hint=f"ls {root}",
        )
    if folders.num_classes == 0:
        raise DataError(
            f"the images of {root} lie in no class folders",
            allowed=f"{root}/CLASS/IMAGE or {root}/train/CLASS/IMAGE",
            hint="sort the images into one folder per class, or add a csv that names files and labels",
        )
    _refuse_stream(data, "image files are read one by one anyway")
    splits = as_datasets(folders)
    notes = (*folders.notes, *table_notes)
    return OpenedSource(str(root), None, splits, dict.fromkeys(splits, (str(root),)), notes=notes)


def _open_saved(root: Path, data: DataRecipe, *, is_dict: bool) -> OpenedSource:
    _refuse(data, "config", "a saved dataset has one")
    _refuse_stream(data, "a saved dataset is read in place")
    for state in root.glob("*/state.json" if is_dict else "state.json"):
        if not json.loads(state.read_text())["_data_files"]:  # `datasets` saves no rows, and cannot load them again
            raise DataError(f"{state.parent} is empty", allowed="splits with at least one image", hint="save it again")
    loaded = _reading(root, lambda: datasets.load_from_disk(str(root)))
    return OpenedSource(str(root), None, dict(loaded) if is_dict else {"train": loaded})


def _open_clone(root: Path, data: DataRecipe) -> OpenedSource:
    """Open a copy of a Hub repository, whose README says which files make which configuration and split."""
    if data.streaming:
        loaded = _reading(root, lambda: datasets.load_dataset(str(root), data.config, streaming=True), data.config)
        counts = {split: _known_rows(rows) for split, rows in loaded.items()}
        return OpenedSource(str(root), None, dict(loaded), num_rows=counts)
    loaded = _reading(root, lambda: datasets.load_dataset(str(root), data.config), data.config)
    return OpenedSource(str(root), None, dict(loaded), dict.fromkeys(loaded, (str(root),)))


def _has_configs(root: Path) -> bool:
    readme = root / "README.md"
    if not readme.is_file():
        return False
    head = readme.read_text(encoding="utf-8", errors="replace")
    return head.startswith("---") and re.search(r"^configs:", head.split("\n---", 1)[0], re.MULTILINE) is not None


def _open_tables(
    root: Path, tables: Sequence[str], builder: str, data: DataRecipe, *, must_fit: bool
) -> OpenedSource | None:
    """Open csv or json files if a column of theirs names image files; others only describe the folder."""
    try:
        opened = _load_files(root, _by_split(tables), builder, data)
        for split, rows in opened.splits.items():
            find_image_column(
                rows.features,
                list(rows.select(range(min(LOOKED_AT, len(rows))))),
                None,
                opened.folders[split],
            )
    except DataError:
        if must_fit or data.image_column is not None:
            return _load_files(root, _by_split(tables), builder, data)
        return None
    return opened


def _load_files(
    root: Path, splits: Mapping[str, Sequence[str]], builder: str, data: DataRecipe, *, id: str | None = None
) -> OpenedSource:
    """Load data files, each split alone: their columns may differ (a test split without labels)."""
    if data.streaming and builder not in _STREAMS:
        _refuse_stream(data, f"{builder} files are not streamed")
    opened: dict[str, Any] = {}
    folders: dict[str, tuple[str, ...]] = {}
    for split, names in splits.items():
        paths = [str(root / name) for name in names]
        require_plain(paths)
        opened[split] = _reading(root, lambda paths=paths: _load(builder, paths, data.streaming))  # type: ignore[misc]
        own_folder = os.path.commonpath([Path(path).parent for path in paths])
        folders[split] = tuple(dict.fromkeys((own_folder, str(root))))
    counts = {split: _count_parquet(root, splits[split]) if builder == "parquet" else None for split in splits}
    return OpenedSource(id or str(root), None, opened, folders, counts if data.streaming else {})


def _load(builder: str, paths: Sequence[str], is_streaming: bool) -> Any:
    options: dict[str, Any] = {}
    if builder == "csv":
        # pandas takes "None", "NA" and "null" for gaps; here they may be the names of classes.
        options = {"keep_default_na": False, "na_values": [""]}
        if paths[0].endswith(".tsv"):
            options["sep"] = "\t"
    return datasets.load_dataset(builder, data_files=list(paths), split="train", streaming=is_streaming, **options)


def _count_parquet(root: Path, names: Sequence[str]) -> int:
    import pyarrow.parquet as pq

    return sum(int(pq.read_metadata(root / name).num_rows) for name in names)


def _by_split(names: Sequence[str]) -> dict[str, list[str]]:
    splits: dict[str, list[str]] = {}
    for name in names:
        splits.setdefault(split_of(name), []).append(name)
    return splits


def split_of(name: str) -> str:
    """Return the split that a data file belongs to by its path, as `datasets` does; ``train`` if it has none.

    ``data/train-00000-of-00004.parquet`` and ``val/0.csv`` name theirs, as does ``extra-00000-of-00001.csv``.
    """
    path = Path(name)
    if shard := _SHARD.fullmatch(path.stem):
        return shard[1]
    for part in (path.stem, *reversed(path.parts[:-1])):
        words = [word for word in re.split(r"[-._ 0-9]+", part.lower()) if word]
        for split, synonyms in (
            ("train", TRAIN_NAMES),
            ("validation", VALIDATION_NAMES),
            ("test", TEST_NAMES),
        ):
            if set(words) & set(synonyms):
                return split
    return "train"


def _reading(root: Path, load: Callable[[], Any], config: str | None = None) -> Any:
    try:
        return load()
    except Exception as error:  # whatever `datasets` and the file formats raise
        if (told := _known_error(error, str(root), config)) is not None:
            raise told from error
        link: BaseException = error
        while link.__cause__ is not None:  # `datasets` wraps the reason in a sentence that says nothing
            link = link.__cause__
        lines = str(link).strip().splitlines() or [""]
        raise DataError(
            f"cannot read {root}: {type(link).__name__}: {lines[0]}",
            hint="look at the files: all of a split must be whole, of one format and with the same columns",
        ) from error


def _refuse(data: DataRecipe, key: str, why: str) -> None:
    value = getattr(data, key)
    if value is not None:
        raise DataError(f"data.{key}={value} does not apply to {data.dataset}: {why}", hint=f"leave data.{key} away")


def _refuse_stream(data: DataRecipe, why: str) -> None:
    if data.streaming:
        raise DataError(
            f"{data.dataset} cannot be streamed: {why}",
            allowed="Hub datasets, and webdataset or parquet files",
            hint="leave --streaming away",
        )

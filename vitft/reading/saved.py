"""Open datasets saved by `datasets` on this machine, and copies of Hub repositories."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import datasets

from vitft.errors import DataError, shorten
from vitft.reading.evidence import table_role
from vitft.reading.labels import Parts
from vitft.reading.opened import OpenedSource, known_rows, reading, refuse, refuse_stream
from vitft.reading.shards import class_names
from vitft.recipe.keys import DataRecipe


def open_saved(root: Path, data: DataRecipe, *, is_dict: bool) -> OpenedSource:
    """Open a dataset that ``save_to_disk`` wrote, with one split or several."""
    refuse(data, "config", "a saved dataset has only one")
    refuse_stream(data, "a saved dataset is read in place")
    parts: dict[str, Mapping[str, Parts]] = {}
    for state in sorted(root.glob("*/state.json" if is_dict else "state.json")):
        files = _saved_files(state)
        if not files:  # `datasets` can save a split without rows, but not load it
            raise DataError(f"{state.parent} is empty", allowed="splits with at least one image", hint="save it again")
        parts[state.parent.name if is_dict else "train"] = reading(root, lambda files=files: class_names(files))  # type: ignore[misc]
    loaded = reading(root, lambda: datasets.load_from_disk(str(root)))
    splits = dict(loaded) if is_dict else {"train": loaded}
    return OpenedSource(str(root), None, splits, parts=parts, has_splits=is_dict)


def _saved_files(state: Path) -> list[str]:
    """Return the data files of a saved split.

    Raises:
        DataError: if the description of the split is not valid.
    """
    try:
        files = [
            str(state.parent / each["filename"])
            for each in json.loads(state.read_text(encoding="utf-8"))["_data_files"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{state} does not describe a saved dataset: {type(error).__name__}: {error}",
            allowed="files that save_to_disk of `datasets` writes",
            hint="save it again",
        ) from error
    return files


def open_clone(root: Path, data: DataRecipe) -> OpenedSource:
    """Open a copy of a Hub repository whose README assigns files to configurations and splits."""
    if data.streaming:
        loaded = reading(root, lambda: datasets.load_dataset(str(root), data.config, streaming=True), data.config)
        counts = {split: known_rows(rows) for split, rows in loaded.items()}
        return OpenedSource(str(root), None, dict(loaded), num_rows=counts)
    files = reading(root, lambda: _files_of(root, data.config), data.config)
    unread = sorted(
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if path.suffix.lower() in (".parquet", ".arrow", ".tar")
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
        and str(path.resolve()) not in {file for paths in files.values() for file in paths}
    )
    meant = {table_role(split) or split for split in files}
    lost = [name for name in unread if (role := table_role(name)) is not None and role not in meant]
    if lost and data.config is None:
        raise DataError(
            f"the README of {root} lists the files of the dataset, but leaves out the split of {shorten(lost, 4)}",
            allowed="a README that names every split, or none",
            hint="for all files: --set data.layout=parquet; for those that the README names: --set data.config=default",
        )
    notes = (f"left out, because the README does not name them: {shorten(unread, 4)}",) if unread else ()
    parts = {
        split: reading(root, lambda paths=paths: class_names(paths, may_lack_names=True))  # type: ignore[misc]
        for split, paths in files.items()
        if all(path.endswith(".parquet") for path in paths)
    }
    loaded = reading(root, lambda: datasets.load_dataset(str(root), data.config), data.config)
    return OpenedSource(
        str(root), None, dict(loaded), folders=dict.fromkeys(loaded, (str(root),)), parts=parts, notes=notes
    )


def _files_of(root: Path, config: str | None) -> dict[str, list[str]]:
    """Return the files of each split, according to the README."""
    found = datasets.load_dataset_builder(str(root), config).config.data_files or {}
    return {str(split): [str(Path(path).resolve()) for path in paths] for split, paths in found.items()}


def has_configs(root: Path) -> bool:
    """Return whether a folder's README assigns its files to configurations."""
    readme = root / "README.md"
    if not readme.is_file():
        return False
    head = readme.read_text(encoding="utf-8", errors="replace")
    return head.startswith("---") and re.search(r"^configs:", head.split("\n---", 1)[0], re.MULTILINE) is not None

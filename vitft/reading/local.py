"""Open a folder or file on this machine: find the format that holds the images, and read its splits.

All candidates are checked first: image files (with class folders and tables), parquet, arrow, webdataset. If only one
holds images, it is read; if two do, the user must choose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets

from vitft.errors import DataError, shorten
from vitft.reading.files import read_files
from vitft.reading.formats import FORMATS, holds_images, open_format
from vitft.reading.labels import tidy_untyped
from vitft.reading.listing import IMAGE_SUFFIXES, Listing, count, describe_left_out, list_folder
from vitft.reading.opened import OpenedSource, refuse, refuse_stream
from vitft.reading.rows import FilesReading, Rows
from vitft.reading.saved import has_configs, open_clone, open_saved
from vitft.reading.tables import SUFFIXES as TABLE_SUFFIXES
from vitft.reading.unread import ARCHIVES, archives, note_unread, what_else
from vitft.recipe.keys import DataRecipe

IMAGE, LABEL = "image", "label"


def open_file(path: Path, data: DataRecipe) -> OpenedSource:
    """Open one file: parquet, arrow, a webdataset tar, or a table that names images."""
    refuse(data, "config", "it is for datasets with several configurations")
    suffix = path.suffix.lower()
    if suffix in FORMATS:
        return open_format(path.parent, [path.name], FORMATS[suffix], data, id=str(path))
    if suffix in TABLE_SUFFIXES:
        refuse_stream(data, f"{suffix} files cannot be streamed")
        alone = data.model_copy(update={"table": (path.name,), "layout": "table"})
        listing = Listing(str(path.parent), others=[path.name])
        try:
            reading = read_files(listing, alone)
        except DataError:  # bare names, which are searched for in the folder
            reading = read_files(list_folder(str(path.parent)), alone)
            reading.left_out.clear()  # other files in the folder do not matter
        return _opened_files(str(path.parent), reading, data, id=str(path))
    hint = "unpack it, and pass the folder" if suffix in ARCHIVES else None
    if suffix in IMAGE_SUFFIXES:
        hint = f"pass the folder of class folders: --dataset {path.parent}"
    known = ", ".join((*FORMATS, *TABLE_SUFFIXES[:-1]))
    raise DataError(f"{path} is not a dataset", allowed=f"a file ending in {known}", hint=hint)


def open_folder(root: Path, data: DataRecipe) -> OpenedSource:
    """Open a folder: a saved dataset, a copy of a Hub repository, or files of one of the formats."""
    if root == Path(root.anchor):
        raise DataError(f"{root} is the whole file system", allowed="a folder of images", hint="--dataset FOLDER")
    for marker in ("dataset_dict.json", "state.json"):
        if (root / marker).is_file():
            return open_saved(root, data, is_dict=marker == "dataset_dict.json")
    if data.config is not None or (data.layout == "auto" and has_configs(root)):
        return open_clone(root, data)
    listing = list_folder(str(root))
    if saved := _saved_below(listing, data):
        return open_folder(root / saved, data)
    by_format: dict[str, list[str]] = {}
    for name in listing.others:
        if kind := FORMATS.get(Path(name).suffix.lower()):
            by_format.setdefault(kind, []).append(name)
    holding = {kind: names for kind, names in by_format.items() if holds_images(root, names, kind, data)}
    if data.layout in FORMATS.values():
        if data.layout not in by_format:
            raise DataError(f"{root} holds no {data.layout} files", hint="leave out data.layout")
        return open_format(root, by_format[data.layout], data.layout, data)
    others = [name for kind, names in by_format.items() if kind not in holding for name in names]
    if data.layout == "auto" and holding:
        return _open_chosen(root, listing, holding, others, data)
    return _open_images(root, listing, others, data)


def _saved_below(listing: Listing, data: DataRecipe) -> str | None:
    """Return the subfolder that `save_to_disk` wrote, if there is nothing else.

    If the user asked for a layout, remove the saved files from the listing.

    Raises:
        DataError: if there are several, or if there are images or data files beside it.
    """
    found = {name.rpartition("/")[0] for name in listing.others if name.endswith(("/dataset_dict.json", "/state.json"))}
    tops = sorted(path for path in found if not any(path.startswith(f"{other}/") for other in found))
    if not tops:
        return None
    inside = [name for name in listing.others if any(name.startswith(f"{top}/") for top in tops)]
    known = (*FORMATS, ".csv", ".tsv", ".jsonl")
    beside = [name for name in set(listing.others) - set(inside) if Path(name).suffix.lower() in known]
    beside += listing.paths()
    if data.layout != "auto":
        listing.others = [name for name in listing.others if name not in set(inside)]
        return None
    if len(tops) > 1 or beside:
        others = f", and {count(len(beside), 'other file')} such as {min(beside)}" if beside else ""
        raise DataError(
            f"{listing.root} can be read in several ways: save_to_disk wrote some of it ({shorten(tops, 6)}){others}",
            allowed="one of them",
            hint=f"--dataset {listing.root}/{tops[0]}"
            + (", or --set data.layout=folders (table, parquet)" if beside else ""),
        )
    return tops[0]


# --- which format ------------------------------------------------------------------------------------------


def _open_chosen(
    root: Path, listing: Listing, holding: Mapping[str, Sequence[str]], others: Sequence[str], data: DataRecipe
) -> OpenedSource:
    """Open the format that holds images, if it is the only one and no image files could be the dataset too."""
    if len(holding) > 1:
        raise _several(root, [f"{kind} ({names[0]})" for kind, names in holding.items()], [*holding])
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
            classes = {label for rows in reading.splits.values() for label in rows.labels}
            if len(classes) < 2:  # for example, pictures in the README
                some = next(path for rows in reading.splits.values() for path in rows.paths)
                notes.append(f"{count(number, 'image file')} left out ({some}, ...): the images are in {readings[0]}")
                return _open_only(root, listing, holding, others, data, notes)
            kind = "folders" if reading.label_column == "class_folder" else "table"
            readings.append(f"{count(number, 'image file')} with labels from {reading.labels_from}")
            raise _several(root, readings, [*holding, kind])
    return _open_only(root, listing, holding, others, data, notes)


def _open_only(
    root: Path,
    listing: Listing,
    holding: Mapping[str, Sequence[str]],
    others: Sequence[str],
    data: DataRecipe,
    notes: list[str],
) -> OpenedSource:
    kind, names = next(iter(holding.items()))
    if others:
        notes.append(f"left out, because they hold no images: {shorten(list(others), 4)}")
    left_out = {"they are in no data file": listing.paths()} if listing.images else {}
    return open_format(root, names, kind, data, notes=notes, left_out=left_out)


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


def _open_images(root: Path, listing: Listing, others: Sequence[str], data: DataRecipe) -> OpenedSource:
    tables = [name for name in listing.others if Path(name).suffix.lower() in TABLE_SUFFIXES]
    if not listing.images and not tables:
        known = ", ".join((*FORMATS, *TABLE_SUFFIXES[:-1]))
        packed = archives(listing.others)
        raise DataError(
            f"{root} holds no images and no data files" + what_else(listing),
            allowed=f"class folders of images, files ending in {known} (a tar must hold images "
            "beside their labels, as in webdataset), or a saved dataset",
            hint=f"unpack {shorten(packed, 3)}" if packed else f"ls {root}",
        )
    refuse_stream(data, "image files are already read one at a time")
    parquet = [name for name in others if name.endswith(".parquet")]
    reading = read_files(listing, data, parquet)
    note_unread(listing, reading, data)
    for name in others:
        if not any(name in note for note in reading.notes) and name not in reading.labels_from:
            reading.notes.append(f"{name} left out: it holds no images with labels")
    return _opened_files(str(root), reading, data)


def _opened_files(root: str, reading: FilesReading, data: DataRecipe, *, id: str | None = None) -> OpenedSource:
    """Make datasets of paths and labels, without copying anything into a cache."""
    if reading.missing and data.bad_images == "stop":
        where, name = reading.missing[0]
        more = (
            f", and {len(reading.missing) - 1:,} other rows name files that are missing"
            if len(reading.missing) > 1
            else ""
        )
        raise DataError(
            f"{where} names {name}, which does not exist{more}",
            allowed="rows whose image exists",
            hint="fix or remove these rows, or skip them: --bad-images skip",
        )
    notes = [*reading.notes, *describe_left_out(reading.left_out)]
    if reading.missing:
        notes.append(
            f"{count(len(reading.missing), 'row')} skipped: the image does not exist ({reading.missing[0][1]})"
        )
    if reading.label_column != "class_folder":
        everything = [label for rows in reading.splits.values() for label in rows.labels]
        tidy = iter(tidy_untyped(everything, reading.labels_from))  # all splits at once, as -1 beside 1 is a class
        for rows in reading.splits.values():
            rows.labels = [next(tidy) for _ in rows.labels]
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
        doubts=tuple(reading.doubts),
        left_out={reason: len(paths) for reason, paths in reading.left_out.items()},
        notes=tuple(notes),
    )


def _dataset(rows: Rows, features: datasets.Features) -> Any:
    return datasets.Dataset.from_dict({IMAGE: rows.paths, LABEL: rows.labels}, features=features)

"""Read a folder of image files: combine its folders and tables, or raise if they contradict each other.

The rules are in docs/data-layouts.md. Folders and tables are first read separately, then combined:

    folders alone              classes and splits by folder
    tables over flat folders   classes by table; splits by table or folder
    tables over class folders  if both agree, the table adds splits; if not, an error shows both
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from vitft.errors import DataError, shorten
from vitft.reading.class_level import mask_files
from vitft.reading.evidence import Evidence, find_evidence
from vitft.reading.folders import read_places
from vitft.reading.listing import Listing, count, join
from vitft.reading.places import MASKS, Places
from vitft.reading.rows import FilesReading, lay_out
from vitft.reading.words import alike, is_dimension
from vitft.recipe.keys import DataRecipe

_CLOSED = (
    ".mat", ".xlsx", ".xls", ".ods", ".npy", ".npz", ".pkl", ".h5", ".hdf5", ".zip", ".rar", ".7z", ".gz", ".tgz",
)  # fmt: skip


def read_files(listing: Listing, data: DataRecipe, extra_tables: Sequence[str] = ()) -> FilesReading:
    """Read a folder whose images are files.

    Args:
        listing: the contents of the folder.
        data: the recipe's `data` section.
        extra_tables: files of other formats that may name images, such as parquet without images.

    Raises:
        DataError: if there are no classes, or two possible readings; the message includes the notes so far.
    """
    notes: list[str] = []
    try:
        return _read(listing, data, extra_tables, notes)
    except DataError as error:
        raise error if not notes else _with_notes(error, notes) from error


def _with_notes(error: DataError, notes: Sequence[str]) -> DataError:
    told = "\n".join(f"  note: {note}" for note in notes)
    return DataError(f"{error.wrong}\n{told}", allowed=error.allowed, hint=error.hint)


def _read(listing: Listing, data: DataRecipe, extra_tables: Sequence[str], notes: list[str]) -> FilesReading:
    _leave_masks(listing)
    wanted = [
        part.strip() for name in (data.train_split, data.validation_split, data.test_split) if name
        for part in name.split("+")
    ]  # fmt: skip
    places = read_places(listing, wanted=wanted, class_level=data.class_level, accept_classes=data.accept_classes)
    # If the user asked for tables, or all images are in one folder, only tables give classes.
    is_alone = len(places.classes) < 2 and data.class_level is None
    for_tables = places.without_classes() if data.layout == "table" or data.label_column or is_alone else places
    evidence = [] if data.layout == "folders" else find_evidence(listing, for_tables, data, extra_tables, notes)
    _refuse_idle_keys(listing, evidence, data)
    labelled = [each for each in evidence if each.labels is not None]
    if labelled and (for_tables is not places or data.table):
        places = places.without_classes()
    has_folders = bool(places.classes) and places.problem is None
    if not labelled and not has_folders:
        raise places.problem or _no_classes(listing, evidence)
    if has_folders:
        notes += places.notes
        labels_of = _labels_of_folders(places, labelled, listing, notes)
        labels_from = places.labels_from
    else:
        labels_of, labels_from = _labels_of_tables(labelled), f"the column {_columns(labelled)}"
        notes += [each.labels.note for each in labelled if each.labels is not None and each.labels.note]
    reading = lay_out(listing, places, evidence, labels_of, data, notes, by_table=not has_folders)
    reading.labels_from = labels_from
    reading.label_column = "class_folder" if has_folders else labelled[0].labels.column  # type: ignore[union-attr]
    return reading


def _refuse_idle_keys(listing: Listing, evidence: Sequence[Evidence], data: DataRecipe) -> None:
    """Raise if the user asked for a table or a column, but no table names the images."""
    if evidence:
        return
    if data.layout == "table":
        raise DataError(f"no table of {listing.root} names its images", hint="--set data.table=FILE")
    for key in ("label_column", "image_column", "split_column"):
        value = getattr(data, key)
        if value not in (None, "none"):
            raise DataError(
                f"data.{key}={value} names a column, but no table of {listing.root} names its images",
                allowed="a table that names the images, instead of class folders",
                hint=f"leave data.{key} out",
            )


def _leave_masks(listing: Listing) -> None:
    for folder, names in list(listing.images.items()):
        masks = set(mask_files(names))
        if masks:
            listing.images[folder] = [name for name in names if name not in masks]
            listing.left_out.setdefault(MASKS, []).extend(join(folder, name) for name in sorted(masks))


def _no_classes(listing: Listing, evidence: Sequence[Evidence]) -> DataError:
    tables = []
    for each in evidence:
        others = shorten([name for name in each.joined.table.columns if name != each.joined.column], 6)
        tables.append(f"{each.name} names images, but has no label column (it has: {others or 'no other columns'})")
    closed = [name for name in listing.others if Path(name).suffix.lower() in _CLOSED]
    if closed:
        tables.append(f"not read: {shorten(closed, 4)} (unpack archives, and export workbooks and matrices as csv)")
    return DataError(
        "; ".join([f"the images of {listing.root} are not in class folders", *tables]),
        allowed=f"{listing.root}/CLASS/IMAGE, {listing.root}/train/CLASS/IMAGE, or a table of file names and labels",
        hint=_column_hint(evidence)
        or "sort the images into one folder per class, or add a csv of file names and labels",
    )


def _column_hint(evidence: Sequence[Evidence]) -> str | None:
    """Return the hint for choosing a label column whose name does not look like one."""
    for each in evidence:
        others = [
            name for name in each.joined.table.columns if name != each.joined.column and not is_dimension(name)
        ]  # fmt: skip
        if others:
            return f"--set data.label_column={others[0]} (if it is a measure, also --set data.accept_classes=true)"
    return None


# --- labels ------------------------------------------------------------------------------------------------


def _columns(evidence: Sequence[Evidence]) -> str:
    return ", ".join(dict.fromkeys(f"{each.labels.column} of {each.name}" for each in evidence if each.labels))


def _labels_of_tables(evidence: Sequence[Evidence]) -> dict[str, str | None]:
    """Return the label of every file that tables name; raise if two tables contradict each other."""
    _refuse_mixed_kinds(evidence)
    labels: dict[str, str | None] = {}
    said_by: dict[str, str] = {}
    for each in evidence:
        assert each.labels is not None
        for file, label in zip(each.joined.files, each.labels.values, strict=True):
            if not file:
                continue
            if label is not None and labels.get(file) not in (None, label):
                raise _two_labels(file, labels[file], label, said_by[file], each)
            labels[file] = label if label is not None else labels.get(file)
            said_by[file] = each.name
    return labels


def _refuse_mixed_kinds(evidence: Sequence[Evidence]) -> None:
    """Raise if one table has class numbers and another has class names, as nothing says which is which."""
    kinds: dict[bool, Evidence] = {}
    for each in evidence:
        values = [value for value in (each.labels.values if each.labels else ()) if value is not None]
        if values:
            kinds.setdefault(all(value.lstrip("+-").replace(".", "", 1).isdigit() for value in values), each)
    if len(kinds) > 1:
        raise DataError(
            f"{kinds[True].name} gives the classes as numbers, but {kinds[False].name} gives names",
            allowed="tables that all use numbers or all use names",
            hint=f"--set 'data.table=[{kinds[False].name}]', or correct one of them",
        )


def _two_labels(file: str, first: str | None, second: str, where: str, evidence: Evidence) -> DataError:
    if where == evidence.name:
        return DataError(
            f"{where} gives {file} several labels: {first}, {second}; vitft supports one per image",
            allowed="one label per image",
            hint="keep one row for each image, or choose another column: --set data.label_column=NAME",
        )
    return DataError(
        f"{where} says that {file} is {first!r}, but {evidence.name} says {second!r}",
        allowed="tables that agree",
        hint=f"name the tables to use: --set 'data.table=[{where}, ...]', or --set 'data.table=[{evidence.name}, ...]'",
    )


def _labels_of_folders(
    places: Places, evidence: Sequence[Evidence], listing: Listing, notes: list[str]
) -> dict[str, str | None]:
    """Return the tables' labels for files outside class folders; elsewhere they must agree with the folders."""
    more: dict[str, str | None] = {}
    for each in evidence:
        assert each.labels is not None
        pairs = [
            (label, name)
            for file, label in zip(each.joined.files, each.labels.values, strict=True)
            if label is not None and (name := places.class_of.get(file.rpartition("/")[0]))
        ]
        renamed = _renaming(pairs)
        if renamed is None:
            if not each.labels.is_sure:
                continue  # the column is not about these classes
            raise _contradiction(listing, places, each, pairs)
        others = [f"{label} = {name}" for label, name in sorted(renamed.items()) if label != alike(name)]
        if others:
            notes.append(f"{each.name}: {each.labels.column} names the classes differently: {shorten(others, 4)}")
        fresh = {
            file: renamed.get(alike(label), label)
            for file, label in zip(each.joined.files, each.labels.values, strict=True)
            if file and label is not None and not places.class_of.get(file.rpartition("/")[0])
        }
        if fresh:
            said = f"{count(len(fresh), 'image')} outside class folders take their labels from {each.labels.column}"
            notes.append(f"{each.name}: {said}")
        more |= fresh
    return more


def _renaming(pairs: Iterable[tuple[str, str]]) -> dict[str, str] | None:
    """Return the class that each label means if folders and table group the images alike, else None."""
    forward: dict[str, str] = {}
    backward: dict[str, str] = {}
    for label, name in pairs:
        if forward.setdefault(alike(label), name) != name or backward.setdefault(name, alike(label)) != alike(label):
            return None
    return forward


def _contradiction(listing: Listing, places: Places, evidence: Evidence, pairs: Sequence[tuple[str, str]]) -> DataError:
    assert evidence.labels is not None
    counts: dict[str, int] = {}
    for label, _ in pairs:
        counts[label] = counts.get(label, 0) + 1
    by_table = shorten([f"{label} ({number:,})" for label, number in sorted(counts.items())], 6)
    totals: dict[str, int] = {}
    for folder, name in places.class_of.items():
        if name is not None:
            totals[name] = totals.get(name, 0) + len(listing.images[folder])
    by_folder = shorten([f"{name} ({totals[name]:,})" for name in places.classes], 6)
    return DataError(
        f"{listing.root} can be read in two ways that contradict each other:\n"
        f"  by its folders: {len(totals)} classes: {by_folder}\n"
        f"  by {evidence.labels.column!r} of {evidence.name}: {len(counts)} classes: {by_table}",
        allowed="folders and tables that agree, or only one of them",
        hint="--set data.layout=folders, or --set data.layout=table",
    )

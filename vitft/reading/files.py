"""Images as files: what folders and tables say of them, laid together into one reading, or refused as two.

The rules stand as a table in docs/data-layouts.md. Folders and tables are read first, each alone; then

    folders alone              classes and splits by folder
    tables over flat folders   classes by table; splits by table or folder
    tables over class folders  where both agree, the table adds splits; where they do not, an error shows both
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from vitft.errors import DataError, shorten
from vitft.reading.evidence import Evidence, find_evidence
from vitft.reading.folders import MASKS, UNSPLIT, Places, mask_files, read_places
from vitft.reading.listing import Listing, count, join
from vitft.reading.words import Role, alike
from vitft.recipe import DataRecipe

UNNAMED = "no row of a table names them"


@dataclass
class Rows:
    """The images of one split: paths in the dataset's folder (or absolute), and labels, None where there is none."""

    paths: list[str] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)


@dataclass
class FilesReading:
    """What was made of a folder of image files.

    Attributes:
        splits: rows by split.
        roles: what each split serves for, where that is known.
        labels_from: where labels come from, in words.
        label_column: by which the user may be told of it.
        has_splits: whether the source names splits.
        left_out: image files in no split, by the reason.
        missing: rows of tables whose file is not there: where, and what it names.
        tables: the tables that were read.
        notes: every choice, with its reason.
    """

    splits: dict[str, Rows]
    roles: dict[str, Role | None]
    labels_from: str
    label_column: str
    has_splits: bool
    left_out: dict[str, list[str]]
    missing: list[tuple[str, str]]
    tables: list[str]
    notes: list[str]


def read_files(listing: Listing, data: DataRecipe, extra_tables: Sequence[str] = ()) -> FilesReading:
    """Read a folder whose images are files.

    Args:
        listing: of the folder.
        data: what the user says of it.
        extra_tables: files of other formats that may name images (parquet without images of its own).

    Raises:
        DataError: if it gives no classes, or can be read in two ways; the notes that led there stand in it.
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
    if data.layout == "table":
        places.class_of = dict.fromkeys([*places.class_of, *places.left_out])
        places.problem = None
    evidence = [] if data.layout == "folders" else find_evidence(listing, places, data, extra_tables, notes)
    has_folders = bool(places.classes) and places.problem is None
    labelled = [each for each in evidence if each.labels is not None]
    if not evidence and data.layout == "table":
        raise DataError(f"no table of {listing.root} names its images", hint="--set data.table=FILE")
    if not labelled and places.problem is not None:
        raise places.problem
    if not labelled and not has_folders:
        raise _no_classes(listing)
    notes += places.notes if has_folders or not labelled else []
    if has_folders:
        labels_of = _labels_of_folders(places, labelled, listing)
        labels_from = places.labels_from
    else:
        labels_of, labels_from = _labels_of_tables(labelled), f"the column {_columns(labelled)}"
        notes += [each.labels.note for each in labelled if each.labels is not None and each.labels.note]
    reading = _laid_out(listing, places, evidence, labels_of, data, notes, by_table=not has_folders)
    reading.labels_from = labels_from
    reading.label_column = "class_folder" if has_folders else labelled[0].labels.column  # type: ignore[union-attr]
    return reading


def _leave_masks(listing: Listing) -> None:
    for folder, names in list(listing.images.items()):
        masks = set(mask_files(names))
        if masks:
            listing.images[folder] = [name for name in names if name not in masks]
            listing.left_out.setdefault(MASKS, []).extend(join(folder, name) for name in sorted(masks))


def _no_classes(listing: Listing) -> DataError:
    return DataError(
        f"the images of {listing.root} lie in no class folders",
        allowed=f"{listing.root}/CLASS/IMAGE, {listing.root}/train/CLASS/IMAGE, or a table of names and labels",
        hint="sort the images into one folder per class, or add a csv that names files and labels",
    )


# --- labels ------------------------------------------------------------------------------------------------


def _columns(evidence: Sequence[Evidence]) -> str:
    return ", ".join(dict.fromkeys(f"{each.labels.column} of {each.name}" for each in evidence if each.labels))


def _labels_of_tables(evidence: Sequence[Evidence]) -> dict[str, str | None]:
    """Return the label of every file that tables name; two that contradict each other are an error."""
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


def _two_labels(file: str, first: str | None, second: str, where: str, evidence: Evidence) -> DataError:
    if where == evidence.name:
        return DataError(
            f"{where} gives {file} several labels: {first}, {second}; vitft takes one per image",
            allowed="one label per image",
            hint="keep one row for each image, or choose another column: --set data.label_column=NAME",
        )
    return DataError(
        f"{where} says that {file} is {first!r}, and {evidence.name} that it is {second!r}",
        allowed="tables that agree",
        hint=f"--set data.table={where}, or --set data.table={evidence.name}",
    )


def _labels_of_folders(places: Places, evidence: Sequence[Evidence], listing: Listing) -> dict[str, str | None]:
    """Return labels of files that lie in no class folder, by the tables; they must agree with the folders elsewhere."""
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
                continue  # a column of something else
            raise _contradiction(listing, places, each, pairs)
        for file, label in zip(each.joined.files, each.labels.values, strict=True):
            if file and label is not None and not places.class_of.get(file.rpartition("/")[0]):
                more[file] = renamed.get(alike(label), label)
    return more


def _renaming(pairs: Iterable[tuple[str, str]]) -> dict[str, str] | None:
    """Return which class each label is, if folders and table part the images alike; None if they do not."""
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
        f"{listing.root} can be read in two ways, which contradict each other:\n"
        f"  by its folders: {len(totals)} classes: {by_folder}\n"
        f"  by {evidence.labels.column!r} of {evidence.name}: {len(counts)} classes: {by_table}",
        allowed="folders and tables that agree, or one of the two",
        hint="--set data.layout=folders, or --set data.layout=table",
    )


# --- rows --------------------------------------------------------------------------------------------------


def _laid_out(
    listing: Listing,
    places: Places,
    evidence: Sequence[Evidence],
    labels_of: Mapping[str, str | None],
    data: DataRecipe,
    notes: list[str],
    *,
    by_table: bool,
) -> FilesReading:
    """Lay folders and tables together: each image in its split, with its label, or left out with the reason."""
    split_by_table, roles = _splits_of_tables(evidence, places, data, notes)
    names_splits = any(each.splits is not None for each in evidence) or any(each.role for each in evidence)
    left_out = {reason: list(paths) for reason, paths in listing.left_out.items()}
    splits: dict[str, Rows] = {}
    named = {file for each in evidence for file in each.joined.files if file}
    order: list[str] = []
    if by_table:
        order = list(dict.fromkeys(file for each in evidence for file in each.joined.files if file))
    unnamed: list[str] = []
    for path in [*order, *(path for path in listing.paths() if not by_table or path not in named)]:
        folder = path.rpartition("/")[0]
        label = labels_of.get(path) or (None if by_table else places.class_of.get(folder))
        if path not in named and folder in places.left_out and not (by_table and data.layout == "table"):
            left_out.setdefault(places.left_out[folder], []).append(path)
            continue
        if label is None and folder in places.left_out:
            left_out.setdefault(places.left_out[folder], []).append(path)
            continue
        split = split_by_table.get(path) or places.split_of.get(folder, UNSPLIT)
        if by_table and path not in named:
            unnamed.append(path)
            continue
        rows = splits.setdefault(split, Rows())
        rows.paths.append(path)
        rows.labels.append(label)
    if unnamed:
        _place_unnamed(unnamed, splits, places, left_out, evidence, data)
    roles = {name: roles.get(name, places.roles.get(name)) for name in splits}
    _note_repeats(evidence, notes)
    _note_unused(evidence, notes, by_table=by_table)
    if listing.loops:
        notes.append(f"not followed, as they lead to a folder that they lie in: {shorten(sorted(listing.loops), 3)}")
    missing = [
        (f"row {row} of {each.name}", each.joined.table.columns[each.joined.column][row] or "")
        for each in evidence
        for row in each.joined.missing
    ]
    has_splits = places.has_splits or (names_splits and bool(split_by_table))
    return FilesReading(splits, roles, "", "", has_splits, left_out, missing, [each.name for each in evidence], notes)


def _splits_of_tables(
    evidence: Sequence[Evidence], places: Places, data: DataRecipe, notes: list[str]
) -> tuple[dict[str, str], dict[str, Role | None]]:
    """Return the split of each file that tables give one; a contradiction is an error."""
    split_of: dict[str, str] = {}
    roles: dict[str, Role | None] = {}
    by: dict[str, str] = {}
    for each in evidence:
        if each.splits is not None:
            roles |= each.splits.roles
            notes.append(f"{each.name}: {each.splits.note}")
        elif each.role is not None:
            roles.setdefault(each.role, each.role)
            if not places.has_splits:
                notes.append(f"splits: {each.name} names the images of {each.role}")
        for row, file in enumerate(each.joined.files):
            split = each.split(row)
            if not file or split is None:
                continue
            folder = file.rpartition("/")[0]
            own = places.split_of.get(folder) if places.has_splits else None
            if own is not None and places.roles.get(own) and roles.get(split) != places.roles[own]:
                raise _two_splits(file, f"its folder, {own}", f"{each.name}, {split}", data)
            if file in split_of and split_of[file] != split:
                raise _two_splits(file, f"{by[file]}, {split_of[file]}", f"{each.name}, {split}", data)
            split_of[file], by[file] = (own or split), each.name
    return split_of, roles


def _two_splits(file: str, first: str, second: str, data: DataRecipe) -> DataError:
    return DataError(
        f"{file} is in two splits: by {first}, and by {second}",
        allowed="tables and folders that agree",
        hint="--set data.layout=folders, --set data.split_column=none, or --set data.table=FILE",
    )


def _place_unnamed(
    unnamed: Sequence[str],
    splits: dict[str, Rows],
    places: Places,
    left_out: dict[str, list[str]],
    evidence: Sequence[Evidence],
    data: DataRecipe,
) -> None:
    """Put images that no table names into the unlabelled split that they make up, or leave them out."""
    has_named = {places.split_of.get(path.rpartition("/")[0]) for rows in splits.values() for path in rows.paths}
    rest = []
    for path in unnamed:
        split = places.split_of.get(path.rpartition("/")[0])
        if places.has_splits and split is not None and split not in has_named:
            rows = splits.setdefault(split, Rows())
            rows.paths.append(path)
            rows.labels.append(None)
        else:
            rest.append(path)
    if not rest:
        return
    left_out.setdefault(UNNAMED, []).extend(rest)
    total = sum(len(rows.paths) for rows in splits.values())
    if len(rest) > total and not data.table:
        names = ", ".join(dict.fromkeys(each.name for each in evidence))
        raise DataError(
            f"{names} names {count(total, 'image')} and leaves out {len(rest):,} others, such as {rest[0]}",
            allowed="a table that names most of the images, or one that is asked for",
            hint=f"--set data.table={evidence[0].name} to train on these alone",
        )


def _note_unused(evidence: Sequence[Evidence], notes: list[str], *, by_table: bool) -> None:
    """Say which columns of a table that is read are not."""
    for each in evidence:
        used = {each.joined.column, each.splits.column if each.splits else ""}
        if each.labels is not None and (by_table or each.labels.is_sure):
            used |= {each.labels.column, *each.labels.column.split(",")}
        unused = [column for column in each.joined.table.columns if column not in used]
        if unused:
            why = "" if by_table else ", as the folders give the classes"
            notes.append(f"{each.name}: columns not used{why}: {shorten(unused, 6)}")


def _note_repeats(evidence: Sequence[Evidence], notes: list[str]) -> None:
    for each in evidence:
        files = [file for file in each.joined.files if file]
        again = len(files) - len(set(files))
        if again:
            notes.append(f"{each.name}: {count(again, 'row')} that name an image again are read once")

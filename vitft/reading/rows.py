"""Put each image of a folder in its split with its label, or leave it out with the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vitft.errors import DataError, shorten
from vitft.reading.evidence import Evidence
from vitft.reading.listing import Listing, count
from vitft.reading.places import UNSPLIT, Places
from vitft.reading.words import Role, is_measure
from vitft.recipe.keys import DataRecipe

UNNAMED = "not named by any table"
UNLISTED = "in none of the splits that tables name"


@dataclass
class Rows:
    """The images of one split: paths in the dataset's folder (or absolute), and their labels or None."""

    paths: list[str] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)


@dataclass
class FilesReading:
    """How a folder of image files was read.

    Attributes:
        splits: rows by split.
        roles: what each split is for, if known.
        labels_from: a description of where labels come from.
        label_column: ``class_folder``, or the table column of the labels.
        has_splits: whether the source names splits.
        left_out: image files in no split, by reason.
        missing: table rows whose file does not exist, each with the name of the file.
        tables: the tables that were read.
        doubts: tables with columns that may be labels, but are not used because the folders give the classes.
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
    doubts: list[str] = field(default_factory=list)


def lay_out(
    listing: Listing,
    places: Places,
    evidence: Sequence[Evidence],
    labels_of: Mapping[str, str | None],
    data: DataRecipe,
    notes: list[str],
    *,
    by_table: bool,
) -> FilesReading:
    """Combine what folders and tables say about each image into one reading."""
    split_by_table, roles = _splits_of_tables(evidence, places, data, notes)
    names_splits = any(each.splits is not None or each.role for each in evidence)
    is_listed = "train" in {roles.get(split) for split in split_by_table.values()}
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
        if path not in split_by_table and is_listed and not places.has_splits:
            left_out.setdefault(UNLISTED, []).append(path)
            continue
        rows = splits.setdefault(split, Rows())
        rows.paths.append(path)
        rows.labels.append(label)
    if unnamed:
        _place_unnamed(unnamed, splits, places, left_out, evidence, data)
    _refuse_unlisted(left_out, splits, evidence, data)
    _read_once(listing, splits, notes)
    if evidence:  # images that a table names are read even if they are hidden, or masks
        read = {path for rows in splits.values() for path in rows.paths}
        left_out = {reason: kept for reason, paths in left_out.items() if (kept := [p for p in paths if p not in read])}
    roles = {name: roles.get(name, places.roles.get(name)) for name in splits}
    _note_repeats(evidence, notes)
    _note_unused(evidence, notes, by_table=by_table)
    if listing.loops:
        notes.append(
            f"links not followed, because they lead to folders that contain them: {shorten(sorted(listing.loops), 3)}"
        )
    missing = [
        (f"row {row} of {each.name}", each.joined.table.columns[each.joined.column][row] or "")
        for each in evidence
        for row in each.joined.missing
    ]
    if data.bad_images == "skip" and by_table:
        _refuse_lost_classes(evidence, splits)
    has_splits = places.has_splits or (names_splits and bool(split_by_table))
    tables = [each.name for each in evidence]
    doubts = [] if by_table else [each.name for each in evidence if each.labels is None and _may_be_labels(each)]
    return FilesReading(splits, roles, "", "", has_splits, left_out, missing, tables, notes, doubts)


def _refuse_lost_classes(evidence: Sequence[Evidence], splits: Mapping[str, Rows]) -> None:
    """Raise if all files of a class are missing; otherwise it would vanish silently."""
    present = {label for rows in splits.values() for label in rows.labels}
    lost = {
        label for each in evidence if each.labels is not None for row in each.joined.missing
        if (label := each.labels.values[row]) is not None and label not in present
    }  # fmt: skip
    if lost:
        raise DataError(
            f"no image of these classes exists: {shorten(sorted(lost))}",
            allowed="at least one image of each class",
            hint="fix the rows, or remove the class from the table",
        )


def _may_be_labels(evidence: Evidence) -> bool:
    used = {evidence.joined.column, evidence.splits.column if evidence.splits else ""}
    return sum(not is_measure(column) for column in set(evidence.joined.table.columns) - used) > 1


def _splits_of_tables(
    evidence: Sequence[Evidence], places: Places, data: DataRecipe, notes: list[str]
) -> tuple[dict[str, str], dict[str, Role | None]]:
    """Return the split of each file for which a table names one; raise if tables or folders contradict it."""
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
            if own is not None and places.roles.get(own) == "train" and roles.get(split) is None:
                own = None  # a fold of the folders' training images
            elif own is not None and places.roles.get(own) and roles.get(split) != places.roles[own]:
                raise _two_splits(file, f"its folder, {own}", f"{each.name}, {split}", data)
            if split_of.setdefault(file, own or split) != (own or split):
                raise _two_splits(file, f"{by[file]}, {split_of[file]}", f"{each.name}, {split}", data)
            by[file] = each.name
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
    """Add images that no table names as an unlabelled split if they make up a whole one; else leave them out."""
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
            allowed="a table that names most of the images, or one that you choose",
            hint=f"to train on these alone: --set data.table={evidence[0].name}",
        )


def _refuse_unlisted(
    left_out: Mapping[str, Sequence[str]], splits: Mapping[str, Rows], evidence: Sequence[Evidence], data: DataRecipe
) -> None:
    """Raise if lists of splits name less than half of the images, unless the user chose them."""
    rest, total = left_out.get(UNLISTED, ()), sum(len(rows.paths) for rows in splits.values())
    if len(rest) > total and not data.table:
        names = ", ".join(dict.fromkeys(each.name for each in evidence if each.role or each.splits))
        raise DataError(
            f"{names} name {count(total, 'image')} and leave out {len(rest):,} others, such as {rest[0]}",
            allowed="tables that name most of the images, or that you choose",
            hint=f"--set 'data.table=[{names}]', or for all images --set data.layout=folders",
        )


def _read_once(listing: Listing, splits: Mapping[str, Rows], notes: list[str]) -> None:
    """Read a file that has several names through links only once; raise if it has two classes."""
    if not listing.links:
        return
    for split, rows in splits.items():
        seen: dict[str, tuple[str, str | None]] = {}
        kept = Rows()
        for path, label in zip(rows.paths, rows.labels, strict=True):
            first, its_label = seen.setdefault(listing.real_path(path), (path, label))
            if its_label != label:
                raise DataError(
                    f"{first} ({its_label}) and {path} ({label}) are the same file, through a link",
                    allowed="files that each have one class",
                    hint="remove one of the two",
                )
            if first == path:
                kept.paths.append(path)
                kept.labels.append(label)
        again = len(rows.paths) - len(kept.paths)
        if again:
            notes.append(f"{count(again, 'duplicate')} in {split} left out: links give the same image several names")
        rows.paths, rows.labels = kept.paths, kept.labels


def _note_unused(evidence: Sequence[Evidence], notes: list[str], *, by_table: bool) -> None:
    for each in evidence:
        used = {each.joined.column, each.splits.column if each.splits else ""}
        if each.labels is not None and (by_table or each.labels.is_sure):
            used |= {each.labels.column, *each.labels.column.split(",")}
        if not by_table and each.splits is None and each.role is None:
            named = len({file for file in each.joined.files if file})
            notes.append(f"{each.name}: names {count(named, 'image')}, but the folders already give their classes")
        unused = [column for column in each.joined.table.columns if column not in used]
        if unused:
            why = "" if by_table else ", because the folders give the classes"
            notes.append(f"{each.name}: columns not used{why}: {shorten(unused, 6)}")


def _note_repeats(evidence: Sequence[Evidence], notes: list[str]) -> None:
    for each in evidence:
        files = [file for file in each.joined.files if file]
        again = len(files) - len(set(files))
        if again:
            notes.append(f"{each.name}: {count(again, 'row')} ignored, because an earlier row names the same image")

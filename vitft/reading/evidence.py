"""Read the tables that describe a folder's images; an unreadable table that looks relevant is an error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vitft.errors import DataError, did_you_mean, shorten
from vitft.reading.joining import FileIndex, Joined, join_table, names_images
from vitft.reading.listing import Listing
from vitft.reading.places import MASKS, Places
from vitft.reading.splitting import SplitColumn, find_split_column
from vitft.reading.table_labels import TableLabels, UntoldLabel, find_labels, refuse_several
from vitft.reading.tables import Table, Unreadable, read_table, table_files
from vitft.reading.words import Role, is_label_name, role_of, split_and_rest, words_of
from vitft.recipe.keys import DataRecipe

_ANSWERS = {"submission", "submissions", "submit", "prediction", "predictions", "pred", "preds", "baseline"}


@dataclass
class Evidence:
    """A table that names images, and what it says about them."""

    joined: Joined
    role: Role | None
    splits: SplitColumn | None
    labels: TableLabels | None
    problem: DataError | None = None

    @property
    def name(self) -> str:
        """The table's path in the dataset's folder."""
        return self.joined.table.name

    def split(self, row: int) -> str | None:
        """Return the split of a row, from a column or from the table's own name."""
        if self.splits is not None:
            value = self.joined.table.columns[self.splits.column][row]
            return self.splits.names.get(value) if value is not None else None
        return self.role


def find_evidence(
    listing: Listing, places: Places, data: DataRecipe, extra_tables: Sequence[str], notes: list[str]
) -> list[Evidence]:
    """Read every table of a folder that names its images; note why the others are left out."""
    if data.table:
        names = [_existing(listing, name) for name in data.table]
    else:
        stems = {name[: name.rfind(".")] for images in listing.images.values() for name in images}
        names, said = table_files(listing.others, stems if listing.others else ())
        names += extra_tables
        notes += said
    index = FileIndex(
        _without_masks(listing, places),
        lambda path: places.roles.get(places.split_of.get(path.rpartition("/")[0], ""), None),
    )
    found: list[Evidence] = []
    idle: dict[Role | None, str] = {}  # tables that name no images, by the split in their name
    for name in names:
        if not data.table and _is_sample(name):
            notes.append(f"{name} was left out: by its name, it is a sample submission, not a table of labels")
            continue
        try:
            table = read_table(
                listing.root,
                name,
                lambda text, at=name: index.has(text, at.rpartition("/")[0]),  # type: ignore[misc]
            )
        except Unreadable as why:
            if data.table:
                raise DataError(f"{name} cannot be read: {why}", hint="--set data.table=ANOTHER") from why
            if _may_name_splits(name):
                raise _unread_splits(name, f"it cannot be read: {why}") from why
            notes += [] if name.endswith(".txt") else [f"{name} was left out: {why}"]
            continue
        role = table_role(name)
        idle.setdefault(role, name)
        joined = join_table(table, index, role=role, wanted=data.image_column)
        if joined is None or not (any(joined.files) or joined.ambiguous):
            _explain_unjoined(table, listing, places, data, notes)
            continue
        if idle.get(role) == name:
            del idle[role]
        notes += [f"{name}: {note}" for note in table.notes]
        if table.problem is not None:
            raise table.problem
        if joined.ambiguous:
            row = joined.ambiguous[0]
            text = table.columns[joined.column][row] or ""
            some = index.find(text, name.rpartition("/")[0], role)[0]
            raise DataError(
                f"{name} names {text!r} in row {row}, but several files have that name: {shorten(some, 3)}",
                allowed="names that include their folders",
                hint="correct the names, or ignore tables: --set data.layout=folders",
            )
        found.append(_judged(joined, role, places, data))
    if {"train", "test"} <= set(idle) and not any(each.splits or each.role for each in found) and not places.has_splits:
        raise _unread_splits(idle["test"], "none of its columns names image files")
    _require_wanted(found, data)
    _require_labels(found, data)
    return found


def _may_name_splits(name: str) -> bool:
    """Return whether a file's name says that it splits the images: ``splits.json``, ``train_test_split.txt``."""
    words = set(words_of(Path(name).stem))
    roles = {split_and_rest(word)[0] for word in words} - {None}
    return len(roles) > 1 or bool(words & {"split", "splits"})


def _unread_splits(name: str, why: str) -> DataError:
    return DataError(
        f"{name} may say which images are for training and which for testing, but {why}; without it, all images would "
        "be used for training",
        allowed="a table with a column of file names",
        hint="to ignore tables: --set data.layout=folders",
    )


def _without_masks(listing: Listing, places: Places) -> Listing:
    """Return a listing without folders of masks, as their files are named like the images."""
    masks = {folder for folder, reason in places.left_out.items() if reason == MASKS}
    if not masks:
        return listing
    return replace(listing, images={folder: names for folder, names in listing.images.items() if folder not in masks})


def _require_labels(found: Sequence[Evidence], data: DataRecipe) -> None:
    """Raise if it is unclear which column of a table is the label, and no other table has that label column."""
    told = [each.labels.column for each in found if each.labels is not None]
    for each in found:
        lacks_it = told and not any(column in each.joined.table.columns for column in told)
        if each.problem is not None and not lacks_it:
            raise each.problem


def _judged(joined: Joined, role: Role | None, places: Places, data: DataRecipe) -> Evidence:
    table = joined.table
    if table.is_listed and {"partition", "split", "splits"} & set(words_of(Path(table.name).stem)):
        _name_split_column(table, joined.column)
    distinct = {
        name: sorted({value for value in values if value is not None})
        for name, values in table.columns.items()
        if name != joined.column
    }
    is_elsewhere = data.split_column not in (None, "none") and data.split_column not in distinct
    splits = None if is_elsewhere else find_split_column(distinct, data, table.name)
    labels, problem = None, None
    try:
        labels = find_labels(
            joined,
            lambda file: places.class_of.get(file.rpartition("/")[0]) if places.problem is None else None,
            () if places.problem is not None else places.classes,
            wanted=data.label_column,
            split_column=splits.column if splits else None,
            has_split_columns=data.split_column != "none",
            accept=data.accept_classes,
        )
    except UntoldLabel as error:
        problem = DataError(error.wrong, allowed=error.allowed, hint=error.hint)
    if labels is not None:
        refuse_several(labels, table.name)
    if splits is not None:
        _refuse_gaps(table, splits)
    return Evidence(joined, role, splits, labels, problem)


def _name_split_column(table: Table, file_column: str) -> None:
    """Name the split column of a list whose file name says that it has one: list_eval_partition.txt."""
    for name, values in table.columns.items():
        if name != file_column and 1 < len(set(values)) <= 10:
            table.columns = {"split" if each == name else each: column for each, column in table.columns.items()}
            return


def _refuse_gaps(table: Table, splits: SplitColumn) -> None:
    """Raise if only some rows have a split."""
    gaps = [row for row, value in enumerate(table.columns[splits.column]) if value is None]
    if gaps:
        raise DataError(
            f"{len(gaps):,} of {table.num_rows:,} rows of {table.name} have no value in the split column, "
            f"{splits.column!r}: rows {shorten(list(map(str, gaps)), 5)}",
            allowed="a split for every row",
            hint="fill the column, or --set data.split_column=none to ignore it",
        )


def table_role(name: str) -> Role | None:
    """Return the split of a data file, from the words in its path: ``val/0.csv``, ``x_test.csv``."""
    path = Path(name)
    if "partition" in words_of(path.stem):
        return None
    for part in (path.stem, *reversed(path.parts[:-1])):
        role = split_and_rest(part)[0]
        if role is not None:
            return role
    return None


def _existing(listing: Listing, name: str) -> str:
    known = listing.others
    if name in known:
        return name
    inside = Path(name)
    if inside.is_file():  # as typed at the terminal
        try:
            return inside.resolve().relative_to(listing.root).as_posix()
        except ValueError:
            pass
    guess = did_you_mean(name, known)
    tables = [each for each in known if Path(each).suffix.lower() in (".csv", ".tsv", ".json", ".jsonl", ".txt")]
    raise DataError(
        f"{listing.root} has no table {name}",
        allowed=shorten(tables) or None,
        hint=f"--set data.table={guess or 'FILE'}",
    )


def _is_sample(name: str) -> bool:
    words = set(words_of(Path(name).stem))
    return bool(words & _ANSWERS) or ("sample" in words and len(words) <= 2)


def _explain_unjoined(table: Table, listing: Listing, places: Places, data: DataRecipe, notes: list[str]) -> None:
    """Note why a table is left out; raise if it was clearly meant to be read."""
    column = names_images(table)
    labels = [name for name in table.columns if is_label_name(name)]
    if column is not None and (data.table or labels or data.layout == "table" or not places.classes):
        some = next(value for value in table.columns[column] if value)
        raise DataError(
            f"{table.name} names image files in {column!r}, such as {some}, but there is no such file in "
            f"{listing.root}",
            allowed="paths of existing images, relative to the table or the folder, or bare file names",
            hint="correct the names, or ignore tables: --set data.layout=folders",
        )
    says_splits = _may_name_splits(table.name) or any(map(_holds_splits, table.columns.values()))
    if data.table or (data.layout == "auto" and says_splits and table.num_rows > 1):
        raise _unread_splits(table.name, "none of its columns names image files, so it cannot be read")
    if column is not None:
        some = next(value for value in table.columns[column] if value)
        notes.append(f"{table.name} was left out: the files that it names, such as {some}, are not in this folder")
    elif not table.name.endswith(".txt"):
        known = shorten(list(table.columns), 5)
        notes.append(f"{table.name} was left out: no column names an image in the folder ({known})")


def _holds_splits(values: Sequence[str | None]) -> bool:
    """Return whether a column holds at least two words for splits, and nothing else."""
    roles = {role_of(value) for value in values if value is not None}
    return len(roles) > 1 and None not in roles


def _require_wanted(found: Sequence[Evidence], data: DataRecipe) -> None:
    """Raise if the user asked for a column that no table has."""
    for key in ("label_column", "split_column", "image_column"):
        wanted = getattr(data, key)
        if wanted in (None, "none") or not found:
            continue
        known = [name for each in found for name in each.joined.table.columns]
        if wanted not in known:
            guess = did_you_mean(wanted, known)
            raise DataError(
                f"the tables have no column {wanted!r}" + (f"; did you mean {guess!r}?" if guess else ""),
                allowed=", ".join(dict.fromkeys(known)),
                hint=f"--set data.{key}={guess or 'NAME'}",
            )

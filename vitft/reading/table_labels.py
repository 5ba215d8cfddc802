"""Find the label column of a table: the user's choice, else by the folders, by name, or as the only candidate."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from vitft.errors import DataError, shorten
from vitft.reading.joining import Joined
from vitft.reading.words import LABEL_WORDS, alike, is_label_name, is_measure, is_split_name, rank

Column = Sequence[str | None]
_ONE, _ZERO = re.compile(r"1(\.0*)?"), re.compile(r"0(\.0*)?")
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")
_LIST = re.compile(r"\[.*\]|\{.*\}", re.DOTALL)
_FRACTION = re.compile(r"[+-]?\d*\.\d*[1-9]\d*([eE][+-]?\d+)?")


class UntoldLabel(DataError):  # noqa: N818 - another table may say
    """It is unclear which of several columns holds the labels."""


@dataclass
class TableLabels:
    """The labels of a table.

    Attributes:
        column: their column; several columns of a one-hot table are joined with commas.
        values: the label of each row, None if there is none.
        is_sure: whether the column certainly holds labels, rather than being just the only candidate.
        note: how it was chosen.
    """

    column: str
    values: list[str | None]
    is_sure: bool = True
    note: str = ""


def find_labels(
    joined: Joined,
    class_of: Callable[[str], str | None],
    classes: Collection[str],
    *,
    wanted: str | None,
    split_column: str | None,
    has_split_columns: bool = True,
    accept: bool = False,
) -> TableLabels | None:
    """Find the labels of a table's rows; None if there are none.

    Args:
        joined: the table and its files.
        class_of: returns the class that folders give a file, or None.
        classes: all classes that folders give.
        wanted: the column that the user asked for.
        split_column: the split column, which is not a label.
        has_split_columns: whether a column with a name for splits cannot be the label.
        accept: whether a measure may be the label.

    Raises:
        DataError: if it is unclear which column it is, or a row has several labels.
    """
    table = joined.table
    columns: dict[str, Column] = {
        name: values
        for name, values in table.columns.items()
        if name not in (joined.column, split_column) and any(value is not None for value in values)
    }
    if wanted is not None:
        return TableLabels(wanted, list(table.columns[wanted])) if wanted in table.columns else None
    if agreeing := _agreeing(columns, joined.files, class_of, {alike(name) for name in classes}):
        return TableLabels(
            agreeing, list(columns[agreeing]), note=f"label column: {agreeing} of {table.name}, which names the folders"
        )
    if classes and (boxed := _boxed(columns, set(classes))):
        return boxed
    if has_split_columns:
        columns = {name: values for name, values in columns.items() if not is_split_name(name)}
    named = sorted((name for name in columns if is_label_name(name) and not _is_id(name)), key=_rank)
    if named:
        left = f"; not used: {', '.join(named[1:])}; to switch: --set data.label_column={named[1]}" if named[1:] else ""
        return TableLabels(
            named[0], list(columns[named[0]]), note=f"label column: {named[0]} of {table.name}, by its name{left}"
        )
    if not table.is_listed and (hot := _one_hot(columns, table.name)) is not None:
        return hot
    has_classes = any(class_of(file) for file in joined.files[:100] if file)
    return _only_one(columns, joined, has_classes=has_classes, accept=accept)


def refuse_several(labels: TableLabels, where: str) -> None:
    """Raise a DataError if labels are lists, or are joined by a separator."""
    present = [value for value in labels.values if value is not None]
    alone = {value for value in present if "|" not in value}
    listed = next((value for value in present if _LIST.fullmatch(value)), None)
    for value in set(present) if listed is None else ():
        parts = [part.strip() for part in re.split(r"[;,]", value)]
        if len(parts) > 1 and all(part in alone for part in parts):
            listed = value
    if listed is not None:
        raise DataError(
            f"the column {labels.column!r} of {where} holds lists of labels ({listed!r}); vitft supports one per image",
            allowed="one label per image, without brackets",
            hint="--set data.label_column=NAME, or write the label without brackets",
        )
    for value in present:
        if "|" in value:
            parts = [part.strip() for part in value.split("|")]
            if len(set(parts) & alone) or (len(parts) > 1 and len(alone) < len(present)):
                raise DataError(
                    f"the column {labels.column!r} of {where} holds several labels per image ({value!r}); "
                    "vitft supports one",
                    allowed="one label per image",
                    hint="--set data.label_column=NAME, or keep the rows that have one label",
                )


def _agreeing(
    columns: Mapping[str, Column], files: Sequence[str], class_of: Callable[[str], str | None], classes: set[str]
) -> str | None:
    """Return the column whose values are the names of the files' folders, or of other class folders."""
    step = max(len(files) // 2000, 1)
    known = [(row, alike(name)) for row in range(0, len(files), step) if (name := class_of(files[row]))]
    if not known:
        texts = ((name, {alike(value) for value in values if value is not None}) for name, values in columns.items())
        return next((name for name, values in texts if classes and values <= classes), None)
    for column, values in columns.items():
        same = [(alike(value), name) for row, name in known if (value := values[row]) is not None]
        if len(same) >= max(len(known) // 2, 1) and sum(a == b for a, b in same) >= 0.95 * len(same):
            return column
    return None


def _boxed(columns: Mapping[str, Column], classes: set[str]) -> TableLabels | None:
    """Return labels that bounding boxes follow, as in ImageNet's tables: ``n01978930 85 1 499 272``."""
    for column, values in columns.items():
        words = [(value or "").split() for value in values]
        kinds = [{word for word in row if not _NUMBER.fullmatch(word)} for row in words]
        if any(kinds) and all(len(kind) <= 1 and kind <= classes for kind in kinds):
            return TableLabels(column, [next(iter(kind), None) for kind in kinds])
    return None


def _one_hot(columns: Mapping[str, Column], where: str) -> TableLabels | None:
    """Return the labels of a table with a column of 0 and 1 for each class."""
    hot = [
        name for name, values in columns.items()
        if not is_measure(name) and all(value is not None and (_ONE.fullmatch(value) or _ZERO.fullmatch(value))
                                        for value in values)
    ]  # fmt: skip
    if len(hot) < 2:
        return None
    ones = [[name for name in hot if _ONE.fullmatch(columns[name][row] or "")] for row in range(len(columns[hot[0]]))]
    several = [row for row, names in enumerate(ones) if len(names) > 1]
    if several:
        raise DataError(
            f"{where} marks several labels per image (row {several[0]}: {', '.join(ones[several[0]])}); "
            "vitft supports one",
            allowed=f"a single 1 among {shorten(hot)} in each row",
            hint="--set data.label_column=NAME to train one against the rest, or keep the rows that have one label",
        )
    return TableLabels(
        ",".join(hot),
        [names[0] if names else None for names in ones],
        note=f"labels: {where} has a column of 0 and 1 for each of {len(hot)} classes ({shorten(hot)})",
    )


def _only_one(columns: Mapping[str, Column], joined: Joined, *, has_classes: bool, accept: bool) -> TableLabels | None:
    """Return the labels if only one column can hold them."""
    counts = {
        name: len({value for value in values if value is not None})
        for name, values in columns.items()
        if joined.table.is_listed or accept or not is_measure(name)
    }
    files = len({file for file in joined.files if file})
    plausible = [
        name for name, number in counts.items() if 1 < number <= max(files // 2, 2) and not _is_fractions(columns[name])
    ]
    where = joined.table.name
    if len(plausible) == 1:
        note = f"label column: {plausible[0]} of {where}, the only one possible"
        return TableLabels(plausible[0], list(columns[plausible[0]]), is_sure=False, note=note)
    if has_classes or not counts:
        return None
    if not plausible and len(counts) == 1:
        only = next(iter(counts))
        return TableLabels(
            only, list(columns[only]), is_sure=False, note=f"label column: {only} of {where}, the only one"
        )
    whole = [name for name in counts if not _is_fractions(columns[name])]
    if not whole:
        return None
    said = ", ".join(f"{name} ({counts[name]:,} values)" for name in whole)
    raise UntoldLabel(
        f"it is unclear which column of {where} is the label",
        allowed=f"one of: {said}",
        hint=f"--set data.label_column={(plausible or whole)[0]}",
    )


def _is_fractions(values: Column) -> bool:
    return any(value is not None and _FRACTION.fullmatch(value) for value in values[:1000])


def _is_id(name: str) -> bool:
    return is_measure(name) and name.lower() not in LABEL_WORDS


def _rank(name: str) -> int:
    return rank(name.rsplit(".", 1)[-1], LABEL_WORDS)

"""Find a column that says which split each row belongs to: ``split``, ``fold``, ``is_training_image``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vitft.errors import DataError, did_you_mean, shorten
from vitft.reading.words import Role, flag_role, is_split_name, role_of, roles_of, squeezed
from vitft.recipe.keys import DataRecipe

_TRUE, _FALSE = {"1", "1.0", "true", "yes", "y", "t"}, {"0", "0.0", "false", "no", "n", "f"}
_MOST = 50  # values of a split column
_OTHER: dict[Role, Role] = {"train": "test", "test": "train", "validation": "train"}


@dataclass(frozen=True)
class SplitColumn:
    """A split column.

    Attributes:
        column: its name.
        names: the split that each of its values means; None stands for rows without a value.
        roles: what each split is for, if known.
    """

    column: str
    names: Mapping[str, str]
    roles: Mapping[str, Role | None] = field(default_factory=dict)

    @property
    def note(self) -> str:
        """A note for the user about this choice."""
        said = ", ".join(f"{value} -> {name}" if value != name else name for value, name in self.names.items())
        return f"splits: from the column {self.column} ({said}); to ignore it: --set data.split_column=none"


def find_split_column(columns: Mapping[str, Sequence[str]], data: DataRecipe, where: str) -> SplitColumn | None:
    """Find the split column among columns of text.

    Args:
        columns: the different values of each column.
        data: the recipe's `data` section.
        where: the name of the table or split, for errors.

    Raises:
        DataError: if a column has a name for splits but its values name none, or the requested one is missing.
    """
    if data.split_column == "none":
        return None
    wanted = [name for name in (data.train_split, data.validation_split, data.test_split) if name]
    if data.split_column is not None:
        if data.split_column not in columns:
            guess = did_you_mean(data.split_column, columns)
            raise DataError(
                f"{where} has no column {data.split_column!r}",
                allowed=", ".join(columns),
                hint=f"--set data.split_column={guess or 'none'}",
            )
        return _as_named(data.split_column, columns[data.split_column])
    unread: tuple[str, Sequence[str]] | None = None
    readable: list[SplitColumn] = []
    for column, values in columns.items():
        if not 0 < len(values) <= _MOST:
            continue
        found = _read(column, values, wanted)
        if found is not None:
            readable.append(found)
            continue
        if is_split_name(column) and squeezed(column) != "dataset" and unread is None and len(values) > 1:
            unread = column, values
    flags = [each for each in readable if flag_role(each.column)]
    if len(readable) > 1 and len(flags) < len(readable):
        names = ", ".join(each.column for each in readable)
        raise DataError(
            f"{where} has several split columns: {names}",
            allowed="one of them",
            hint=f"--set data.split_column={readable[0].column}",
        )
    if readable:
        return readable[0]
    if unread is None:
        return None
    column, values = unread
    raise DataError(
        f"{where} can be read in two ways: its column {column!r} ({shorten(list(values), 5)}) names splits, but not "
        "those for training or testing; or it has nothing to do with splits",
        allowed="values such as train, validation and test; or say what they mean",
        hint=f"--set data.split_column=none to ignore it, or --set data.split_column={column} "
        f"--set data.validation_split={values[0]} to hold these rows out",
    )


def _read(column: str, values: Sequence[str], wanted: Sequence[str]) -> SplitColumn | None:
    """Return what the values of a column mean, or None if they are not splits."""
    roles = roles_of(values)
    exact = [role_of(value) for value in values]
    is_named = is_split_name(column)
    if all(exact) and (is_named or len(set(exact)) > 1):
        return SplitColumn(column, {value: value for value in values}, roles)
    if is_named and any(role == "train" for role in roles.values()) and len(values) > 1:
        return SplitColumn(column, {value: value for value in values}, roles)
    flag, lowered = flag_role(column), {value.strip().lower() for value in values}
    if flag is not None and lowered <= _TRUE | _FALSE:
        names: dict[str, str] = {value: flag if value.strip().lower() in _TRUE else _OTHER[flag] for value in values}
        return SplitColumn(column, names, {name: role_of(name) for name in names.values()})
    if is_named and any(value in wanted for value in values):
        return _as_named(column, values)
    return None


def _as_named(column: str, values: Sequence[str]) -> SplitColumn:
    found = _read(column, values, ())
    if found is not None:
        return found
    return SplitColumn(column, {value: value for value in values}, roles_of(values))

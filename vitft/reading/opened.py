"""An opened source with its splits, and the errors of opening one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitft.errors import DataError, did_you_mean
from vitft.reading.labels import Parts
from vitft.reading.words import Role
from vitft.recipe.keys import DataRecipe


@dataclass(frozen=True)
class OpenedSource:
    """A source with its splits: Datasets, or IterableDatasets when streamed.

    Attributes:
        id: full Hub id, absolute path, or a built-in's name.
        revision: commit of a Hub dataset.
        splits: by the source's own names.
        kind: ``hub``, ``local`` or ``builtin``.
        folders: per split, where relative paths may start from.
        num_rows: per split of a stream, if known.
        roles: what each split is for, if the source says so.
        parts: per split and column, the class names of its files if they differ.
        columns: the image and label columns, if they were found while reading the source.
        has_splits: whether the source names splits.
        labels_from: a description of where labels come from, if ``columns`` is set.
        split_column: the column that gives each row its split, which is not a label.
        doubts: tables that may give other classes, but were not used.
        left_out: image files in no split, by reason.
        notes: every choice, with its reason.
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
    split_column: str | None = None
    doubts: tuple[str, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def reading(root: Path, load: Callable[[], Any], config: str | None = None) -> Any:
    """Call ``load`` and return its result; turn errors of `datasets` and the file formats into DataErrors."""
    try:
        return load()
    except DataError:
        raise
    except Exception as error:  # `datasets` and the file formats may raise anything
        if (told := known_error(error, str(root), config)) is not None:
            raise told from error
        link = link_of(error)
        if isinstance(link, DataError):
            raise link from None
        lines = str(link).strip().splitlines() or [""]
        raise DataError(
            f"cannot read {root}: {type(link).__name__}: {lines[0]}",
            hint="check that all files of a split are intact and have the same format and columns",
        ) from error


def link_of(error: BaseException) -> BaseException:
    """Return the original cause of an error, which `datasets` wraps in a generic sentence."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def known_error(error: Exception, name: str, config: str | None) -> DataError | None:
    """Translate an error of `datasets` about a configuration or an empty split; None for other errors."""
    text = str(error)
    if "corresponds to no data" in text:
        return DataError(f"a split of {name} is empty", allowed="splits with images", hint="add images or remove it")
    if "BatchSize must be greater than 0" in str(link_of(error)):  # it takes the size of a file's first row group
        return DataError(
            f"a parquet file of {name} begins with an empty row group, which `datasets` cannot read",
            allowed="--set data.layout=parquet, with which vitft reads the files in a folder itself",
            hint="for a dataset on the Hub, hf download --repo-type dataset ID --local-dir FOLDER first",
        )
    listed = re.search(r"(?:available configs|Available|configurations in the cache)[^\[\n:]*:? *\[?([^\]\n]*)", text)
    if not isinstance(error, ValueError) or not ("onfig" in text and listed):
        return None
    configs = re.findall(r"[\w.\-]+", listed[1])
    guess = did_you_mean(config, configs) if config else configs[0] if configs else None
    wrong = f"{name} has no configuration {config!r}" if config else f"{name} has several configurations"
    return DataError(wrong, allowed=", ".join(configs), hint=f"--set data.config={guess}" if guess else None)


def known_rows(rows: Any) -> int | None:
    """Return the number of rows in a stream's split, if its description says so."""
    splits = rows.info.splits or {}
    count = splits[str(rows.split)].num_examples if str(rows.split) in splits else None
    return count or None


def refuse(data: DataRecipe, key: str, why: str) -> None:
    """Raise if a recipe key that does not apply is set."""
    value = getattr(data, key)
    if value is not None:
        raise DataError(f"data.{key}={value} does not apply to {data.dataset}: {why}", hint=f"leave out data.{key}")


def refuse_stream(data: DataRecipe, why: str) -> None:
    """Raise if the user asked for a stream and there is none."""
    if data.streaming:
        raise DataError(
            f"{data.dataset} cannot be streamed: {why}",
            allowed="Hub datasets, and webdataset or parquet files",
            hint="leave out --streaming",
        )

"""Read the class names of the files of a split, as each file may number them in its own order."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vitft.errors import DataError, shorten
from vitft.reading.labels import Parts


def class_names(paths: Sequence[str | Path], *, may_lack_names: bool = False) -> dict[str, Parts]:
    """Return the rows and class names of every file, for each ClassLabel column whose names differ between files.

    Args:
        paths: parquet or arrow files, in the order in which they are read.
        may_lack_names: whether something else names the classes of files without names.

    Raises:
        DataError: if a column holds numbers in one file and text in another, which would be mixed silently.
    """
    files = [schema_of(Path(path)) for path in paths]
    found: dict[str, Parts] = {}
    for column in dict.fromkeys(name for schema, _ in files for name in schema.names):
        kinds = {_kind(schema.field(column).type) for schema, _ in files if column in schema.names} - {None}
        if len(kinds) > 1:
            raise DataError(
                f"the column {column!r} holds {' and '.join(sorted(map(str, kinds)))} in files of one split: "
                + ", ".join(f"{Path(path).name} ({_kind(schema.field(column).type)})"
                            for path, (schema, _) in zip(paths, files, strict=True) if column in schema.names),
                allowed="files of a split with the same types",
                hint="rewrite them with one type, or pass a single file",
            )  # fmt: skip
        names = [_names(schema, column, Path(path)) for path, (schema, _) in zip(paths, files, strict=True)]
        declared = [each for each in names if each]
        bare = [Path(path).name for path, each in zip(paths, names, strict=True) if not each]
        if declared and bare and not may_lack_names:
            raise DataError(
                f"{bare[0]} does not name the classes of {column!r}, but other files of the split do "
                f"({shorten(declared[0], 4)}); it is unclear whether its numbers mean the same",
                allowed="files that all name their classes, or none",
                hint="rewrite the file with `datasets`, or pass a single file",
            )
        if len(set(declared)) > 1:
            found[column] = [(rows, each or declared[0]) for each, (_, rows) in zip(names, files, strict=True)]
    return found


def schema_of(path: Path) -> tuple[pa.Schema, int]:
    """Return the schema of a parquet or arrow file, and its number of rows.

    Raises:
        DataError: if it is broken.
    """
    with _intact(path):
        return _schema_of(path)


def row_groups_of(path: Path) -> list[int]:
    """Return the number of rows in each part of a parquet file that is read at once; an arrow file is one part.

    Raises:
        DataError: if it is broken.
    """
    with _intact(path):
        if path.suffix.lower() != ".parquet":
            return [_schema_of(path)[1]]
        metadata = pq.read_metadata(path)
        return [int(metadata.row_group(number).num_rows) for number in range(metadata.num_row_groups)]


@contextmanager
def _intact(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{path} is broken, or not a {path.suffix} file: {str(error).splitlines()[0]}",
            hint="download it again, or move it away",
        ) from error


def _schema_of(path: Path) -> tuple[pa.Schema, int]:
    if path.suffix.lower() == ".parquet":
        metadata = pq.read_metadata(path)
        return metadata.schema.to_arrow_schema(), int(metadata.num_rows)
    with pa.memory_map(str(path)) as source:
        try:
            stream = pa.ipc.open_stream(source)
            return stream.schema, sum(batch.num_rows for batch in stream)
        except pa.ArrowInvalid:
            file = pa.ipc.open_file(source)
            return file.schema, sum(file.get_batch(i).num_rows for i in range(file.num_record_batches))


def _names(schema: pa.Schema, column: str, path: Path) -> tuple[str, ...]:
    """Return the class names of a column according to its file; none if it is not a ClassLabel.

    Raises:
        DataError: if two classes have the same name.
    """
    try:
        described = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"][column]
        names = tuple(map(str, described["names"])) if described["_type"] == "ClassLabel" else ()
    except (ValueError, KeyError, TypeError):  # without a valid description there are no names
        return ()
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        ids = ", ".join(str(place) for place, name in enumerate(names) if name == twice[0])
        raise DataError(
            f"several classes of {column!r} in {path.name} are called {twice[0]!r} (ids {ids})",
            allowed="classes with different names",
            hint="rename them, and rewrite the file",
        )
    return names


def _kind(kind: pa.DataType) -> str | None:
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "text"
    return "numbers" if pa.types.is_integer(kind) or pa.types.is_floating(kind) else None

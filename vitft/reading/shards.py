"""Class names of the files that a split is made of: each file may number them in an order of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from vitft.errors import DataError, shorten
from vitft.reading.labels import Parts


def class_names(paths: Sequence[str | Path]) -> dict[str, Parts]:
    """Return, for each ClassLabel column whose names differ between files, the rows and names of every file.

    Args:
        paths: parquet or arrow files, in the order in which they are read.

    Raises:
        DataError: if a column is numbers in one file and text in another, which reading would mix without a word.
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
                hint="write them again with one type, or give one of the files",
            )  # fmt: skip
        names = [_names(schema, column) for schema, _ in files]
        declared = [each for each in names if each]
        bare = [Path(path).name for path, each in zip(paths, names, strict=True) if not each]
        if declared and bare:
            raise DataError(
                f"{bare[0]} gives no names to the classes of {column!r}, and other files of the split do "
                f"({shorten(declared[0], 4)}); whether its numbers mean the same cannot be told",
                allowed="files that all name their classes, or none",
                hint="write the file again with `datasets`, or give one of the files",
            )
        if len(set(declared)) > 1:
            found[column] = [(rows, each) for each, (_, rows) in zip(names, files, strict=True)]
    return found


def schema_of(path: Path) -> tuple[pa.Schema, int]:
    """Return the schema of a parquet or arrow file, and its number of rows."""
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


def _names(schema: pa.Schema, column: str) -> tuple[str, ...]:
    """Return the names that a file's own features give a column; none if it is no ClassLabel there."""
    try:
        features: Mapping[str, Any] = datasets.Features.from_arrow_schema(schema)
    except (ValueError, KeyError, TypeError):  # unknown to this version of `datasets`, which will say so itself
        return ()
    feature = features.get(column)
    return tuple(feature.names) if isinstance(feature, datasets.ClassLabel) else ()


def _kind(kind: pa.DataType) -> str | None:
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "text"
    return "numbers" if pa.types.is_integer(kind) or pa.types.is_floating(kind) else None

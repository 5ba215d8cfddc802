"""Read webdataset tars: members with the same name up to the first dot are one image and its label.

The reader of `datasets` takes the kinds of members from the first five examples, so half of the images would be empty
if jpg and png are mixed, and ``.cls`` members could only be numbers.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import datasets

from vitft.errors import DataError
from vitft.reading.listing import is_image_name
from vitft.reading.tables import columns_of

IMAGE = "image"
_TEXT = (".cls", ".cls2", ".txt", ".id", ".index", ".label", ".class")


def open_tars(paths: Sequence[str], *, is_streaming: bool) -> Any:
    """Return the examples of tars as a Dataset (kept in the cache of `datasets`) or an IterableDataset.

    Columns: ``image``; one text column for each other kind of member (``cls``, ``json.label``).

    Raises:
        DataError: if a tar is broken, or holds no images.
    """
    features = _features(paths)
    if is_streaming:
        return datasets.IterableDataset.from_generator(
            _rows, features, {"paths": list(paths), "columns": tuple(features)}
        )
    # Size and time are arguments, so that the cache recognises these files.
    stamps = [f"{os.path.getsize(path)} {os.stat(path).st_mtime_ns}" for path in paths]  # noqa: PTH202, PTH116
    return datasets.Dataset.from_generator(
        _stamped_rows,
        features,
        gen_kwargs={"paths": list(paths), "columns": tuple(features), "stamps": tuple(stamps)},
        keep_in_memory=False,
    )


def holds_examples(path: str) -> bool:
    """Return whether a tar holds images with labels, rather than being just an archive of files."""
    try:
        for number, example in enumerate(_examples(path)):
            if any(map(is_image_name, example)) and len(example) > 1:
                return True
            if number == 20:
                break
    except DataError:
        return True  # broken: reported when it is opened
    return False


def _stamped_rows(paths: Sequence[str], columns: Sequence[str], stamps: Sequence[str]) -> Iterator[dict[str, Any]]:
    yield from _rows(paths, columns)


def _rows(paths: Sequence[str], columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    for path in paths:
        for row in _read(path):
            yield {column: row.get(column) for column in columns}


def _features(paths: Sequence[str]) -> datasets.Features:
    names: dict[str, None] = {}
    for path in paths:
        for number, row in enumerate(_read(path)):
            names |= dict.fromkeys(row)
            if number == 100:
                break
    if IMAGE not in names:
        raise DataError(f"{paths[0]} holds no images", allowed="members such as 0001.jpg beside 0001.cls")
    texts = {name: datasets.Value("string") for name in names if name != IMAGE}
    return datasets.Features({IMAGE: datasets.Image(decode=False), **texts})


def _read(path: str) -> Iterator[dict[str, Any]]:
    """Yield the examples of a tar: the image undecoded, everything else as text."""
    for example in _examples(path):
        row: dict[str, Any] = {}
        for name, content in example.items():
            kind = name[name.rfind(".") :].lower()
            field = name.lstrip(".")
            if is_image_name(name):
                if IMAGE in row:
                    raise DataError(
                        f"{path} holds several images with the same name ({name}), so it is unclear which one to use",
                        allowed="one image for each name up to its first dot",
                    )
                row[IMAGE] = {"bytes": content, "path": None}
            elif kind == ".json":
                row |= _of_json(field, content)
            elif kind in _TEXT:
                row[field] = content.decode("utf-8", "replace").strip() or None
        yield row


def _of_json(field: str, content: bytes) -> Mapping[str, str | None]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    columns = columns_of([value if isinstance(value, dict) else {"value": value}])
    return {f"{field}.{name}": values[0] for name, values in columns.items()}


def _examples(path: str) -> Iterator[dict[str, bytes]]:
    """Yield each example of a tar: its members by their names after the first dot."""
    example: dict[str, bytes] = {}
    current = ""
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                folder, _, name = member.name.rpartition("/")
                if not member.isfile() or name.startswith("."):
                    continue
                stem, dot, rest = name.partition(".")
                key = f"{folder}/{stem}"
                if key != current and example:
                    yield example
                    example = {}
                current = key
                file = tar.extractfile(member)
                example[dot + rest] = file.read() if file is not None else b""
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"cannot read {path}: {error}", hint="to check that it is complete: tar tf FILE") from error
    if example:
        yield example

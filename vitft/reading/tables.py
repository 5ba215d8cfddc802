"""Read a table that accompanies images (csv, JSON, parquet, a list of names) as columns of text.

Text stays as it is written: ``007`` is not 7, and ``True`` is not ``true``. The kind of file, its encoding and its
delimiter are found by trial; if a file cannot be read, the error says why.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitft.errors import DataError
from vitft.files import compression_of, read_regular
from vitft.reading.listing import count, is_image_name
from vitft.reading.words import role_of

SUFFIXES = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".parquet")
_LARGEST = 2**30  # bytes; a larger file holds more than a label for each image
_DELIMITERS = (",", "\t", ";", "|", " ")
_MANY = 50  # files of one kind; if there are more, each belongs to one image


class Unreadable(Exception):  # noqa: N818 - a finding about a file
    """A file cannot be read as a table; the text is the reason."""


@dataclass
class Table:
    """Rows of text.

    Attributes:
        name: its path in the dataset's folder.
        columns: text by column, None for a missing value; all of the same length.
        is_listed: whether the file does not name its columns, so that they are ``column_1``, ...
        notes: what the user should know about the file.
        problem: the error to raise if it turns out to be about images.
    """

    name: str
    columns: dict[str, list[str | None]]
    is_listed: bool = False
    notes: list[str] = field(default_factory=list)
    problem: DataError | None = None

    @property
    def num_rows(self) -> int:
        """The number of rows."""
        return len(next(iter(self.columns.values()), ()))


def table_files(others: Iterable[str], stems: Collection[str]) -> tuple[list[str], list[str]]:
    """Return the files that may be tables of images, and notes on the others.

    Args:
        others: the files of a folder that are not images.
        stems: the image names without suffixes; a list or JSON file with such a name belongs to that image.
    """
    by_kind: dict[str, list[str]] = {}
    alone: list[str] = []
    for path in others:
        suffix = Path(path).suffix.lower()
        if suffix in (".txt", ".json") and Path(path).stem in stems:
            alone.append(path)
        elif suffix in SUFFIXES and suffix != ".parquet":
            by_kind.setdefault(suffix, []).append(path)
    found = []
    notes = [f"{count(len(alone), 'file')} for single images left out ({min(alone)}, ...)"] if alone else []
    for suffix, paths in by_kind.items():
        if len(paths) > _MANY:
            top = [path for path in paths if path.count("/") < 2][:_MANY]
            notes.append(f"{len(paths) - len(top):,} {suffix} files left out: too many to be tables of images")
            paths = top
        found += paths
    return sorted(found), notes


def read_table(root: str, name: str, is_file: Callable[[str], bool] = lambda _: False) -> Table:
    """Read a table.

    Args:
        root: the dataset's folder.
        name: the table's path in it.
        is_file: tells whether a text names an image, to recognise a table without a header.

    Raises:
        Unreadable: with the reason.
    """
    path = Path(root, name)
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return Table(name, _of_parquet(path))
    try:
        if (packed := compression_of(path)) is not None:
            raise Unreadable(f"it is compressed ({packed}), although its name does not say so: unpack it first")
        content = read_regular(path, _LARGEST)
    except OSError as error:
        raise Unreadable(str(error.strerror or error)) from error
    text, notes = _decoded(content)
    if suffix in (".json", ".jsonl", ".ndjson"):
        try:
            return Table(name, columns_of(_records(text, are_lines=suffix != ".json")), notes=notes)
        except DataError as error:
            raise DataError(f"{name}: {error.wrong}", allowed=error.allowed, hint=error.hint) from error
    table = _of_lines(name, text, is_file, is_list=suffix == ".txt")
    table.notes[:0] = notes
    return table


# --- csv and lists -----------------------------------------------------------------------------------------


def _decoded(content: bytes) -> tuple[str, list[str]]:
    """Return a file's text; UTF-8 unless its bytes say otherwise."""
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if content.startswith(mark):
            try:
                return content.decode(encoding), [] if encoding == "utf-8-sig" else [f"read as {encoding}"]
            except UnicodeDecodeError as error:
                raise Unreadable(f"it is broken {encoding}: {error.reason}") from error
    head = content[:4096]
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if max(even, odd) >= max(len(head) // 4, 1):
        guess = "utf-16-le" if odd > even else "utf-16-be"
        try:
            return content.decode(guess), [f"read as {guess}, because it has no byte order mark"]
        except UnicodeDecodeError as error:
            raise Unreadable(f"it is neither UTF-8 nor UTF-16: {error.reason}") from error
    try:
        return content.decode(), []
    except UnicodeDecodeError as error:
        if b"\0" in content:
            raise Unreadable("it contains null bytes, so it is not text") from error
        number = content[: error.start].count(b"\n") + 1
        try:
            text = content.decode("cp1252")
        except UnicodeDecodeError:
            text = content.decode("latin-1")
        return text, [f"line {number} is not UTF-8, so it was read as Windows-1252 (latin-1)"]


def _of_lines(name: str, text: str, is_file: Callable[[str], bool], *, is_list: bool) -> Table:
    lines = text.splitlines()
    first = [line for line in itertools.islice(lines, 200) if line.strip()]
    if not first:
        raise Unreadable("it is empty")
    delimiter, notes = _delimiter(first, is_list=is_list)
    if first[0].lower().startswith("sep=") and len(first[0]) <= 6:  # Excel's own first line
        text = text.lstrip()[len(first[0]) :]
    try:
        rows = [row for row in _reader(io.StringIO(text, newline=""), delimiter) if any(map(str.strip, row))]
    except csv.Error as error:
        raise Unreadable(f"it cannot be parsed: {error}") from error
    if not rows:
        raise Unreadable("it is empty")
    header = [each.strip() for each in rows[0]]
    is_listed = is_list or any(is_file(each) or is_image_name(each) for each in header)
    if is_listed and is_list and _is_header(header, rows[1:20], is_file):
        is_listed = False
    if is_list and delimiter == " " and not all(text.lstrip("+-").isdigit() for row in rows for text in row[1:]):
        rows = [[row[0], " ".join(row[1:])] if len(row) > 1 else row for row in rows]  # 0034309 Boeing 707
    width = max(map(len, rows))
    names = [f"column_{place + 1}" for place in range(width)] if is_listed else _named(header, width)
    body = rows if is_listed else rows[1:]
    num_padded = sum(text != text.strip() for row in body for text in row)
    if num_padded:
        notes.append(f"{num_padded:,} values had spaces around them, which were removed")
    short = sum(len(row) < len(header) for row in body)
    if short > len(body) // 2:
        notes.append(f"{count(short, 'row')} with fewer fields than the first")
    columns: dict[str, list[str | None]] = {each: [] for each in names}
    for row in body:
        for each, text in itertools.zip_longest(names, row, fillvalue=""):
            columns[each].append(text.strip() or None)
    if is_listed and not is_list:
        notes.append("read without a header, because its first row names an image")
    return Table(name, columns, is_listed, notes, _long_rows(name, body, len(rows[0]), delimiter, is_file))


def _long_rows(
    name: str, rows: Sequence[Sequence[str]], width: int, delimiter: str, is_file: Callable[[str], bool]
) -> DataError | None:
    """Return an error if a row has more fields than the first line, or an open quote swallows rows."""
    for number, row in enumerate(rows):
        if any("\n" in text and _swallowed(text, delimiter, is_file) for text in row):
            return DataError(
                f"row {number} of {name} holds line breaks and {delimiter!r} between quotes: is a closing quote "
                f"missing? It begins with {next(text for text in row if chr(10) in text)[:40]!r}",
                allowed="quotes in pairs",
                hint="fix the row, or ignore tables: --set data.layout=folders",
            )
        if len([text for text in row[width:] if text.strip()]):
            long = sum(bool("".join(other[width:]).strip()) for other in rows)
            return DataError(
                f"row {number} of {name} has {len(row)} fields, but the first line has {width}"
                + (f" ({long:,} rows have more)" if long > 1 else ""),
                allowed="rows with one field per column; quotes around text that contains the delimiter",
                hint="fix the row, or ignore tables: --set data.layout=folders",
            )
    return None


def _swallowed(text: str, delimiter: str, is_file: Callable[[str], bool]) -> bool:
    """Return whether text of several lines has fields that name images, because a closing quote is missing."""
    fields = [field.strip() for line in text.split("\n")[1:] for field in line.split(delimiter)]
    return any(is_image_name(field) or is_file(field) for field in fields if field)


def _delimiter(lines: Sequence[str], *, is_list: bool) -> tuple[str, list[str]]:
    """Return the character that splits most lines, including the first, into equally many fields, and notes."""
    best, most = ",", (0.0, False, 0)
    for delimiter in _DELIMITERS if is_list else _DELIMITERS[:-1]:
        try:
            widths = [len(row) for row in _reader(lines, delimiter) if row]
        except csv.Error:
            continue
        width = max(set(widths), key=widths.count, default=1)
        part = widths.count(width) / max(len(widths), 1)
        score = round(part, 1), widths[:1] == [width], width if part > 0.8 else 0
        if width > 1 and score > most:
            best, most = delimiter, score
    said = {",": [], "\t": ["fields are separated by tabs"], " ": ["fields are separated by spaces"]}
    return best, list(said.get(best, [f"fields are separated by {best!r}"])) if not is_list else []


def _reader(lines: Iterable[str], delimiter: str) -> Iterable[list[str]]:
    csv.field_size_limit(2**24)
    return csv.reader(lines, delimiter=delimiter, skipinitialspace=True)


def _named(header: Sequence[str], width: int) -> list[str]:
    """Return unique column names; empty and repeated ones get a number."""
    names: list[str] = []
    for place in range(width):
        name = header[place] if place < len(header) and header[place] else f"column_{place + 1}"
        while name in names:
            name = f"{name}_{place + 1}"
        names.append(name)
    return names


def _is_header(header: Sequence[str], rows: Sequence[Sequence[str]], is_file: Callable[[str], bool]) -> bool:
    """Return whether the first line of a list names columns: it names no image, but the next lines do."""
    if any(map(is_file, header)) or len(header) < 2:
        return False
    return bool(rows) and all(any(map(is_file, row)) for row in rows)


# --- JSON and parquet --------------------------------------------------------------------------------------


def _records(text: str, *, are_lines: bool) -> list[Mapping[str, Any]]:
    """Return the objects in a JSON file: a list, one per line, a table by columns, or COCO's three lists."""
    try:
        value: Any = json.loads(text)
    except RecursionError as error:
        raise Unreadable("it is nested too deeply") from error
    except ValueError:
        try:
            value = [json.loads(line) for line in text.splitlines() if line.strip()]
        except (ValueError, RecursionError) as error:
            raise Unreadable(f"it is not JSON: {error}") from error
    if isinstance(value, dict):
        value = [value] if are_lines else _of_coco(value) or _of_object(value)
    if not isinstance(value, list) or not value or not all(isinstance(each, dict) for each in value):
        raise Unreadable("it contains no list of objects")
    return value


def _of_coco(value: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Return the rows of a COCO file, one for each annotation: file name and category, without boxes."""
    if not all(isinstance(value.get(key), list) for key in ("images", "annotations", "categories")):
        return None
    try:
        names = {each["id"]: each["name"] for each in value["categories"]}
        twice = sorted({str(name) for name in names.values() if list(names.values()).count(name) > 1})
        if twice:
            ids = ", ".join(str(key) for key, name in names.items() if str(name) == twice[0])
            raise DataError(
                f"several categories are called {twice[0]!r} (ids {ids}), so it is unclear which one a label means",
                allowed="categories with different names",
                hint="rename them in the file",
            )
        given: dict[Any, list[Any]] = {}
        for each in value["annotations"]:
            given.setdefault(each["image_id"], []).append(names.get(each["category_id"], each["category_id"]))
        return [
            {"file_name": image["file_name"], "category": list(dict.fromkeys(given.get(image["id"], [None])))}
            for image in value["images"]
        ]
    except (KeyError, TypeError) as error:
        raise Unreadable(f"it looks like COCO annotations, but lacks {error}") from error


def _of_object(value: Mapping[str, Any]) -> Any:
    """Return the rows in an object: its only list of objects, its lists as columns, or names by class."""
    lists = {key: each for key, each in value.items() if isinstance(each, list)}
    rows = [each for each in lists.values() if each and all(isinstance(row, dict) for row in each)]
    if len(rows) == 1:
        return rows[0]
    lengths = {len(each) for each in lists.values()}
    by_split = {key: each for key, each in lists.items() if all(isinstance(row, dict) for row in each)}
    if by_split and len(by_split) == len(value) and all(role_of(key) for key in by_split):
        return [{"split": key, **row} for key, each in by_split.items() for row in each]
    if lists and len(lists) == len(value):
        if len(lengths) == 1 and not all(_is_name(item) for each in lists.values() for item in each[:3]):
            return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
        return [{"class": key, "file": item} for key, each in lists.items() for item in each]  # Food-101's
    if value and all(isinstance(each, dict) for each in value.values()):
        return [{"file": key, **each} for key, each in value.items()]
    if value and all(isinstance(each, str | int) for each in value.values()):
        return [{"file": key, "label": each} for key, each in value.items()]
    return None


def _is_name(value: object) -> bool:
    return isinstance(value, str) and ("/" in value or is_image_name(value))


def columns_of(records: Sequence[Mapping[str, Any]]) -> dict[str, list[str | None]]:
    """Return records as columns of text; nested ones are ``outer.inner``, and lists are joined with ``|``."""
    flat = [_flattened(record) for record in records]
    names = list(dict.fromkeys(name for record in flat for name in record))
    return {name: [record.get(name) for record in flat] for name in names}


def _flattened(value: Any, prefix: str = "", depth: int = 0) -> dict[str, str | None]:
    if isinstance(value, Mapping) and depth < 20:
        flat: dict[str, str | None] = {}
        for key, inner in value.items():
            flat |= _flattened(inner, f"{prefix}.{key}" if prefix else str(key), depth + 1)
        return flat
    if isinstance(value, list):
        if len(value) == 1:
            return _flattened(value[0], prefix, depth + 1)
        if value and all(isinstance(each, str | int) for each in value):
            return {prefix: "|".join(map(str, value))}
        return {prefix: None}
    return {prefix: _as_text(value)}


def _as_text(value: object) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = str(value).strip()
    return text.encode("utf-8", "replace").decode() or None  # JSON may contain half a character


def _of_parquet(path: Path) -> dict[str, list[str | None]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
        plain = [
            each.name for each in schema
            if pa.types.is_string(each.type) or pa.types.is_large_string(each.type)
            or pa.types.is_integer(each.type) or pa.types.is_boolean(each.type) or pa.types.is_floating(each.type)
        ]  # fmt: skip
        table = pq.read_table(path, columns=plain)
    except (OSError, pa.ArrowException) as error:
        raise Unreadable(f"it is not a parquet file: {str(error).splitlines()[0]}") from error
    return {name: [_as_text(value) for value in table.column(name).to_pylist()] for name in plain}

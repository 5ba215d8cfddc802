"""Find the image of each row of a table: the column of file names, and the file that each name means.

Names are accepted as people write them: relative to the table or to the dataset's folder, bare, without a suffix,
with backslashes or a drive, or absolute on another machine.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from vitft.files import is_file
from vitft.reading.listing import Listing, is_image_name, join
from vitft.reading.tables import Table
from vitft.reading.words import is_measure, is_split_name, words_of

MISSING = ""
"""Stands for the file of a row whose file does not exist."""
_SAMPLED = 400  # rows inspected to find the column of file names
_FILE_WORDS = ("file_name", "filename", "file", "image", "image_path", "path", "filepath", "image_id", "img", "id")


@dataclass
class Joined:
    """A table and the image file of each of its rows.

    Attributes:
        table: the table.
        column: the column that names the files.
        files: their paths in the dataset's folder, or absolute if outside it; ``MISSING`` if there is none.
        ambiguous: rows whose name matches several files.
    """

    table: Table
    column: str
    files: list[str]
    ambiguous: list[int] = field(default_factory=list)

    @property
    def missing(self) -> list[int]:
        """The rows whose file does not exist."""
        names = self.table.columns[self.column]
        return [row for row, file in enumerate(self.files) if not file and names[row]]


class FileIndex:
    """The image files of a dataset's folder, found by the names that tables use.

    Args:
        listing: the contents of the folder.
        role_of_file: returns the split of a file's folder, so that if two files share a name, a row of
            ``train.csv`` means the one in ``train/``.
    """

    def __init__(self, listing: Listing, role_of_file: Callable[[str], str | None] = lambda _: None) -> None:
        self.listing, self._role_of_file = listing, role_of_file

    @cached_property
    def _paths(self) -> dict[str, str]:
        return {
            _nfc(join(folder, name)): join(folder, name)
            for folder, names in self.listing.images.items()
            for name in names
        }

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        index: dict[str, list[str]] = {}
        for key, path in self._paths.items():
            index.setdefault(key[key.rfind("/") + 1 :].lower(), []).append(path)
        return index

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        index: dict[str, list[str]] = {}
        for name, paths in self._by_name.items():
            index.setdefault(name[: name.rfind(".")], []).extend(paths)
        return index

    def has(self, text: str, folder: str = "") -> bool:
        """Return whether a text names at least one of the images."""
        return bool(self.find(text, folder)[1])

    def find(self, text: str, folder: str, role: str | None = None) -> tuple[list[str], int]:
        """Return the files that best match a name, and how many parts of their paths it matches.

        Args:
            text: the name in the table.
            folder: the folder of the table.
            role: the split that the table describes.
        """
        path = _tidy(text)
        if not path:
            return [], 0
        parts = path.split("/")
        for base in dict.fromkeys((folder, "")):
            inside = os.path.normpath(join(base, path)).replace(os.sep, "/")
            if inside in self._paths:
                return [self._paths[inside]], len(parts)
        name = parts[-1].lower()
        found = self._by_name.get(name) or ([] if is_image_name(name) else self._by_stem.get(name, []))
        if not found:
            return self._outside(text, folder)
        return self._best(found, parts[:-1], folder, role)

    def _best(self, found: list[str], above: Sequence[str], folder: str, role: str | None) -> tuple[list[str], int]:
        depths = [_common(file.split("/")[:-1], above) for file in found]
        most = max(depths)
        found = [file for file, depth in zip(found, depths, strict=True) if depth == most]
        for wanted in (
            lambda file: role is not None and self._role_of_file(file) == role,
            lambda file: bool(folder) and file.startswith(f"{folder}/"),
        ):
            if len(found) > 1:
                found = [file for file in found if wanted(file)] or found
        return found, most + 1

    def _outside(self, text: str, folder: str) -> tuple[list[str], int]:
        """Look for a file outside the folder, or in a folder that the listing skips."""
        path = text.strip()
        if "\0" in path or not is_image_name(path) or len(path) > 4096:
            return [], 0
        for base in (os.path.join(self.listing.root, folder), self.listing.root):  # noqa: PTH118
            whole = os.path.join(base, path)  # noqa: PTH118
            if is_file(whole):
                found = os.path.normpath(whole)
                below = f"{os.path.normpath(self.listing.root)}{os.sep}"
                return [found.removeprefix(below).replace(os.sep, "/")], len(path.split("/"))
        return [], 0


def join_table(table: Table, index: FileIndex, *, role: str | None, wanted: str | None = None) -> Joined | None:
    """Find the column of a table that names images, and the image of each row; None if there is no such column.

    Args:
        table: its rows.
        index: the images of the folder.
        role: the split that the table describes, by its name.
        wanted: the column that the user asked for.
    """
    folder = table.name.rpartition("/")[0]
    column = wanted if wanted in table.columns else _file_column(table, index, folder)
    if column is None:
        return None
    files, depths, ambiguous = [], [], []
    for row, text in enumerate(table.columns[column]):
        found, depth = index.find(text, folder, role) if text else ([], 0)
        files.append(found[0] if len(found) == 1 else MISSING)
        depths.append(depth)
        if len(found) > 1:
            ambiguous.append(row)
    # If some rows match including their folders, all must: cat/1.jpg is not dog/1.jpg, though both end alike.
    has_folder = [bool(text) and "/" in _tidy(text or "") for text in table.columns[column]]
    if any(depth > 1 for depth, has in zip(depths, has_folder, strict=True) if has):
        for row, (depth, has) in enumerate(zip(depths, has_folder, strict=True)):
            if has and depth == 1:
                files[row] = MISSING
    return Joined(table, column, files, ambiguous)


def names_images(table: Table) -> str | None:
    """Return the column whose text looks like image file names, whether or not the files exist."""
    for column, values in table.columns.items():
        present = [value for value in values[:50] if value]
        if present and sum(map(is_image_name, present)) > len(present) // 2:
            return column
    return None


def _file_column(table: Table, index: FileIndex, folder: str) -> str | None:
    """Return the column that finds the most images; on a tie, one that is named like a column of files."""
    rows = range(0, table.num_rows, max(table.num_rows // _SAMPLED, 1))
    best, most = None, (0.0, 0.0, 0.0)
    for place, (column, values) in enumerate(table.columns.items()):
        texts = [text for text in (values[row] for row in rows) if text]
        if not texts or is_split_name(column):
            continue
        found = {tuple(index.find(text, folder)[0][:1]) for text in texts} - {()}
        part = len(found) / len(texts)
        looks_like_files = sum(map(is_image_name, texts)) / len(texts)
        preferred = -min((_FILE_WORDS.index(word) for word in _FILE_WORDS if column.lower() == word), default=99)
        is_number = all(text.isdigit() for text in texts)
        if is_number and is_measure(column) and not set(words_of(column)) & {"id", "ids", "name", "file", "index"}:
            continue  # a width of 300 is not 300.jpg
        if part >= 0.3 or (found and looks_like_files > 0.5):
            score = (round(part, 1), looks_like_files, preferred - place / 1000)
            if score > most:
                best, most = column, score
    return best


def _tidy(text: str) -> str:
    """Return a path with ``/`` between its parts, without drive, URL scheme, leading slashes and dots."""
    path = _nfc(text.strip()).replace("\\", "/")
    path = re.sub(r"^(?:[A-Za-z]:(?=/)|[a-z][a-z0-9+.-]*://[^/]*)", "", path)
    path = re.sub(r"/{2,}", "/", path).lstrip("/")
    while path.startswith("./"):
        path = path[2:].lstrip("/")
    return path


def _common(file: Sequence[str], wanted: Sequence[str]) -> int:
    """Return how many parts two paths share, counted from their ends."""
    same = 0
    for mine, theirs in zip(reversed(file), reversed(wanted), strict=False):
        if _nfc(mine).lower() != theirs.lower():
            break
        same += 1
    return same


def _nfc(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFC", text)

"""What a layout is: a small builder and what must come of it; and how its files are written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
from golden import bmp


@dataclass(frozen=True)
class Reads:
    """The right reading: role -> class -> number of images. A carved validation counts as train."""

    splits: Mapping[str, Mapping[str, int]]
    notes: tuple[str, ...] = ()
    """Regular expressions, each found in some note of the source."""


@dataclass(frozen=True)
class Refuses:
    """A DataError, which ends with exit code 1."""

    words: tuple[str, ...]
    """Regular expressions, each found in the message."""
    ways: tuple[tuple[Mapping[str, object], Reads], ...] = ()
    """Settings that resolve it, each named in the message, and what is then read. "dataset" is a folder below."""
    why: str = ""
    """The reason in words, for the documentation."""
    never: tuple[str, ...] = ()
    """Regular expressions that must not be found in the message: ways out that lead into the ditch."""


@dataclass(frozen=True)
class Layout:
    """A dataset as somebody publishes it."""

    name: str
    origin: str
    build: Callable[[Path], Path]
    expected: Reads | Refuses
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass
class Tree:
    """Writes files below a folder; no two of the images it makes have the same bytes."""

    root: Path
    num_images: int = 0

    def content(self) -> bytes:
        self.num_images += 1
        return bmp(self.num_images)

    def image(self, path: str) -> str:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(self.content())
        return path

    def images(self, folder: str, count: int = 4, name: str = "{:03d}.jpg", first: int = 0) -> list[str]:
        """Write images into a folder and return their paths from the root."""
        prefix = f"{folder}/" if folder else ""
        return [self.image(prefix + name.format(index)) for index in range(first, first + count)]

    def folders(self, counts: Mapping[str, int], name: str = "{:03d}.jpg") -> list[str]:
        """Write the given number of images into each folder; the numbers go on from folder to folder."""
        paths: list[str] = []
        for folder, count in counts.items():
            paths += self.images(folder, count, name, first=len(paths))
        return paths

    def pets(self, folder: str = "", count: int = 4) -> list[str]:
        """Write class folders ``cat`` and ``dog``; the first half of the returned paths are cats."""
        prefix = f"{folder}/" if folder else ""
        return self.folders({f"{prefix}cat": count, f"{prefix}dog": count})

    def text(self, path: str, *lines: str, encoding: str = "utf-8") -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(("\n".join(lines) + "\n").encode(encoding))
        return file

    def table(
        self, path: str, header: str, rows: Iterable[Sequence[object]], sep: str = ",", encoding: str = "utf-8"
    ) -> Path:
        """Write a table; the header is written with commas, whatever the separator; none if it is empty."""
        head = [header.replace(",", sep)] if header else []
        return self.text(path, *head, *(sep.join(map(str, row)) for row in rows), encoding=encoding)

    def json(self, path: str, content: object) -> Path:
        return self.text(path, json.dumps(content, indent=1))

    def lines(self, path: str, rows: Iterable[Mapping[str, object]]) -> Path:
        return self.text(path, *(json.dumps(row, ensure_ascii=False) for row in rows))

    def rows(self, count: int, **columns: tuple[Sequence[Any], Any]) -> datasets.Dataset:
        """Make a dataset of new images and the given columns, each (values, feature)."""
        images = [{"bytes": self.content(), "path": None} for _ in range(count)]
        features = datasets.Features({"image": datasets.Image(), **{name: each[1] for name, each in columns.items()}})
        values = {name: list(each[0]) for name, each in columns.items()}
        return datasets.Dataset.from_dict({"image": images, **values}, features=features)


LAYOUTS: list[Layout] = []

PETS = {"cat": 4, "dog": 4}
Builder = Callable[[Tree], "str | None"]


def layout(name: str, origin: str, expected: Reads | Refuses, **settings: object) -> Callable[[Builder], Builder]:
    """Enter a builder into LAYOUTS. It may return the path below the root that ``--dataset`` is given."""

    def enter(build: Builder) -> Builder:
        def built(root: Path) -> Path:
            root.mkdir(parents=True)
            inside = build(Tree(root))
            return root / inside if inside else root

        assert all(each.name != name for each in LAYOUTS), name
        LAYOUTS.append(Layout(name, origin, built, expected, settings))
        return build

    return enter


def folders(name: str, origin: str, counts: Mapping[str, int], expected: Reads | Refuses, **settings: object) -> None:
    """Enter a layout of nothing but images in folders."""

    def build(tree: Tree) -> None:
        tree.folders(counts)

    layout(name, origin, expected, **settings)(build)


def reads(*notes: str, **splits: Mapping[str, int]) -> Reads:
    return Reads(splits, notes)


def refuses(
    why: str, *words: str, ways: Sequence[tuple[Mapping[str, object], Reads]] = (), never: Sequence[str] = ()
) -> Refuses:
    return Refuses(words, tuple(ways), why, tuple(never))


def labelled(paths: Sequence[str], labels: Sequence[object] = ("cat", "dog")) -> list[tuple[str, object]]:
    """Give the first part of the paths the first label, and so on, in equal parts."""
    share = -(-len(paths) // len(labels))
    return [(path, labels[index // share]) for index, path in enumerate(paths)]


def stems(paths: Iterable[str]) -> list[str]:
    """Return the names of files without folders and suffixes."""
    return [Path(path).stem for path in paths]


def names(paths: Iterable[str]) -> list[str]:
    """Return the names of files without folders."""
    return [Path(path).name for path in paths]

"""A folder of class folders as rows of (path, class name): listed by us, nothing is copied into a cache.

photos/daisy/1.jpg                 one split, named train
photos/train/daisy/1.jpg           splits by folder
photos/flowers/daisy/1.jpg         folders that only wrap others, as archives leave them, are passed through
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from vitft.data.columns import is_image_name
from vitft.data.splits import TEST_NAMES, TRAIN_NAMES, VALIDATION_NAMES

IMAGE, LABEL = "image", "class_folder"
_SPLIT_NAMES = frozenset(TRAIN_NAMES + VALIDATION_NAMES + TEST_NAMES)


@dataclass(frozen=True)
class ClassFolders:
    """The image files of a folder by split, each with its class (None in a split without class folders)."""

    splits: Mapping[str, Sequence[tuple[str, str | None]]]
    notes: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """How many class folders hold images, over all splits."""
        return len({name for rows in self.splits.values() for _, name in rows if name is not None})


def list_files(root: str) -> list[str]:
    """Return all files below a folder, relative and in a fixed order, without hidden files and folders."""
    found: list[str] = []
    visited: set[str] = set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        visited.add(os.path.realpath(folder))
        subfolders[:] = sorted(
            name for name in subfolders
            if not _is_hidden(name) and os.path.realpath(f"{folder}/{name}") not in visited  # circles
        )  # fmt: skip
        inside = os.path.relpath(folder, root)
        prefix = "" if inside == os.curdir else inside + "/"
        found += [prefix + name for name in files if not _is_hidden(name)]
    return sorted(found)


def sort_into_classes(files: Sequence[str], wanted: Sequence[str] = ()) -> ClassFolders:
    """Read splits and classes from the paths of a folder's files.

    The class is the folder right below the split; what lies deeper belongs to it.

    Args:
        files: paths relative to the folder, as :func:`list_files` gives them.
        wanted: split names that the user asks for; a folder so named is a split, not a class.
    """
    images = [Path(path).parts for path in files if is_image_name(path)]
    notes: list[str] = []
    num_others = len(files) - len(images)
    if num_others:
        notes.append(f"{_count(num_others, 'file')} with no image name left out")
    known = _SPLIT_NAMES | {name.lower() for name in wanted}
    depth = 0
    while images and not _is_split_level(images, depth, known) and _is_wrapper(images, depth):
        depth += 1
    if depth:
        notes.append(f"classes are read below {'/'.join(images[0][:depth])}, which only wraps them")
    has_splits = _is_split_level(images, depth, known)
    splits: dict[str, list[tuple[str, str | None]]] = {}
    num_stray, num_deep = 0, 0
    for parts in images:
        split = parts[depth] if has_splits and len(parts) > depth + 1 else "train"
        inner = parts[depth + has_splits :]
        if has_splits and len(parts) <= depth + 1:
            num_stray += 1
            continue
        splits.setdefault(split, []).append(("/".join(parts), inner[0] if len(inner) > 1 else None))
        num_deep += len(inner) > 2
    for split, rows in splits.items():
        labelled = [row for row in rows if row[1] is not None]
        if labelled:  # a split with no class folder at all is an unlabelled one; single files beside classes are strays
            num_stray += len(rows) - len(labelled)
            splits[split] = labelled
    if num_stray:
        notes.append(f"{_count(num_stray, 'image')} outside of the class folders left out")
    if num_deep:
        notes.append(f"{_count(num_deep, 'image')} in deeper folders belong to the class folder above them")
    return ClassFolders(splits, tuple(notes))


def as_datasets(folders: ClassFolders) -> dict[str, Any]:
    """Return each split as a Dataset with the columns ``image`` (path) and ``class_folder`` (text)."""
    features = datasets.Features({IMAGE: datasets.Image(decode=False), LABEL: datasets.Value("string")})
    return {
        split: datasets.Dataset.from_dict(
            {IMAGE: [row[0] for row in rows], LABEL: [row[1] for row in rows]}, features=features
        )
        for split, rows in folders.splits.items()
    }


def _is_split_level(images: Sequence[tuple[str, ...]], depth: int, known: frozenset[str]) -> bool:
    names = {parts[depth].lower() for parts in images if len(parts) > depth + 1}
    deep = {parts[depth].lower() for parts in images if len(parts) > depth + 2}
    # One class folder may be called "test"; splits need one that trains, or nothing but split names.
    return bool(deep & known) and (bool(deep & {*TRAIN_NAMES, *(known - _SPLIT_NAMES)}) or names <= known)


def _is_wrapper(images: Sequence[tuple[str, ...]], depth: int) -> bool:
    return len({parts[depth] for parts in images}) == 1 and all(len(parts) > depth + 2 for parts in images)


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "__MACOSX"))


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"

"""A readable overview of a dataset: splits and classes with counts, the source of labels, examples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vitft.data.class_counts import first_rows
from vitft.data.images import ImageSource, ImageSplit, StreamSplit
from vitft.notebook import ShownAsText
from vitft.outside import printable

_ALL = 20  # classes that are listed one by one
_SOME = 5
_WIDTH = 100


@dataclass(frozen=True)
class Overview(ShownAsText):
    """A dataset as it was read.

    Attributes:
        id: the dataset's id or path.
        splits: number of images by role; None if a stream does not say.
        sources: the source's own name of each split.
        classes: number of images of each class by role; empty for a stream.
        labels_from: a description of where labels come from.
        examples: one image of each class, by its path or row.
        left_out: image files in no split, by reason.
        notes: every choice, with its reason.
    """

    id: str
    splits: dict[str, int | None]
    sources: dict[str, str]
    classes: dict[str, dict[str, int]]
    labels_from: str
    examples: dict[str, str]
    left_out: dict[str, int]
    notes: list[str]

    def __str__(self) -> str:
        return "\n".join([*self.lines(), *(f"  note: {printable(note)}" for note in self.notes)])

    def lines(self) -> Iterator[str]:
        """Yield the lines of the overview without its notes."""
        yield f"dataset  {printable(self.id)}"
        for role, number in self.splits.items():
            source = self.sources.get(role, role)
            came_from = f"  ({'part of ' if role == 'validation' and source == self.sources.get('train') else ''}"
            came_from = f"{came_from}{printable(source)})" if source != role else ""
            yield f"  {role:<11}{'?' if number is None else format(number, ','):>9} images{came_from}"
        origin = f", from {printable(self.labels_from)}" if self.labels_from else ""
        yield f"classes  {len(self.classes):,}{origin}"
        yield from self._class_lines()

    def _class_lines(self) -> Iterator[str]:
        total = {name: sum(by_role.values()) for name, by_role in self.classes.items()}
        names = list(self.classes)
        if not any(total.values()):  # a stream
            yield from _wrapped([printable(name) for name in names[:_ALL]], len(names) - _ALL)
            return
        if len(names) > _ALL:
            by_size = sorted(names, key=lambda name: -total[name])
            largest, smallest = by_size[:_SOME], by_size[-_SOME:]
            yield f"  largest   {', '.join(f'{printable(name)[:30]} {total[name]:,}' for name in largest)}"
            yield f"  smallest  {', '.join(f'{printable(name)[:30]} {total[name]:,}' for name in smallest)}"
            names = largest[:1] + smallest[-1:]
        width = min(max(len(printable(name)) for name in names), 30)
        roles = [role for role in self.splits if any(role in by_role for by_role in self.classes.values())]
        for name in names:
            counts = "  ".join(f"{role} {self.classes[name].get(role, 0):,}" for role in roles)
            example = _short(printable(self.examples.get(name, "")))
            yield f"  {printable(name)[:30]:<{width}}  {counts}  {example}".rstrip()

    def plain(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "dataset": self.id, "splits": self.splits, "sources": self.sources, "classes": self.classes,
            "labels_from": self.labels_from, "examples": self.examples, "left_out": self.left_out, "notes": self.notes,
        }  # fmt: skip


def overview_of(source: ImageSource) -> Overview:
    """Return the overview of a dataset."""
    splits = {role: split for role in ("train", "validation", "test") if (split := getattr(source, role)) is not None}
    classes: dict[str, dict[str, int]] = {name: {} for name in source.classes}
    examples: dict[str, str] = {}
    for role, split in splits.items():
        if isinstance(split, ImageSplit):
            counts = split.class_counts(len(source.classes))
            for name, number in zip(source.classes, counts.tolist(), strict=True):
                classes[name][role] = number
            firsts = first_rows(split.label_chunks(), counts)
            used = np.flatnonzero(counts).tolist()
            for k in used if len(source.classes) <= _ALL else used[: 4 * _ALL]:
                examples.setdefault(source.classes[k], _example(split, int(firsts[k])))
    return Overview(
        source.id,
        {role: _length(split) for role, split in splits.items()},
        {role: split.source_name for role, split in splits.items() if isinstance(split, ImageSplit)},
        classes,
        source.labels_from,
        examples,
        dict(source.left_out),
        list(source.notes),
    )


def overview_of_split(split: ImageSplit, classes: Sequence[str], dataset: str) -> Overview:
    """Return the overview of a split that a model is evaluated on, with only the classes that the split has."""
    used = split.class_counts(len(classes))
    alone = ImageSource(dataset, None, "", tuple(classes), None, None, split, split.notes, split.labels_from)
    seen = overview_of(alone)
    kept = {name: by_role for name, by_role in seen.classes.items() if any(by_role.values())}
    total = {split.name: len(split)}
    kept = {name: {split.name: by_role["test"]} for name, by_role in kept.items()}
    notes = list(seen.notes)
    if len(kept) < len(used):
        notes.append(f"{len(used) - len(kept):,} of the model's {len(used):,} classes have no images here")
    source = f"part of {split.source_name}" if split.numbers is not None else split.name
    return replace(seen, splits=dict(total), sources={split.name: source}, classes=kept, notes=notes)


def _example(split: ImageSplit, row: int) -> str:
    """Return the path of an image, or its row if it has none."""
    where = split.where(row)
    return where[where.index("(") + 1 : -1] if where.endswith(")") else where


def _length(split: ImageSplit | StreamSplit) -> int | None:
    return len(split) if isinstance(split, ImageSplit) else split.num_rows


def _wrapped(names: Sequence[str], more: int) -> Iterator[str]:
    line = " "
    for name in names:
        if len(line) + len(name) > _WIDTH:
            yield line
            line = " "
        line += f" {name}"
    yield line + (f" and {more:,} more" if more > 0 else "")


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:28]}...{text[-28:]}"

"""Check that a sample of the images, or all, can be decoded, and find the value of white in 16-bit ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from vitft.data.class_counts import first_rows
from vitft.data.images import ImageSplit
from vitft.data.staging import BadImage, brightest, decode
from vitft.errors import DataError, shorten

_SAMPLED = 64  # images of each split, one of each class first
_LEVELS = (255, 1023, 4095, 16383, 65535)
_DIM = 4  # a 16-bit image whose brightest pixel is this many times darker than white has fewer real bits


@dataclass
class Findings:
    """What checking the images found.

    Attributes:
        num_checked: how many were decoded.
        bad: row and reason of each unusable image.
        brightest: the largest value in 16-bit grey images; None without any.
        brightest_colour: the same for 16-bit colour images, from their upper 8 bits.
        lost: training classes without a usable image.
        lost_splits: splits without a usable image.
    """

    num_checked: int = 0
    bad: list[tuple[str, str]] = field(default_factory=list)
    brightest: int | None = None
    brightest_colour: int | None = None
    lost: list[str] = field(default_factory=list)
    lost_splits: list[str] = field(default_factory=list)


def check_images(
    splits: Sequence[ImageSplit], classes: Sequence[str], which: Literal["sample", "all"], *, every_class: bool = False
) -> Findings:
    """Decode a sample of each split's images, or all, and return what was found.

    Args:
        splits: the source's splits.
        classes: the class names.
        which: whether to check a sample or all.
        every_class: check at least one image of every class, so that no class is undecodable unnoticed.
    """
    found = Findings()
    for split in splits:
        good: set[int] = set()
        bad: set[int] = set()
        for row in range(len(split)) if which == "all" else _sample(split, len(classes), every_class=every_class):
            (good if _check(split, row, found) else bad).add(row)
        if split.name == "train" and bad:
            found.lost = [classes[k] for k in _lost(split, good, bad, found)]
        elif bad and not good and not any(_check(split, row, found) for row in range(len(split)) if row not in bad):
            found.lost_splits.append(split.source_name or split.name)
    return found


def refuse_bad(found: Findings) -> None:
    """Raise a DataError naming the first unusable image."""
    if found.bad:
        where, reason = found.bad[0]
        more = (
            f" (and {len(found.bad) - 1:,} more of the {found.num_checked:,} that were checked)"
            if found.bad[1:]
            else ""
        )
        raise DataError(
            f"{where} cannot be used: {reason}{more}",
            hint="fix or remove it, or skip such images with --bad-images skip",
        )


def refuse_lost(found: Findings) -> None:
    """Raise a DataError naming the classes without a usable image."""
    if found.lost_splits:
        raise DataError(
            f"none of the images in the split {found.lost_splits[0]} can be decoded",
            allowed="splits with images that can be read",
            hint="fix the images, or remove the split",
        )
    if found.lost:
        raise DataError(
            f"none of the images of these classes can be decoded: {shorten(found.lost)}",
            allowed="at least one readable image of each class",
            hint="fix the images, or remove the class",
        )


def white_level(found: Findings, asked: int | Literal["auto"], notes: list[str]) -> int:
    """Return the value that means white in 16-bit grey images, and note how bright the brightest one is."""
    if found.brightest_colour is not None and found.brightest_colour * _DIM < 65535:
        notes.append(
            f"16-bit colour images: the brightest value found is about {found.brightest_colour:,} of 65,535, and only "
            "their upper 8 bits are read, so the model sees almost only black; convert them to 8 bits"
        )
    if found.brightest is None:
        return 65535 if asked == "auto" else asked
    fitting = next(level for level in _LEVELS if found.brightest <= level)
    if asked == "auto":
        notes.append(
            f"white level: {fitting}, because the brightest value found in 16-bit images is {found.brightest:,}"
        )
        return fitting
    shown = min(round(255 * found.brightest / asked), 255)
    if found.brightest * _DIM < asked:
        notes.append(
            f"16-bit images: the brightest value found is {found.brightest:,} of {asked:,}, so the model sees 0 to "
            f"{shown} of 255; if white is {fitting}: --set data.white_level={fitting} (or auto)"
        )
    return asked


def _check(split: ImageSplit, row: int, found: Findings) -> bool:
    found.num_checked += 1
    try:
        encoded = split.encoded(row)
        decode(encoded)
        level = brightest(encoded)
    except BadImage as error:
        found.bad.append((split.where(row), error.wrong))
        return False
    if level is not None and level[1]:
        found.brightest_colour = max(found.brightest_colour or 0, level[0])
    elif level is not None:
        found.brightest = max(found.brightest or 0, level[0])
    return True


def _sample(split: ImageSplit, num_classes: int, *, every_class: bool) -> list[int]:
    """Return evenly spaced rows, and the first row of as many classes as fit, or of every class."""
    if len(split) <= _SAMPLED:
        return list(range(len(split)))
    firsts = first_rows(split.label_chunks(), split.class_counts(num_classes))
    firsts = np.sort(firsts[firsts >= 0])[: None if every_class else _SAMPLED // 2]
    spaced = np.linspace(0, len(split) - 1, max(_SAMPLED - len(firsts), _SAMPLED // 2)).astype(int)
    return sorted({*firsts.tolist(), *spaced.tolist()})


def _lost(split: ImageSplit, good: set[int], bad: set[int], found: Findings) -> Iterator[int]:
    """Yield the classes with a bad image that have no good one."""
    for k in sorted({split.label(row) for row in bad}):
        rows = np.flatnonzero(split.labels == k).tolist()
        if not any(row in good for row in rows) and not any(
            _check(split, row, found) for row in rows if row not in bad
        ):
            yield k

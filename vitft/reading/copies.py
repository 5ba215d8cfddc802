"""Find images that are in two splits: the same file, or another file with the same bytes.

Only files of the same size are compared, first by their last bytes and then whole, so this costs little more than
reading the file sizes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vitft.data.images import ImageSplit
from vitft.errors import DataError
from vitft.reading.encoded import EncodedImages

_TAIL = 512  # bytes compared first: images differ most at their ends
_MOST_FILES = 60_000  # the most files whose ends are read; if there are more, only evenly spaced ones are compared
_MOST_BYTES = 2_000_000  # the same for images in a column
_SHOWN = 3


@dataclass(frozen=True)
class Copies:
    """Images that are in two splits.

    Attributes:
        pairs: each a row of the first split and a row of the second.
        num_left: rows of the second split that were not compared, because that would take too long.
    """

    pairs: list[tuple[int, int]]
    num_left: int = 0


@dataclass(frozen=True)
class Side:
    """A split to compare, and its images."""

    split: ImageSplit
    images: EncodedImages


def find_copies(first: Side, second: Side, *, apart_from: np.ndarray | None = None) -> Copies:
    """Return the images of ``second`` that are also in ``first``, each with a row of ``first``.

    If there are very many images, only evenly spaced ones of ``second`` are compared.

    Args:
        first, second: the sides to compare.
        apart_from: rows of ``first`` that are the images of ``second`` themselves; they do not count.
    """
    mine, theirs = first.images, second.images
    is_alike = np.isin(mine.sizes, np.unique(theirs.sizes[theirs.sizes > 0]))
    if apart_from is not None:
        is_alike[apart_from] = False
    places = np.flatnonzero(is_alike)
    others = np.flatnonzero(np.isin(theirs.sizes, mine.sizes[places]))
    num_alike = len(others)
    most = _MOST_BYTES if theirs.are_bytes else _MOST_FILES
    others, places = _fewer(mine.sizes, theirs.sizes, others, places, most)
    ends = {row: (int(theirs.sizes[row]), theirs.tail(row, _TAIL)) for row in others.tolist()}
    wanted = set(ends.values())
    by_end: dict[tuple[int, bytes], list[int]] = {}
    for row in places.tolist():
        end = (int(mine.sizes[row]), mine.tail(row, _TAIL))
        if end in wanted:
            by_end.setdefault(end, []).append(row)
    pairs = []
    for row in others.tolist() if by_end else []:
        candidates = by_end.get(ends[row], ())
        whole = theirs.digest(row) if candidates else b""
        twin = next((each for each in candidates if mine.digest(each) == whole), None)
        if twin is not None:
            pairs.append((twin, row))
    return Copies(pairs, num_alike - len(others))


def _fewer(
    sizes: np.ndarray, their_sizes: np.ndarray, others: np.ndarray, places: np.ndarray, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Thin out ``others`` evenly until few enough images are left to read their ends."""
    while len(others) > 1 and len(others) + len(places) > most:
        keep = max(len(others) // 2, 1)
        others = others[np.unique(np.linspace(0, len(others) - 1, keep).astype(int))]
        places = places[np.isin(sizes[places], np.unique(their_sizes[others]))]
    return others, places


def part_splits(sides: Sequence[Side], *, are_accepted: bool) -> Iterator[str]:
    """Look for images that are in two splits; yield a note about each pair of splits.

    Args:
        sides: the splits.
        are_accepted: whether to note copies instead of raising.

    Raises:
        DataError: naming some images that are in two splits.
    """
    for place, second in enumerate(side.split for side in sides):
        for first in sides[:place]:
            copies = find_copies(first, sides[place])
            if copies.pairs:
                sentence = (
                    f"{len(copies.pairs):,} of {len(second):,} images of {second.source_name} are also in "
                    f"{first.split.source_name}: {'; '.join(_named(first.split, second, copies))}"
                )
                if not are_accepted:
                    raise DataError(
                        sentence,
                        allowed="splits without common images, because a score on images seen in training means little",
                        hint="remove them from one of the splits, or accept them: --set data.allow_overlap=true",
                    )
                yield sentence
            if copies.num_left:
                yield (
                    f"{copies.num_left:,} of {len(second):,} images of {second.source_name} were not compared with "
                    f"those of {first.split.source_name}: too many have the same size"
                )


def _named(first: ImageSplit, second: ImageSplit, copies: Copies) -> Iterator[str]:
    for mine, theirs in copies.pairs[:_SHOWN]:
        yield f"{second.where(theirs)} is {first.where(mine)}"
    if len(copies.pairs) > _SHOWN:
        yield "..."

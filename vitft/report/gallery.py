"""Which images a page shows: the surest mistakes, and examples of the most confused pairs.

``thumbnails/`` of a run or an evaluation holds them small, with ``index.json``, since a page must not need the dataset.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vitft.files import is_file
from vitft.scoring.evidence import frequent_mistakes, surest_mistakes
from vitft.scoring.predictions import Predictions
from vitft.svg import address

FOLDER, INDEX = "thumbnails", "index.json"
NUM_MISTAKES, NUM_PAIRS, PER_PAIR = 20, 10, 3


@dataclass(frozen=True)
class Pair:
    """A true class and the one that it is often taken for.

    Attributes:
        label, predicted: their ids.
        count: images of it.
        examples: places of a few of them in the predictions, the surest first.
    """

    label: int
    predicted: int
    count: int
    examples: tuple[int, ...]


@dataclass(frozen=True)
class Chosen:
    """The images that a page shows, as places in the predictions of a split."""

    mistakes: tuple[int, ...]
    pairs: tuple[Pair, ...]

    @property
    def places(self) -> list[int]:
        """Every place once, mistakes first."""
        return list(dict.fromkeys([*self.mistakes, *(place for pair in self.pairs for place in pair.examples)]))


def choose(predictions: Predictions) -> Chosen:
    """Choose the images to show of a split."""
    pairs = []
    for label, predicted, count in frequent_mistakes(predictions, NUM_PAIRS):
        there = np.flatnonzero((predictions.label == label) & (predictions.predicted == predicted))
        surest = there[np.argsort(-predictions.p_predicted[there], kind="stable")][:PER_PAIR]
        pairs.append(Pair(label, predicted, count, tuple(map(int, surest))))
    return Chosen(tuple(map(int, surest_mistakes(predictions, NUM_MISTAKES))), tuple(pairs))


@dataclass(frozen=True)
class Thumbnails:
    """The small images that a run or an evaluation keeps.

    Attributes:
        split: the one that they are from.
        of_row: their addresses, by the row of the split.
        views: addresses of training views, each with its mixed labels: (class, share).
        notes: what is missing, and why.
    """

    split: str = ""
    of_row: dict[int, str] = field(default_factory=dict)
    views: list[tuple[str, list[tuple[str, float]]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_thumbnails(kept_in: Path) -> Thumbnails:
    """Read the thumbnails of a run or an evaluation; an image that is gone is left out.

    Raises:
        KeyError, TypeError, ValueError: if the index is not one that vitft wrote.
    """
    folder = kept_in / FOLDER
    if not is_file(folder / INDEX):
        return Thumbnails(notes=["there are no thumbnails"])
    index = json.loads((folder / INDEX).read_text("utf-8"))
    found = Thumbnails(str(index["split"]), notes=[str(note) for note in index["notes"]])
    for each in index["images"]:
        if picture := _picture(folder, each):
            found.of_row[int(each["row"])] = picture
    for each in index["views"]:
        if picture := _picture(folder, each):
            found.views.append((picture, [(str(name), float(share)) for name, share in each["labels"]]))
    return found


def _picture(folder: Path, entry: dict[str, Any]) -> str | None:
    """Return a file of the folder as an address; None for what is not there or lies elsewhere."""
    path = folder / Path(str(entry["file"])).name
    return address(path.read_bytes(), "image/jpeg") if path.is_file() else None

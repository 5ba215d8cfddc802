"""Read images one by one for pictures of a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vitft.errors import DataError
from vitft.outside import printable
from vitft.recipe.keys import DataRecipe

if TYPE_CHECKING:
    from PIL.Image import Image

    from vitft.data.images import ImageSource, ImageSplit
    from vitft.model.classifier import Classifier
    from vitft.pictures.look import Look, Photo

NUM_IMAGES = 128
"""Images over which the ViT paper averages attention distances."""
POOL = 256
"""Training images, evenly spaced, that can be neighbours; each costs a forward pass."""


class Photos:
    """The images for the pictures, read one by one.

    Attributes:
        source: where they come from, in words.
        notes: remarks on them.
    """

    def __init__(
        self,
        classifier: Classifier,
        images: Sequence[str | Path],
        dataset: str | DataRecipe | None,
        split: str | None,
        num_images: int | None,
        *,
        show: int,
        skip_bad: bool,
    ) -> None:
        from vitft.pictures.captions import short_name

        self.notes: list[str] = []
        self._classifier, self._show, self._skipped = classifier, show, self.notes if skip_bad else None
        self._max_pixels = (dataset if isinstance(dataset, DataRecipe) else DataRecipe()).max_pixels
        self._opened = _open(dataset) if dataset else None
        if images:
            self._paths = [str(path) for path in images][:num_images]
            self._asked, self.source = num_images or len(self._paths), "files"
            return
        self._paths, self._asked, self.source = [], num_images or NUM_IMAGES, ""
        if self._opened is not None:
            self._split = self._opened.split_to_judge_by(split)
            self.source = f"of the {self._split.source_name or self._split.name} split of {short_name(self._opened.id)}"

    def read(self) -> Iterator[Photo]:
        """Yield the images; the first ``show`` of a dataset are spread over all of it."""
        if self._paths:
            files = ((path, path, None) for path in self._paths)
            yield from read_photos(files, self._classifier, self._skipped, self._max_pixels)
        elif self._opened is not None:
            yield from self._rows(self._split, self._asked, self._show)

    def training(self) -> Iterator[Photo]:
        """Yield the training images that can be neighbours."""
        from vitft.data.images import ImageSplit

        if self._opened is not None:
            assert isinstance(self._opened.train, ImageSplit)  # streams were rejected
            yield from self._rows(self._opened.train, POOL)

    def _rows(self, split: ImageSplit, count: int, first: int = 0) -> Iterator[Photo]:
        assert self._opened is not None
        return evenly_spaced(
            split,
            self._opened.classes,
            self._classifier,
            count,
            first=first,
            skipped=self._skipped,
            max_pixels=self._max_pixels,
        )

    def note_few(self, seen: Look) -> None:
        """Add a note if there were fewer images than requested, or than the paper uses."""
        found = seen.num_images
        if 0 < found < self._asked:
            self.notes.append(f"only {found} of the {self._asked} requested images were found")
        elif 0 < found < NUM_IMAGES and seen.layers:
            self.notes.append(f"attention is the mean of only {found} images; the paper uses {NUM_IMAGES}")


def evenly_spaced(
    split: ImageSplit,
    classes: Sequence[str],
    classifier: Classifier,
    count: int,
    *,
    first: int = 0,
    skipped: list[str] | None = None,
    max_pixels: int | None = None,
) -> Iterator[Photo]:
    """Yield evenly spaced images of a split, starting with ``first`` of them that are evenly spaced themselves.

    Args:
        split: the split to read.
        classes: names by number.
        classifier: its image processor prepares the images.
        count: at most this many images.
        first: number of images at the start that are spread over the whole split.
        skipped: gets a line for each image that cannot be read; None raises DataError.
        max_pixels: as the recipe's ``data.max_pixels``.
    """
    some = min(count, len(split))
    first = min(first, some)
    ahead = [place * some // first for place in range(first)]
    order = [*ahead, *(place for place in range(some) if place not in ahead)]
    places = (place * len(split) // some for place in order)
    rows = ((split.where(i), split.encoded(i), classes[split.label(i)]) for i in places)
    return read_photos(rows, classifier, skipped, max_pixels)


def read_photos(
    encoded: Iterable[tuple[str, bytes | str, str | None]],
    classifier: Classifier,
    skipped: list[str] | None,
    max_pixels: int | None = None,
) -> Iterator[Photo]:
    """Yield images as the model sees them.

    Args:
        encoded: (name, file or its path, class) of each.
        classifier: its image processor prepares the images.
        skipped: gets a line for each image that cannot be read; None raises DataError.
        max_pixels: as the recipe's ``data.max_pixels``.
    """
    from vitft.data.staging import MAX_PIXELS, BadImage, decode
    from vitft.pictures.look import Photo

    process = classifier.process
    for name, content, label in encoded:
        try:
            pixels = process(decode(content, max_pixels or MAX_PIXELS, process.white_level)[0])
        except BadImage as error:
            if skipped is None:
                hint = "--bad-images skip, or fix or remove the image"
                raise DataError(f"{name} cannot be used: {error.wrong}", hint=hint) from error
            skipped.append(f"skipped {name}: {error.wrong}")
            continue
        shown_as = printable(name if label else Path(name).name)
        yield Photo(shown_as, pixels, printable(label) if label else None)


def decoded(split: ImageSplit, row: int, max_pixels: int) -> Image | None:
    """Return an image of a split, upright; None if it cannot be read."""
    from vitft.data.staging import BadImage, decode

    try:
        return decode(split.encoded(row), max_pixels, split.white_level)[0]
    except BadImage:
        return None


def _open(dataset: str | DataRecipe) -> ImageSource:
    from vitft.reading.source import open_source

    data = DataRecipe(dataset=dataset) if isinstance(dataset, str) else dataset
    if data.streaming:
        raise DataError("pictures need images from all over a dataset, not a stream", hint="leave out --streaming")
    return open_source(data, seed=0)

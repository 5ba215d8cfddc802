"""What pictures are taken of: a model on its device, and images one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitft.errors import DataError, UsageError
from vitft.outside import printable
from vitft.recipe import DataRecipe
from vitft.tasks.shared import Ready

if TYPE_CHECKING:
    from vitft.pictures.look import Look, Photo, Subject

NUM_IMAGES = 128
"""Images that the ViT paper takes attention distances over."""
POOL = 256
"""Training images among which neighbours are sought, evenly spaced; each costs a forward pass."""


def subject_of(loaded: Ready, named: str) -> Subject:
    """Return a checkpoint as something to be looked at."""
    from vitft.model.load import head_of
    from vitft.model.processor import normalisation
    from vitft.pictures.look import Subject
    from vitft.views.color import normalize

    mean, std = normalisation(loaded.processor)
    return Subject(
        model=loaded.model,
        processor=loaded.processor,
        normalise=lambda images: normalize(images.to(loaded.accelerator.device), mean, std),
        named=named,
        image_size=loaded.retargeting.new,
        head=head_of(loaded.model),
        has_head=loaded.has_head,
    )


class Photos:
    """The images to look at, read one by one.

    Attributes:
        source: where they come from, for the person.
        notes: what was noticed about them.
    """

    def __init__(
        self,
        loaded: Ready,
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
        self._loaded, self._show, self._skipped = loaded, show, self.notes if skip_bad else None
        self._max_pixels = (dataset if isinstance(dataset, DataRecipe) else DataRecipe()).max_pixels
        self._opened = _open(dataset) if dataset else None
        if images:
            self._paths = [str(path) for path in images][:num_images]
            self._asked, self.source = num_images or len(self._paths), "files"
            return
        self._paths, self._asked, self.source = [], num_images or NUM_IMAGES, ""
        if self._opened is not None:
            self._split = _choose_split(self._opened, split)
            self.source = f"of the {self._split.source_name or self._split.name} split of {short_name(self._opened.id)}"

    def read(self) -> Iterator[Photo]:
        """Yield the images to look at; the first ``show`` of a dataset come from all over it."""
        if self._paths:
            files = ((path, path, None) for path in self._paths)
            yield from read_photos(files, self._loaded, self._skipped, self._max_pixels)
        elif self._opened is not None:
            yield from self._rows(self._split, self._asked, self._show)

    def training(self) -> Iterator[Photo]:
        """Yield the training images among which neighbours are sought."""
        if self._opened is not None:
            yield from self._rows(self._opened.train, POOL)

    def _rows(self, split: Any, count: int, first: int = 0) -> Iterator[Photo]:
        assert self._opened is not None
        return evenly_spaced(
            split,
            self._opened.classes,
            self._loaded,
            count,
            first=first,
            skipped=self._skipped,
            max_pixels=self._max_pixels,
        )

    def note_few(self, seen: Look) -> None:
        """Note if there were fewer images than asked for, or than the paper takes."""
        found = seen.num_images
        if 0 < found < self._asked:
            self.notes.append(f"{found} of the {self._asked} images asked for were there")
        elif 0 < found < NUM_IMAGES and seen.layers:
            self.notes.append(f"attention is the mean over few images, {found}; the paper takes {NUM_IMAGES}")


def evenly_spaced(
    split: Any,
    classes: Sequence[str],
    loaded: Ready,
    count: int,
    *,
    first: int = 0,
    skipped: list[str] | None = None,
    max_pixels: int | None = None,
) -> Iterator[Photo]:
    """Yield images of a split, evenly spaced, and before the rest of them ``first`` that are so, too.

    Args:
        split: with random access.
        classes: names by number.
        loaded: whose image processor makes them.
        count: images at most.
        first: how many are to come from all over the split.
        skipped: gets a line for each image that cannot be read; None raises DataError.
        max_pixels: as the recipe's ``data.max_pixels``.
    """
    some = min(count, len(split))
    first = min(first, some)
    ahead = [place * some // first for place in range(first)]
    order = [*ahead, *(place for place in range(some) if place not in ahead)]
    places = (place * len(split) // some for place in order)
    rows = ((split.where(i), split.encoded(i), classes[split.labels[i]]) for i in places)
    return read_photos(rows, loaded, skipped, max_pixels)


def read_photos(
    encoded: Iterable[tuple[str, bytes | str, str | None]],
    loaded: Ready,
    skipped: list[str] | None,
    max_pixels: int | None = None,
) -> Iterator[Photo]:
    """Yield images as a model gets them.

    Args:
        encoded: (name, file or its path, class) of each.
        loaded: whose image processor makes them.
        skipped: gets a line for each image that cannot be read; None raises DataError.
        max_pixels: as the recipe's ``data.max_pixels``.
    """
    from vitft.data.staging import MAX_PIXELS, BadImage, decode
    from vitft.model.processor import takes_bgr
    from vitft.pictures.look import Photo

    process, bgr = loaded.process, takes_bgr(loaded.processor)
    for name, content, label in encoded:
        try:
            pixels = process(decode(content, max_pixels or MAX_PIXELS, process.white_level)[0])
        except BadImage as error:
            if skipped is None:
                hint = "mend or remove it, or pass over such images with --bad-images skip"
                raise DataError(f"{name} cannot be used: {error.wrong}", hint=hint) from error
            skipped.append(f"passed over {name}: {error.wrong}")
            continue
        shown_as = printable(name if label else Path(name).name)
        yield Photo(shown_as, pixels, printable(label) if label else None, bgr)


def _open(dataset: str | DataRecipe) -> Any:
    from vitft.reading.source import open_source

    data = DataRecipe(dataset=dataset) if isinstance(dataset, str) else dataset
    if data.streaming:
        raise DataError("pictures need images from all over a dataset, not a stream", hint="leave --streaming")
    return open_source(data, seed=0)


def _choose_split(source: Any, wanted: str | None) -> Any:
    """Return the split that was named by its role or its own name; test if none was, else validation."""
    splits = {role: split for role in ("test", "validation", "train") if (split := getattr(source, role)) is not None}
    if wanted is None:
        return next(iter(splits.values()))
    for role, split in splits.items():
        if wanted in (role, split.source_name):
            return split
    raise UsageError(f"the dataset has no split {wanted!r}", allowed=", ".join(splits), hint="--split NAME")

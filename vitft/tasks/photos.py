"""What pictures are taken of: a model on its device, and images one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitft.errors import DataError, UsageError
from vitft.recipe import DataRecipe
from vitft.tasks.shared import Ready

if TYPE_CHECKING:
    from vitft.pictures.look import Photo, Subject

NUM_IMAGES = 128
"""Images that the ViT paper takes attention distances over."""
POOL = 512
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
        skip_bad: bool,
    ) -> None:
        self.notes: list[str] = []
        self._process, self._skip_bad = loaded.process, skip_bad
        self._bgr = _takes_bgr(loaded.processor)
        self._opened = _open(dataset) if dataset else None
        if images:
            self._paths = [str(path) for path in images][:num_images]
            self._asked, self.source = num_images or len(self._paths), "files given"
            return
        self._paths, self._asked, self.source = [], num_images or NUM_IMAGES, ""
        if self._opened is not None:
            self._split = _choose_split(self._opened, split)
            self.source = f"of the {self._split.source_name or self._split.name} split of {self._opened.id}"

    def read(self) -> Iterator[Photo]:
        """Yield the images to look at."""
        if self._paths:
            yield from self._each((path, path, None) for path in self._paths)
        elif self._opened is not None:
            yield from self._rows(self._split, self._asked)

    def training(self) -> Iterator[Photo]:
        """Yield the training images among which neighbours are sought."""
        if self._opened is not None:
            yield from self._rows(self._opened.train, POOL)

    def note_few(self, found: int, kinds: Sequence[str]) -> None:
        """Note if there were fewer images than asked for, or than the paper takes."""
        if 0 < found < self._asked:
            self.notes.append(f"{found} images were there, fewer than the {self._asked} asked for")
        elif 0 < found < NUM_IMAGES and "distance" in kinds:
            self.notes.append(f"distances are means over {found} images; the paper takes {NUM_IMAGES}")

    def _rows(self, split: Any, count: int) -> Iterator[Photo]:
        """Yield so many images of a split, evenly spaced."""
        assert self._opened is not None
        some = min(count, len(split))
        classes = self._opened.classes
        places = (place * len(split) // some for place in range(some))
        yield from self._each((split.where(i), split.encoded(i), classes[split.labels[i]]) for i in places)

    def _each(self, encoded: Iterable[tuple[str, bytes | str, str | None]]) -> Iterator[Photo]:
        from vitft.data.staging import BadImage, decode
        from vitft.pictures.look import Photo

        for name, content, label in encoded:
            try:
                pixels = self._process(decode(content)[0])
            except BadImage as error:
                if not self._skip_bad:
                    hint = "mend or remove it, or pass over such images with --bad-images skip"
                    raise DataError(f"{name} cannot be used: {error.wrong}", hint=hint) from error
                self.notes.append(f"passed over {name}: {error.wrong}")
                continue
            yield Photo(Path(name).name if not label else name, pixels, label, self._bgr)


def _takes_bgr(processor: Any) -> bool:
    from vitft.model.processor import takes_bgr

    return takes_bgr(processor)


def _open(dataset: str | DataRecipe) -> Any:
    from vitft.data.source import open_source

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

"""The split and class of each folder of images."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from vitft.errors import DataError
from vitft.reading.words import Role, in_order

UNSPLIT = "train"
"""Name of the only split, if a source names no splits."""
MASKS = "masks and annotations, not images"
OUTSIDE = "outside the split folders"
STRAY = "outside the class folders"
SHALLOW = "no folder at the level of the classes"


@dataclass
class Places:
    """What the folders of a listing say about their images.

    Attributes:
        split_of: the split of each folder with images, by its own name.
        class_of: the class of each such folder; None if its images are not in a class folder.
        left_out: folders whose images are not read, each with the reason.
        roles: what each split is for, if its name says so.
        has_splits: whether the folders name splits.
        labels_from: a description of where labels come from.
        notes: what the user should know.
        problem: the error to raise if nothing but the folders gives classes.
    """

    split_of: dict[str, str] = field(default_factory=dict)
    class_of: dict[str, str | None] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    roles: dict[str, Role | None] = field(default_factory=dict)
    has_splits: bool = False
    labels_from: str = ""
    notes: list[str] = field(default_factory=list)
    problem: DataError | None = None

    def without_classes(self) -> Places:
        """Return the same splits without classes, as tables give the classes."""
        folders = [*self.class_of, *(path for path, reason in self.left_out.items() if reason in (STRAY, SHALLOW))]
        left_out = {path: reason for path, reason in self.left_out.items() if reason not in (STRAY, SHALLOW)}
        return replace(self, class_of=dict.fromkeys(folders), left_out=left_out, problem=None)

    @property
    def classes(self) -> list[str]:
        """The classes, sorted."""
        return in_order({name for name in self.class_of.values() if name is not None})


@dataclass
class Folder:
    """A folder with images: its path, and the part of it below the split.

    ``rest`` holds the names that may be classes, and ``levels`` the level of each in the path, starting at 1.
    """

    path: str
    parts: tuple[str, ...]
    num_images: int
    split: str = UNSPLIT
    rest: tuple[str, ...] = ()
    levels: tuple[int, ...] = ()

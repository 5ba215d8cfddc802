"""List the files below a folder, the same for training, `predict` and `inspect`.

Hidden files and leftovers of archives and notebooks are skipped and counted. Links are followed, except to a folder
that contains them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from vitft.errors import DataError

IMAGE_SUFFIXES = frozenset({
    ".apng", ".avif", ".bmp", ".dib", ".gif", ".ico", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm",
    ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp",
})  # fmt: skip
HIDDEN = "hidden files and folders"
NOT_UTF8 = "names that are not UTF-8"
NOT_FILES = "neither a file nor a folder (a pipe, a device)"
_JUNK = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "lost+found")  # left by macOS archives, Synology, Windows, fsck
_VISITS = 64  # how often links may lead to the same folder


@dataclass
class Listing:
    """The contents of a folder. All paths are relative to it, with ``/`` between their parts.

    Attributes:
        root: the folder itself.
        images: the names of the image files in each folder (``""`` is the root), sorted.
        others: the paths of all other files, sorted.
        left_out: image files that are not read, by reason.
        loops: links that are not followed, because they lead to a folder that contains them.
        links: the targets of images and folders that are links.
        empty: folders with nothing in them.
        dead: broken links whose names look like those of folders.
    """

    root: str
    images: dict[str, list[str]] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    loops: list[str] = field(default_factory=list)
    links: dict[str, str] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)

    @property
    def num_images(self) -> int:
        """The number of image files that are read."""
        return sum(map(len, self.images.values()))

    def real_path(self, path: str) -> str:
        """Return where an image really is, following links, including those of the folders above it."""
        if path in self.links:
            return self.links[path]
        folder = path
        while folder := folder.rpartition("/")[0]:
            if folder in self.links:
                return self.links[folder] + path[len(folder) :]
        return join(os.path.realpath(self.root), path)

    def paths(self) -> list[str]:
        """Return the paths of all image files, sorted."""
        return sorted(join(folder, name) for folder, names in self.images.items() for name in names)


def is_image_name(name: str) -> bool:
    """Return whether a file's name ends like an image's."""
    return name[name.rfind(".") :].lower() in IMAGE_SUFFIXES


def join(folder: str, name: str) -> str:
    """Return the path of a file in a folder of a listing."""
    return f"{folder}/{name}" if folder else name


def list_folder(root: str) -> Listing:
    """List a folder and everything below it.

    Raises:
        DataError: if a folder cannot be read.
    """
    listing = Listing(root)
    visits: dict[str, int] = {}
    # A folder to visit: its path, its name in the listing, why its images are left out, and the real folders
    # on the way here: the target of each followed link, and last the current one.
    waiting: list[tuple[str, str, str, tuple[str, ...]]] = [(root, "", "", (os.path.realpath(root),))]
    while waiting:
        path, folder, reason, way = waiting.pop()
        images: list[str] = []
        is_empty = True
        for entry in _entries(path):
            is_empty = False
            why = reason or _why_left_out(entry.name)
            inside = join(folder, entry.name)
            if _is_folder(entry):
                real = f"{way[-1]}{os.sep}{entry.name}"
                onward = (*way[:-1], real)
                if entry.is_symlink():
                    real = os.path.realpath(entry.path)
                    visits[real] = visits.get(real, 0) + 1
                    if visits[real] > _VISITS or any(f"{place}{os.sep}".startswith(f"{real}{os.sep}") for place in way):
                        listing.loops.append(inside)
                        continue
                    onward = (*way, real)
                    if not why:
                        listing.links[inside] = real
                waiting.append((entry.path, inside, why, onward))
            elif entry.is_symlink() and "." not in entry.name and not os.path.exists(entry.path):  # noqa: PTH110
                if not why:
                    listing.dead.append(inside)
            elif not is_image_name(entry.name):
                if not why and (_is_file(entry) or entry.is_symlink()):  # reading a pipe would never end
                    listing.others.append(inside)
            elif not why and not _is_file(entry) and not entry.is_symlink():
                listing.left_out.setdefault(NOT_FILES, []).append(inside)
            elif why:
                listing.left_out.setdefault(why, []).append(inside)
            else:
                images.append(entry.name)
                if entry.is_symlink():
                    listing.links[inside] = os.path.realpath(entry.path)
        if images:
            listing.images[folder] = sorted(images)
        elif is_empty and folder and not reason:
            listing.empty.append(folder)
    listing.others.sort()
    return listing


def image_files(folder: str) -> list[str]:
    """Return the sorted paths of all image files below a folder, the same files as in training."""
    return [os.path.normpath(os.path.join(folder, path)) for path in list_folder(folder).paths()]  # noqa: PTH118


def describe_left_out(left_out: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield a sentence for each reason why images are left out, with the number of images and the first one."""
    for reason, paths in left_out.items():
        first = min(paths).encode("utf-8", "backslashreplace").decode()
        yield f"{count(len(paths), 'image')} left out: {reason} ({first}{', ...' if len(paths) > 1 else ''})"


def count(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 image``, ``2,000 images``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _entries(path: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return list(entries)
    except OSError as error:
        raise DataError(f"cannot read the folder {path}: {error.strerror}", hint=f"ls -ld {path}") from error


def _why_left_out(name: str) -> str:
    if name.startswith(".") or name in _JUNK:
        return HIDDEN
    if not name.isascii():
        try:
            name.encode()
        except UnicodeEncodeError:  # how Python represents bytes that are not text
            return NOT_UTF8
    return ""


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False

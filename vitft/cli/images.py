"""Find the images that a command line names: files, folders, globs."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from vitft.errors import UsageError
from vitft.files import exists, is_file, is_folder
from vitft.reading.listing import IMAGE_SUFFIXES, image_files


def expand_images(arguments: Sequence[str]) -> Iterator[str]:
    """Yield the files that the arguments name, each once, sorted within a folder or glob."""
    seen: set[str] = set()
    for argument in arguments:
        if is_folder(argument):
            found = _images_of(argument)
        elif not exists(argument) and glob.has_magic(argument):
            found = sorted(path for path in glob.glob(argument, recursive=True) if is_file(path))  # noqa: PTH207
            if not found:
                raise UsageError(f"nothing matches {argument}", allowed="image files, folders or globs")
        else:
            found = [argument]  # a missing file is reported later, in its place
        for path in found:
            if path not in seen:
                seen.add(path)
                yield path


def _images_of(folder: str) -> list[str]:
    """Return the image files of a folder and its subfolders, except those that cannot be listed."""
    path = Path(folder)
    if path.resolve() == Path(path.resolve().anchor):
        raise UsageError(
            f"{folder} is the whole file system",
            allowed="image files, folders or globs",
            hint="name a folder of images",
        )
    if not os.access(path, os.R_OK | os.X_OK):
        raise UsageError(f"the folder {folder} cannot be read", hint=f"ls -ld {folder}")
    found = image_files(folder)
    if not found:
        raise UsageError(f"the folder {folder} contains no images", allowed=", ".join(sorted(IMAGE_SUFFIXES)))
    return found

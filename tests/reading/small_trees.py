"""Small trees of files, on the disk or only described."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from golden import bmp

from vitft.reading.listing import Listing, list_folder


def write(root: Path, files: Mapping[str, str | bytes | int]) -> Path:
    """Write files by their paths below a folder: text, bytes, or an image of the number."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = bmp(content) if isinstance(content, int) else content.encode() if isinstance(content, str) else content
        path.write_bytes(data)
    return root


def images(root: Path, *paths: str) -> Path:
    """Write an image of its own at each path."""
    return write(root, {path: number for number, path in enumerate(paths)})


def listed(root: Path) -> Listing:
    return list_folder(str(root))


def described(counts: Mapping[str, int], suffix: str = "jpg") -> Listing:
    """Return the listing of a folder that is not there, with so many images in each folder."""
    names = {place: [f"{number}.{suffix}" for number in range(count)] for place, count in counts.items()}
    return Listing("/photos", names)

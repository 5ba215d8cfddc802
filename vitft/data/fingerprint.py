"""A dataset's fingerprint: it follows rows, order, labels and classes, and is the same on every machine.

`datasets` has fingerprints too, but they follow cache folders, time stamps and versions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vitft.data.images import ImageSplit, encoded_image
from vitft.files import read_regular

_HASHED_WHOLE = 64 * 2**20  # bytes of images up to which all are read
_HASHED_ROWS = 128  # beyond that, as many rows, evenly spaced


def fingerprint(columns: Mapping[str, Any], splits: Mapping[str, ImageSplit], classes: Sequence[str]) -> str:
    """Hash classes, labels, row numbers, and of each image its size and file name.

    Sizes and names are read without reading images. Of the images themselves all are hashed if they are small
    together, else evenly spaced ones: enough to notice another version, not every changed pixel.

    Args:
        columns: the arrow column of all images of a split, by the source's own name of the split.
        splits: the splits in use, by role.
        classes: the class names.
    """
    digest = hashlib.blake2b("\0".join(classes).encode(), digest_size=16)
    content: dict[str, bytes] = {}  # a carved validation split shares its source with train
    for role, split in sorted(splits.items()):
        name = split.source_name
        if name not in content:
            content[name] = _content_digest(columns[name], split.folders)
        digest.update(f"\0{role}\0".encode() + content[name])
        digest.update(split.source_rows.astype("<i8").tobytes() + split.labels.astype("<i8").tobytes())
    return digest.hexdigest()


def _content_digest(column: Any, folders: Sequence[str]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    n = len(column)
    content = pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column
    if pa.types.is_string(content.type) or pa.types.is_large_string(content.type) or content.null_count:
        for value in column:  # paths; a row that holds bytes after all is hashed with its size
            image = encoded_image(value.as_py(), folders)
            digest.update(_named_size(image).encode() if isinstance(image, str) else f"{len(image)}".encode())
        total = None
    else:
        sizes = pc.binary_length(content).to_numpy().astype("<i8")
        digest.update(sizes.tobytes())
        total = int(sizes.sum())
    whole = total is not None and total <= _HASHED_WHOLE
    sampled = range(n) if whole else np.unique(np.linspace(0, n - 1, min(n, _HASHED_ROWS)).astype(int)).tolist()
    for index in sampled:
        image = encoded_image(column[index].as_py(), folders)
        digest.update(_read_quietly(image) if isinstance(image, str) else image)
    return digest.digest()


def _named_size(path: str) -> str:
    """Return a file's size and the last two parts of its path, which are the same wherever a dataset lies."""
    try:
        size = Path(path).stat().st_size
    except (OSError, ValueError):  # ValueError: a null byte in the name
        size = -1
    return f"{'/'.join(Path(path).parts[-2:])}\0{size}\0"


def _read_quietly(path: str) -> bytes:
    try:
        return read_regular(path, 2**30)
    except OSError:
        return b""  # staging meets it, names it and follows data.bad_images

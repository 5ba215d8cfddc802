"""Fingerprint a dataset by its rows, order, labels and classes, the same on every machine.

`datasets` has fingerprints too, but they depend on cache folders, time stamps and versions.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence

import numpy as np

from vitft.data.images import ImageSplit
from vitft.files import read_regular
from vitft.reading.encoded import EncodedImages

_HASHED_WHOLE = 64 * 2**20  # bytes: if the images are smaller in total, all of them are read
_HASHED_ROWS = 128  # otherwise, this many evenly spaced rows
_MANY_ROWS = 2**24  # of more rows than this, hashing a number for each takes seconds


def fingerprint(images: Mapping[str, EncodedImages], splits: Mapping[str, ImageSplit], classes: Sequence[str]) -> str:
    """Hash classes, labels, row numbers, and the size and file name of each image.

    The contents are hashed too: of all images if they are small in total, otherwise of evenly spaced ones. That
    is enough to notice another version of the dataset, but not every changed pixel.

    Args:
        images: all images of each split, by the source's own name for it.
        splits: the splits in use, by role.
        classes: the class names.
    """
    digest = hashlib.blake2b("\0".join(classes).encode(), digest_size=16)
    content: dict[str, bytes] = {}  # a carved validation split has the same source as train
    for role, split in sorted(splits.items()):
        name = split.source_name
        if name not in content:
            content[name] = _content_digest(images[name])
        digest.update(f"\0{role}\0".encode() + content[name])
        _add_rows(digest, split)
    return digest.hexdigest()


def _add_rows(digest: hashlib.blake2b, split: ImageSplit) -> None:
    """Hash row numbers and labels; of many millions the rows left out, and labels of half as many bytes."""
    numbers, kind = split.row_numbers, "<i8"
    listed = numbers.chunks()
    if len(split) > _MANY_ROWS and numbers.listed is None:
        listed, kind = iter([numbers.left_out, np.array([len(split)])]), "<i4"
    for chunk in listed:
        digest.update(np.ascontiguousarray(chunk, dtype="<i8").data)
    for chunk in split.label_chunks():
        digest.update(np.ascontiguousarray(chunk, dtype=kind).data)


def _content_digest(images: EncodedImages) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    n = len(images)
    if images.are_bytes:
        digest.update(images.sizes.astype("<i8").tobytes())
    else:
        for path, size in zip(images.paths, images.sizes.tolist(), strict=True):
            digest.update(f"{size}".encode() if path is None else f"{_ending(path)}\0{size}\0".encode())
    whole = images.are_bytes and int(images.sizes.sum()) <= _HASHED_WHOLE
    sampled = range(n) if whole else np.unique(np.linspace(0, n - 1, min(n, _HASHED_ROWS)).astype(int)).tolist()
    for index in sampled:
        image = images.at(index)
        digest.update(_read_quietly(image) if isinstance(image, str) else image)
    return digest.digest()


def _ending(path: str) -> str:
    """Return the last two parts of a path, which do not depend on where a dataset is stored."""
    return "/".join(path.rsplit(os.sep, 2)[-2:])


def _read_quietly(path: str) -> bytes:
    try:
        return read_regular(path, 2**30)
    except OSError:
        return b""  # staging will report it, as data.bad_images says

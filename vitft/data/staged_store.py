"""Staged images in a store, so that an image is decoded once and not in every epoch.

An image found here has the bits that decoding it again would give. Images that cannot be decoded, or only with a note,
are not kept: they are met anew each time, and are skipped, replaced and noted as without a store.
"""

from __future__ import annotations

import os
import struct
import zlib

import numpy as np
import torch
from torch import Tensor

from vitft.data.row_numbers import RowNumbers
from vitft.data.store import Store

_FACTS = struct.Struct("<4I")  # height and width as staged, height and width of the original
_STAMP = struct.Struct("<QQ")
_MOST_MISSING = 0.01


class StagedStore:
    """The staged images of a split. Can be sent to other processes.

    Args:
        store: with slots of at least 3 * height * width bytes.
        slots: which slots the rows of the split have.
        name: what it is, for messages.
    """

    def __init__(self, store: Store, slots: RowNumbers, name: str) -> None:
        self.store, self.slots, self.name = store, slots, name
        self._is_off = self._is_full = False
        self._news = ""

    def find(self, row: int, stamp: bytes | None) -> tuple[Tensor, tuple[int, int]] | None:
        """Return the pixels of a row, uint8 (3, h, w), and the original's height and width; None if not kept."""
        if stamp is None or self._is_off:
            return None
        try:
            found = self.store.read(self.slots[row], stamp)
        except OSError as error:
            self._is_off, self._news = True, f"not used any more, because it cannot be read: {_reason(error)}"
            return None
        if found is None:
            return None
        content, facts = found
        height, width, *original = _FACTS.unpack(facts)
        if len(content) != 3 * height * width:
            return None
        return torch.frombuffer(content, dtype=torch.uint8).view(3, height, width), (original[0], original[1])

    def keep(self, row: int, stamp: bytes | None, pixels: Tensor, original: tuple[int, int]) -> None:
        """Keep the pixels of a row; after an error, such as a full disk, nothing more is kept."""
        if stamp is None or self._is_off or self._is_full or pixels.numel() > self.store.slot_bytes:
            return
        facts = _FACTS.pack(*pixels.shape[1:], *original)
        try:
            self.store.write(self.slots[row], stamp, facts, pixels.contiguous().numpy())
        except OSError as error:
            self._is_full, self._news = True, f"nothing more is written to it: {_reason(error)}"

    def take_news(self) -> str:
        """Return why it was turned off since the last call, empty if it was not."""
        news, self._news = self._news, ""
        return news

    def has_nearly_all(self, rows: range) -> bool:
        """Whether at most one in a hundred of some rows is missing, so that hardly anything is left to decode."""
        try:
            filled = self.store.filled()
        except OSError:
            return False
        slots = self.slots.at(np.arange(rows.start, rows.stop))
        kept = filled[slots[slots < len(filled)]].sum()
        return bool(len(slots) - kept <= _MOST_MISSING * len(slots))


def stamp_of(encoded: bytes | str) -> bytes | None:
    """Return what tells an image from what it is after a change; None for a file that cannot be looked at.

    For a file these are its time of change and its size and path, for bytes their number and checksum.
    """
    if isinstance(encoded, bytes):
        return _STAMP.pack(zlib.crc32(encoded), len(encoded))
    try:
        found = os.stat(encoded)  # noqa: PTH116 - this runs for every image, and pathlib takes longer
    except (OSError, ValueError):
        return None
    path = zlib.crc32(os.fsencode(encoded))
    return _STAMP.pack(found.st_mtime_ns & (2**64 - 1), (found.st_size & (2**32 - 1)) << 32 | path)


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__

"""A store: numbered slots of bytes in two files, shared by any number of processes and trusted by none of them.

The slots hold what took time to compute and can be computed again. Whoever computes a slot writes it, with ``pwrite``;
the record that makes it readable comes second and has a checksum over everything. So a reader finds a slot whole or
not at all, whatever happened to its writer: killed, out of disk space, another one at the same slot, a power cut. A
file mapped into memory would be faster by a copy, but a full or shortened one then ends the process (SIGBUS).

The stamp of a slot says what it was computed from. A slot with another stamp counts as empty.
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = 1
"""To be raised when the files change."""
SLOTS, INDEX = "slots", "index"
IS_SUPPORTED = all(hasattr(os, name) for name in ("preadv", "pwrite", "fstatvfs"))  # Windows has none of them
STAMP_BYTES = FACTS_BYTES = 16
_CHECKSUM = struct.Struct("<I")
_HEADER = struct.Struct(f"<I{STAMP_BYTES}s{FACTS_BYTES}s")  # bytes in use (0: an empty slot), stamp, facts
_RECORD_BYTES = _CHECKSUM.size + _HEADER.size


class Store:
    """The slots in a folder. Can be sent to other processes; each opens the files for itself.

    Args:
        folder: an existing folder.
        slot_bytes: the most bytes of a slot. Both files are sparse: an unused slot takes no disk space.
        most_bytes: the disk space up to which slots are written.
        leave_free: bytes of the disk that must stay free.
    """

    def __init__(self, folder: Path, slot_bytes: int, most_bytes: int, leave_free: int = 0) -> None:
        self.folder, self.slot_bytes = folder, slot_bytes
        self.most_bytes, self.leave_free = most_bytes, leave_free
        self._descriptors: dict[str, int] = {}

    def read(self, slot: int, stamp: bytes) -> tuple[bytearray, bytes] | None:
        """Return the content and the facts of a slot, or None if it was not written whole, and with this stamp.

        Raises:
            OSError: if the files cannot be read.
        """
        index = self._open(INDEX)
        record = os.pread(index, _RECORD_BYTES, slot * _RECORD_BYTES)
        if len(record) < _RECORD_BYTES:
            return None
        length, stored, facts = _HEADER.unpack_from(record, _CHECKSUM.size)
        if not 0 < length <= self.slot_bytes or stored != stamp:
            return None
        content = bytearray(length)
        if os.preadv(self._open(SLOTS), [content], slot * self.slot_bytes) < length:
            return None
        if zlib.crc32(content, zlib.crc32(record[_CHECKSUM.size :])) != _CHECKSUM.unpack_from(record)[0]:
            return None
        return content, facts

    def write(self, slot: int, stamp: bytes, facts: bytes, content: np.ndarray) -> None:
        """Fill a slot.

        Args:
            slot: its number.
            stamp: what the content was computed from; 16 bytes.
            facts: up to 16 bytes to keep with the content.
            content: 1 to ``slot_bytes`` bytes, contiguous.

        Raises:
            OSError: if it cannot be written, or there is no room for it.
        """
        assert len(stamp) == STAMP_BYTES and len(facts) <= FACTS_BYTES and 0 < content.nbytes <= self.slot_bytes
        slots, index = self._open(SLOTS), self._open(INDEX)
        self._require_room(slots)
        header = _HEADER.pack(content.nbytes, stamp, facts)
        _write(slots, memoryview(content.data), slot * self.slot_bytes)
        _write(
            index,
            memoryview(_CHECKSUM.pack(zlib.crc32(content.data, zlib.crc32(header))) + header),
            slot * _RECORD_BYTES,
        )

    def filled(self) -> np.ndarray:
        """Return for each slot up to the last one in use whether it was written: bool, (n,).

        Only the records are read, so the content of a few may prove damaged.
        """
        return filled_slots(self.folder)

    def close(self) -> None:
        """Close the files of this process."""
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

    def _require_room(self, slots: int) -> None:
        disk = os.fstatvfs(slots)
        if disk.f_bavail * disk.f_frsize <= self.leave_free:
            raise OSError(errno.ENOSPC, "too little room is left on its disk")
        if os.fstat(slots).st_blocks * 512 >= self.most_bytes:
            raise OSError(errno.EFBIG, "it has reached its limit")

    def _open(self, name: str) -> int:
        if name not in self._descriptors:
            path = self.folder / name
            try:
                self._descriptors[name] = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except PermissionError:
                self._descriptors[name] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        return self._descriptors[name]

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open files behind."""
        return {**vars(self), "_descriptors": {}}


def filled_slots(folder: Path) -> np.ndarray:
    """Return for each slot of a store up to the last one in use whether it was written: bool, (n,)."""
    content = np.frombuffer((folder / INDEX).read_bytes(), dtype=np.uint8)
    records = content[: len(content) // _RECORD_BYTES * _RECORD_BYTES].reshape(-1, _RECORD_BYTES)
    return np.asarray(records[:, _CHECKSUM.size : _CHECKSUM.size + 4].any(axis=1))


def expected_bytes(content_bytes: float, slot_bytes: int, num_slots: int) -> int:
    """Return the disk space that slots with ``content_bytes`` each will take: whole pages, at most the whole file."""
    page = 4096
    return int(num_slots * (min((content_bytes // page + 2) * page, slot_bytes) + _RECORD_BYTES)) + 4 * page


def _write(descriptor: int, content: memoryview, offset: int) -> None:
    content = content.cast("B")
    while content.nbytes:
        written = os.pwrite(descriptor, content, offset)
        content, offset = content[written:], offset + written

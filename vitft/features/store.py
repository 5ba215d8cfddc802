"""Features in the cache, so that another run with the same images, backbone and settings skips the backbone.

A slot holds what the head reads of a row, in all views, or why the row was skipped. Notes on images that are used stand
in as many slots after those. The features of a split are read if every row of it is there, with the stamp that its
image has now; otherwise all are computed again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from types import TracebackType
from typing import Any

import numpy as np
import torch

from vitft.data.batches import RowNote
from vitft.data.cache import Cache, NoCache, OpenStore, disk_folder
from vitft.data.images import ImageSplit
from vitft.data.staged_store import stamp_of
from vitft.data.store import IS_SUPPORTED, expected_bytes
from vitft.errors import one_line
from vitft.features.features import Features

_VERSION = 1  # of what is computed; raise it with every change to the numbers
_VALUES, _NOTED, _SKIPPED = b"\1", b"\2", b"\3"
_LEAST_BYTES = 1024  # of a slot, which may have to hold a note


class FeatureStore:
    """The stored features of one split.

    Args:
        facts: what the features depend on besides the images, as JSON values; with ``dataset`` and ``what`` as texts.
        split: the images.
        shape: of the values, (V, N, ...).
        limit: bytes of all that the cache holds.
        note: prints a line and records it in the run.
        model: the backbone's name, for people; ``facts`` say which it is.
    """

    def __init__(
        self, facts: dict[str, Any], split: ImageSplit, shape: tuple[int, ...], limit: int,
        note: Callable[[str], None], *, model: str,
    ) -> None:  # fmt: skip
        self._split, self._shape, self._note = split, shape, note
        self._store: OpenStore | None = None
        key = json.loads(json.dumps({"features": _VERSION, **facts}, sort_keys=True, default=str))
        content = 4 * shape[0] * int(np.prod(shape[2:]))
        slot_bytes = max(content, _LEAST_BYTES)
        if not IS_SUPPORTED:
            return
        try:
            expected = expected_bytes(content, slot_bytes, len(split))
            self._store = Cache(disk_folder(), limit).open(key, slot_bytes, expected, model=model)
        except NoCache as error:
            note(f"features of {split.name} are not stored, and the next run computes them again: {one_line(error)}")

    def __enter__(self) -> FeatureStore:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close the store."""
        if self._store is not None:
            self._store.close()

    def load(self) -> Features | None:
        """Return the features; None unless every row is there as it was written."""
        if self._store is None:
            return None
        try:
            return self._read(self._store)
        except (OSError, ValueError, TypeError) as error:
            self._note(f"stored features of {self._split.name} cannot be read, so they are computed: {one_line(error)}")
            return None

    def save(self, features: Features) -> None:
        """Write features; a failure is only noted."""
        if self._store is None:
            return
        try:
            for row in range(len(self._split)):
                self._write(self._store, features, row)
        except OSError as error:
            self._note(
                f"features of {self._split.name} are not stored, and the next run computes them again: "
                f"{error.strerror or one_line(error)}"
            )

    def _read(self, store: OpenStore) -> Features | None:
        num_rows, values = len(self._split), torch.zeros(self._shape)
        skipped: list[RowNote] = []
        notes: list[RowNote] = []
        for row in range(num_rows):
            stamp = stamp_of(self._split.encoded(row))
            found = store.read(row, stamp) if stamp is not None else None
            if found is None:
                return None
            content, kind = found[0], found[1][:1]
            if kind == _SKIPPED:
                skipped += _notes(content)
                continue
            values[:, row] = torch.frombuffer(content, dtype=torch.float32).view_as(values[:, row])
            if kind == _NOTED:
                more = store.read(num_rows + row, stamp or b"")
                if more is None:
                    return None
                notes += _notes(more[0])
        return Features.of(values, skipped, notes)

    def _write(self, store: OpenStore, features: Features, row: int) -> None:
        """Write a row, its notes first; what has no stamp or too long a note is left out."""
        stamp = stamp_of(self._split.encoded(row))
        if stamp is None:
            return
        notes, skipped = features.notes.get(row, ()), features.skipped.get(row)
        texts = _as_bytes([skipped] if skipped is not None else notes)
        if texts.nbytes > store.slot_bytes:
            return
        if skipped is not None:
            store.write(row, stamp, _SKIPPED, texts)
            return
        if notes:
            store.write(len(self._split) + row, stamp, b"", texts)
        store.write(row, stamp, _NOTED if notes else _VALUES, features.values[:, row].contiguous().numpy())


def _as_bytes(notes: Iterable[RowNote]) -> np.ndarray:
    return np.frombuffer(json.dumps([asdict(note) for note in notes]).encode(), dtype=np.uint8)


def _notes(content: bytearray) -> list[RowNote]:
    return [RowNote(**values) for values in json.loads(content.decode())]

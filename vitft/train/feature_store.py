"""Features on disk, so that another run with the same images, backbone and settings skips the backbone.

One file per split, ``features/<key>.safetensors`` in vitft's cache folder. The key is a hash of everything that the
features depend on, and the file says it in words too. A file is read only if it says exactly what is wanted and its
checksum is right; anything else is computed again.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vitft.architectures.blocks import is_within
from vitft.data.batches import RowNote
from vitft.disk import flush
from vitft.errors import one_line
from vitft.files import at_home
from vitft.model.classifier import Classifier
from vitft.train.features import Features

_VERSION = 1  # of what is computed; raise it with every change to the numbers
_MOST_BYTES = 20 * 10**9  # of all files; the ones unused for longest are removed
_ABANDONED = 24 * 3600  # seconds after which a half-written file belongs to no living process


def features_folder() -> Path:
    """Return the folder of stored features, in ``$VITFT_CACHE``, ``$XDG_CACHE_HOME/vitft`` or ``~/.cache/vitft``."""
    if chosen := os.environ.get("VITFT_CACHE"):
        return at_home(chosen) / "features"
    return at_home(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "vitft" / "features"


class FeatureStore:
    """The stored features of one split.

    Args:
        facts: what the features depend on, as JSON values.
        say: prints a line.
        note: prints a line and records it in the run.
    """

    def __init__(self, facts: dict[str, Any], say: Callable[[str], None], note: Callable[[str], None]) -> None:
        self._said = json.dumps({"version": _VERSION, **facts}, sort_keys=True, default=str)
        name = hashlib.blake2b(self._said.encode(), digest_size=16).hexdigest()
        self.path = features_folder() / f"{name}.safetensors"
        self._say, self._note = say, note

    def load(self, shape: tuple[int, ...]) -> Features | None:
        """Return the features with values of this shape; None if there are none, or if the file is damaged."""
        try:
            if not self.path.is_file():
                return None
            features = self._read(shape)
            with suppress(OSError):  # a folder that may only be read
                os.utime(self.path)
            return features
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            self._note(f"stored features are not usable and are computed again: {self.path}: {one_line(error)}")
            return None

    def save(self, features: Features) -> None:
        """Write features, completely or not at all; a failure is only noted."""
        size = features.values.nbytes
        if size > _MOST_BYTES:
            self._say(f"  features are not stored: more than {_MOST_BYTES / 1e9:.0f} GB")
            return
        partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")
        said = {
            "said": self._said,
            "crc32": _checksum(features.values),
            "skipped": _as_json(features.skipped.values()),
            "notes": _as_json(note for notes in features.notes.values() for note in notes),
        }
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _make_room(self.path.parent, _MOST_BYTES - size)
            save_file({"features": features.values}, partial, metadata=said)
            flush(partial)
            partial.replace(self.path)
        except (OSError, SafetensorError) as error:  # safetensors reports a full disk as its own error
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            self._note(f"features are not stored, and the next run computes them again: {one_line(error)}")

    def _read(self, shape: tuple[int, ...]) -> Features:
        with safe_open(self.path, framework="pt") as file:
            said = file.metadata() or {}
            values = file.get_tensor("features")
        if said["said"] != self._said:
            raise ValueError("it is about something else")
        if values.shape != shape or values.dtype != torch.float32:
            raise ValueError(f"it holds {values.dtype} {tuple(values.shape)}")
        if said["crc32"] != _checksum(values):
            raise ValueError("its checksum differs")
        return Features.of(values, _from_json(said["skipped"]), _from_json(said["notes"]))


def facts_about(classifier: Classifier, head: str, conditions: dict[str, Any]) -> dict[str, Any]:
    """Return what features depend on, as far as it is not the images: the frozen weights, the versions, the machine.

    Args:
        classifier: the model.
        head: name of the module whose input the features are; its own weights do not matter.
        conditions: precision, device, processes and the like.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(classifier.model.state_dict().items()):
        if not is_within(name, [head]):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    unimportant = ("_name_or_path", "transformers_version", "id2label", "label2id")
    config = {key: value for key, value in classifier.config.to_dict().items() if key not in unimportant}
    versions = {name: metadata.version(name) for name in ("torch", "transformers", "pillow")}
    return {"weights": digest.hexdigest(), "config": config, "versions": versions, **conditions}


def _checksum(values: Tensor) -> str:
    return f"{zlib.crc32(values.contiguous().numpy().data):08x}"


def _as_json(notes: Iterable[RowNote]) -> str:
    return json.dumps([asdict(note) for note in notes])


def _from_json(text: str) -> list[RowNote]:
    return [RowNote(**values) for values in json.loads(text)]


def _make_room(folder: Path, room: int) -> None:
    """Remove the files unused for longest, until the others take at most ``room`` bytes, and what was abandoned."""
    found = sorted(((path.stat(), path) for path in folder.glob("*.safetensors")), key=lambda each: -each[0].st_mtime)
    taken = 0
    for stat, path in found:
        taken += stat.st_size
        if taken > room:
            path.unlink(missing_ok=True)
    for path in folder.glob(".*.partial"):
        with suppress(FileNotFoundError):  # its process has just finished it
            if time.time() - path.stat().st_mtime > _ABANDONED:
                path.unlink()

"""Check downloaded Hub datasets: a file that differs from the Hub's is a damaged download, not a bad image.

The Hub's client checks only sizes. In the cache, a large file is named by its SHA-256, so it can be verified.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vitft.errors import DataError, VitftError, shorten
from vitft.reading.formats import split_of
from vitft.reading.shards import class_names
from vitft.reading.tars import open_tars
from vitft.retry import patiently

_CHECKED = "vitft-checked"
"""Name of the empty file beside a cached dataset that says its download has been verified."""
_COMMIT = re.compile(r"[0-9a-f]{40}")


def load_verified(hub_id: str, commit: str | None, load: Callable[[], Any]) -> Any:
    """Load a dataset and verify its files by SHA-256, once; download damaged ones again.

    Args:
        hub_id: its id on the Hub.
        commit: its commit, if known before loading.
        load: the function that loads it.

    Raises:
        DataError: naming a file that arrived damaged twice.
        Exception: whatever ``load`` raises that is not due to a damaged file.
    """
    damaged: list[str] = []
    for _ in range(2):
        try:
            opened = patiently(load)
        except VitftError:
            raise
        except Exception:  # a flipped bit can raise anything
            damaged = _remove_damaged(hub_id, commit) if commit else []
            if not damaged:
                raise
            continue
        place = _cache_folder(opened)
        if place is None or (place / _CHECKED).exists():
            return opened
        damaged = _remove_damaged(hub_id, place.name)
        if not damaged:
            with contextlib.suppress(OSError):  # a read-only cache is checked every time
                (place / _CHECKED).touch()
            return opened
        shutil.rmtree(place, ignore_errors=True)
    raise DataError(
        f"the download of {hub_id} arrived damaged twice: the SHA-256 of {damaged[0]} differs from the Hub's",
        hint="check the network (a proxy?) and the disk, and try again; the damaged file was removed",
    )


def refuse_mixed_names(opened: Mapping[str, Any], hub_id: str) -> None:
    """Raise if the files of a Hub dataset number the classes differently, as `datasets` would silently mix them."""
    place = _cache_folder(opened)
    if place is None:
        return
    groups: dict[tuple[Path, str], list[Path]] = {}
    for path in sorted(_snapshot(hub_id, place.name).rglob("*.parquet")):
        groups.setdefault((path.parent, split_of(path.name)), []).append(path)
    for paths in groups.values():
        for column, parts in class_names(paths, may_lack_names=True).items():  # a README may name them
            first, other = next((a, b) for (_, a), (_, b) in itertools.pairwise(parts) if a != b)
            raise DataError(
                f"the files of {hub_id} number the classes of {column!r} differently: {shorten(first, 4)}; and "
                f"{shorten(other, 4)}",
                allowed="files that agree, or a copy of the dataset in a folder, where vitft joins classes by name",
                hint=f"hf download --repo-type dataset {hub_id} --local-dir FOLDER, then --dataset FOLDER",
            )


def downloaded_tars(hub_id: str, commit: str | None) -> dict[str, Any]:
    """Return the webdataset tars of a Hub dataset in the cache as splits, read by our own reader."""
    splits: dict[str, list[str]] = {}
    for path in sorted(_snapshot(hub_id, commit).rglob("*.tar")) if commit else ():
        splits.setdefault(split_of(path.name), []).append(str(path))
    return {split: open_tars(paths, is_streaming=False) for split, paths in splits.items()}


def _snapshot(hub_id: str, commit: str) -> Path:
    """Return the folder of the Hub cache that holds a commit's files."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE, f"datasets--{hub_id.replace('/', '--')}", "snapshots", commit)


def _cache_folder(opened: Mapping[str, Any]) -> Path | None:
    """Return the cache folder of a dataset, which is named by its commit."""
    for rows in opened.values():
        for file in rows.cache_files:
            folder = Path(file["filename"]).parent
            if _COMMIT.fullmatch(folder.name):
                return folder
    return None


def _remove_damaged(hub_id: str, commit: str) -> list[str]:
    """Remove the cached files of a commit that differ from the Hub's, and return them."""
    damaged = []
    snapshot = _snapshot(hub_id, commit)
    for path in sorted(snapshot.rglob("*")):
        blob = path.resolve()
        if path.is_file() and re.fullmatch("[0-9a-f]{64}", blob.name):
            with blob.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != blob.name:
                    damaged.append(path.relative_to(snapshot).as_posix())
                    path.unlink()
                    blob.unlink(missing_ok=True)
    return damaged

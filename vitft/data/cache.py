"""The cache: a folder of stores that any run may use, add or remove.

Each store has a key, a JSON mapping of everything that its contents depend on; another key is another store. Keys
have ``dataset`` and ``what`` for people to read. A process that uses a store holds a shared lock on it, which ends
with the process, so a store that nobody uses is one whose lock can be taken alone. On a disk, the least recently used
of those are removed when a limit would be exceeded. In memory (``/dev/shm``), the last user removes a store; those of
killed users are removed by whoever comes next.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitft.data.store import FORMAT, INDEX, SLOTS, Store, filled_slots
from vitft.disk import remove_whole
from vitft.files import at_home
from vitft.quantities import size_text

_META, _LOCK = "meta.json", "lock"
_TRIES = 20
_NAME = re.compile(r"[a-z0-9\-]*-[0-9a-f]{12}")
_HALF = re.compile(rf"\.(vitft-.*\.partial|{_NAME.pattern}\.removed)")  # half made, or half removed
_ABANDONED = 3600  # seconds after which a store that is still being made will never be
_MEMORY = Path("/dev/shm")


class NoCache(OSError):  # noqa: N818 - a finding
    """A store cannot be used; the message says why. Everything can be computed without it."""


def disk_folder() -> Path:
    """Return the folder of the cache on the disk: ``$VITFT_CACHE``, else ``vitft`` in the user's cache folder."""
    if own := os.environ.get("VITFT_CACHE"):
        return at_home(own)
    return at_home(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "vitft"


def memory_folder() -> Path | None:
    """Return the folder of the cache in memory; None on systems without ``/dev/shm``."""
    if not _MEMORY.is_dir() or not os.access(_MEMORY, os.W_OK):
        return None
    return _MEMORY / f"vitft-{os.getuid()}"


@dataclass(frozen=True)
class Kept:
    """A store in the cache.

    Attributes:
        folder: its folder.
        dataset, what: from its key.
        model: the model that made its contents, as the run that made the store knew it; empty if none did.
        num_filled: the number of its slots that were written.
        num_bytes: its disk space.
        last_used: seconds since 1970.
        is_in_use: whether a process has it open.
    """

    folder: Path
    dataset: str
    what: str
    model: str
    num_filled: int
    num_bytes: int
    last_used: float
    is_in_use: bool

    @property
    def seconds_since_use(self) -> float:
        """Seconds since it was opened or closed."""
        return max(0.0, time.time() - self.last_used)


class Cache:
    """A folder of stores.

    Args:
        folder: made when it is first needed.
        limit: bytes of all stores together; None: no limit.
        is_temporary: remove each store when its last user closes it.
    """

    def __init__(self, folder: Path, limit: int | None = None, *, is_temporary: bool = False) -> None:
        self.folder, self.limit, self.is_temporary = folder, limit, is_temporary

    def open(self, key: Mapping[str, Any], slot_bytes: int, expected: int, *, model: str = "") -> OpenStore:
        """Open a store, or make it and, if necessary, room for it. It leaves half of the free disk space alone.

        Args:
            key: everything that the contents depend on, with ``dataset`` and ``what`` as texts.
            slot_bytes: the most bytes of a slot.
            expected: bytes that the store will have when it is filled.
            model: name of the model that makes the contents, for people; the key says which it is.

        Raises:
            NoCache: with the reason, if that is impossible.
        """
        try:
            self._make_folder()
            meta = {"format": FORMAT, "slot_bytes": slot_bytes, "key": dict(key)}
            folder = self.folder_of(key, slot_bytes)
            for _ in range(_TRIES):  # another process may remove what was just made, or make what was just removed
                room = self._make_room(folder, expected)
                if not folder.exists():
                    _make(folder, meta | {"model": model})
                if (lock := _lock(folder, alone=False)) is not None:
                    if _is_whole(folder, meta):
                        with suppress(OSError):  # a store that we may only read
                            (folder / _LOCK).write_text(str(expected))  # claims the room, and marks it as used now
                        leave_free = shutil.disk_usage(folder).free // 2
                        return OpenStore(folder, slot_bytes, room, leave_free, lock, is_temporary=self.is_temporary)
                    os.close(lock)
                    _remove(folder)
                time.sleep(0.02)
        except NoCache:
            raise
        except OSError as error:
            raise NoCache(f"{self.folder}: {error.strerror or error}") from error
        raise NoCache(f"{folder} is damaged, and in use")

    def stores(self) -> list[Kept]:
        """Return the stores, the most recently used first."""
        found = []
        for folder in self._folders():
            with suppress(OSError):  # removed while we look
                found.append(_look_at(folder))
        return sorted(found, key=lambda each: each.last_used, reverse=True)

    def remove(self, name: str) -> bool:
        """Remove a store, unless it is in use; return whether it was removed."""
        return _remove(self.folder / name)

    def folder_of(self, key: Mapping[str, Any], slot_bytes: int) -> Path:
        """Return the folder that the store with this key has, or would have."""
        return self.folder / _name({"format": FORMAT, "slot_bytes": slot_bytes, "key": dict(key)})

    def held_bytes(self, besides: Collection[Path] = ()) -> int:
        """Return the bytes that stores in use have or will have, which cannot be removed to make room for others."""
        return sum(_claimed_bytes(each) for each in self._folders() if each not in besides and _is_in_use(each))

    def _folders(self) -> list[Path]:
        """Return the folders of stores; what else lies in a folder that the user named is never touched."""
        if not self.folder.is_dir():
            return []
        return [each for each in self.folder.iterdir() if _NAME.fullmatch(each.name) and (each / INDEX).is_file()]

    def _make_folder(self) -> None:
        self.folder.mkdir(mode=0o700 if self.is_temporary else 0o777, parents=True, exist_ok=True)
        found = self.folder.lstat()
        if self.is_temporary and (not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid()):
            raise NoCache(f"{self.folder} belongs to somebody else")  # everybody may write in /dev/shm
        for left in self.folder.glob(".*"):
            with suppress(OSError):
                if _HALF.fullmatch(left.name) and time.time() - left.stat().st_mtime > _ABANDONED:
                    shutil.rmtree(left, ignore_errors=True)
        for folder in self._folders() if self.is_temporary else ():
            _remove(folder)

    def _make_room(self, wanted: Path, expected: int) -> int:
        """Remove the least recently used stores that nobody uses, until another fits; return the bytes it may have."""
        if self.limit is None:
            return 1 << 62
        others = sorted((each for each in self._folders() if each != wanted), key=_last_used)
        sizes = {each: _claimed_bytes(each) if _is_in_use(each) else used_bytes(each) for each in others}
        for each in others:
            if sum(sizes.values()) + expected <= self.limit:
                break
            if _remove(each):
                del sizes[each]
        room = self.limit - sum(sizes.values())
        if room < expected:
            raise NoCache(f"{size_text(expected)} is more than what data.cache_limit leaves, {size_text(max(0, room))}")
        return room


class OpenStore(Store):
    """A store that this process holds a lock on, until it is closed. Copies in other processes have no lock."""

    def __init__(
        self, folder: Path, slot_bytes: int, most_bytes: int, leave_free: int, lock: int, *, is_temporary: bool
    ) -> None:
        super().__init__(folder, slot_bytes, most_bytes, leave_free)
        self._lock: int | None = lock
        self._is_temporary, self._process = is_temporary, os.getpid()

    def close(self) -> None:
        """Close the files and give up the lock; the last user of a store in memory removes it."""
        super().close()
        if self._lock is None or self._process != os.getpid():
            return
        with suppress(OSError):  # a store that we may only read
            os.utime(self.folder / _LOCK)
        os.close(self._lock)  # before trying to be alone, so that of two who close at once, one is the last
        self._lock = None
        if self._is_temporary:
            _remove(self.folder)

    def __getstate__(self) -> dict[str, Any]:
        """Leave open files and lock behind."""
        return {**super().__getstate__(), "_lock": None}


def _name(meta: Mapping[str, Any]) -> str:
    """Return the folder's name of a store: words for people, and a hash of the key."""
    text = json.dumps(meta, sort_keys=True)
    words = f"{Path(str(meta['key']['dataset'])).name}-{meta['key']['what']}"
    slug = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")[:60]
    return f"{slug}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _make(folder: Path, meta: Mapping[str, Any]) -> None:
    """Make an empty store that appears whole, unless another process is faster."""
    partial = Path(tempfile.mkdtemp(prefix=".vitft-", suffix=".partial", dir=folder.parent))
    try:
        partial.chmod(folder.parent.stat().st_mode & 0o777)
        for name in (SLOTS, INDEX, _LOCK):
            (partial / name).touch()
        (partial / _META).write_text(json.dumps(meta, indent=1), encoding="utf-8")
        partial.rename(folder)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _is_whole(folder: Path, meta: Mapping[str, Any]) -> bool:
    found = _meta(folder)
    is_ours = isinstance(found, dict) and {name: found.get(name) for name in meta} == json.loads(json.dumps(meta))
    return is_ours and (folder / SLOTS).is_file() and (folder / INDEX).is_file()


def _meta(folder: Path) -> Any:
    try:
        return json.loads((folder / _META).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _lock(folder: Path, *, alone: bool) -> int | None:
    """Lock a store; return the descriptor that holds the lock, None if others are in the way or it is gone.

    ``flock``, not the POSIX lock of a run: a process may have a store open twice, and must not lock itself out of
    noticing it.
    """
    import fcntl

    path = folder / _LOCK
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        if os.path.samestat(path.stat(), os.fstat(descriptor)):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:  # interrupts too: the descriptor would keep the lock
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _is_in_use(folder: Path) -> bool:
    if (lock := _lock(folder, alone=True)) is None:
        return (folder / _LOCK).exists()
    os.close(lock)
    return False


def _remove(folder: Path) -> bool:
    """Remove a store that nobody uses; return whether it is gone."""
    try:
        lock = _lock(folder, alone=True)
        if lock is None and (folder / _LOCK).exists():
            return False
        remove_whole(folder)
    except OSError:
        return not folder.exists()
    if lock is not None:
        os.close(lock)
    return True


def used_bytes(folder: Path) -> int:
    """Return the disk space of a store; 0 if there is none."""
    total = 0
    for name in (SLOTS, INDEX):
        with suppress(OSError):
            total += (folder / name).stat().st_blocks * 512
    return total


def _claimed_bytes(folder: Path) -> int:
    """Return the bytes that a store has, or will have when its user has filled it."""
    try:
        claimed = int((folder / _LOCK).read_text())
    except (OSError, ValueError):
        claimed = 0
    return max(claimed, used_bytes(folder))


def _last_used(folder: Path) -> float:
    try:
        return (folder / _LOCK).stat().st_mtime
    except OSError:
        return 0.0


def _look_at(folder: Path) -> Kept:
    meta = _meta(folder)
    meta = meta if isinstance(meta, dict) else {}
    key = key if isinstance(key := meta.get("key"), dict) else {}
    return Kept(
        folder,
        str(key.get("dataset", "?")),
        str(key.get("what", "?")),
        str(meta.get("model", "")),
        int(filled_slots(folder).sum()),
        used_bytes(folder),
        _last_used(folder),
        _is_in_use(folder),
    )

"""A folder of stores: who uses which, what makes room for what, what a killed user leaves."""

import os
import signal
import time

import numpy as np
import pytest

from vitft.data import cache as cache_module
from vitft.data.cache import Cache, NoCache, disk_folder, memory_folder

SLOT = 4096
STAMP = bytes(16)


def key(number=0, **more):
    return {"dataset": f"/data/photos-{number}", "what": "train", **more}


def opened(cache, number=0, *, fill=10, expected=12 * SLOT):
    store = cache.open(key(number), SLOT, expected)
    for slot in range(fill):
        store.write(slot, STAMP, b"", np.full(SLOT, slot, dtype=np.uint8))
    return store


def names(cache):
    return sorted(each.dataset[-1] for each in cache.stores())


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache", 40 * SLOT)


def test_a_store_outlives_its_user_and_is_found_by_its_key(cache):
    opened(cache).close()
    again = opened(cache, fill=0)
    assert again.read(3, STAMP)[0] == bytes([3]) * SLOT
    other = cache.open(key(version=2), SLOT, SLOT)
    assert other.read(3, STAMP) is None
    again.close()
    other.close()


def test_stores_are_listed_with_their_use(cache):
    first = opened(cache, 1)
    opened(cache, 2, fill=3).close()
    found = {each.dataset: each for each in cache.stores()}
    one, two = found["/data/photos-1"], found["/data/photos-2"]
    assert (one.is_in_use, two.is_in_use) == (True, False)
    assert (one.what, one.num_filled, two.num_filled) == ("train", 10, 3)
    assert 10 * SLOT <= one.num_bytes < 13 * SLOT
    assert abs(one.last_used - time.time()) < 60
    assert cache.held_bytes() == 12 * SLOT  # what it will have when it is full
    assert cache.held_bytes([cache.folder_of(key(1), SLOT)]) == 0
    assert not cache.remove(one.folder.name)
    first.close()
    assert cache.remove(one.folder.name)
    assert names(cache) == ["2"]


def test_those_used_longest_ago_make_room_but_not_those_in_use(cache):
    stores = [opened(cache, number) for number in (1, 2, 3)]
    for age, store in enumerate(stores):
        if age:
            store.close()
        os.utime(store.folder / "lock", (1000 + age, 1000 + age))
    opened(cache, 4).close()
    assert names(cache) == ["1", "3", "4"]  # 1 is older than 2, but in use
    with pytest.raises(NoCache, match=r"123 kB is more than what data\.cache_limit leaves, \d+ kB"):
        cache.open(key(5), SLOT, 30 * SLOT)
    stores[0].close()


def test_two_users_cannot_claim_the_same_room(cache):
    first = opened(cache, 1, fill=0, expected=30 * SLOT)
    with pytest.raises(NoCache, match=r"leaves, 41 kB"):
        opened(cache, 2, expected=11 * SLOT)
    first.close()
    opened(cache, 2, expected=11 * SLOT).close()
    assert names(cache) == ["1", "2"]


def test_a_damaged_store_is_made_again_unless_it_is_in_use(cache):
    store = opened(cache)
    (store.folder / "meta.json").write_text("{")
    with pytest.raises(NoCache, match="is damaged, and in use"):
        opened(cache)
    store.close()
    again = opened(cache, fill=0)
    assert again.read(3, STAMP) is None
    again.close()


def test_what_else_lies_in_the_folder_is_left_alone(tmp_path):
    cache = Cache(tmp_path, 20 * SLOT)
    theirs = [tmp_path / name for name in ("photos/meta.json", ".config/a.partial", ".b.partial/c", "runs/index")]
    for path in theirs:
        path.parent.mkdir(exist_ok=True)
        path.write_text("theirs")
        os.utime(path.parent, (1, 1))
    for number in range(3):
        opened(cache, number).close()
    assert all(path.read_text() == "theirs" for path in theirs)
    assert names(cache) == ["2"]


def test_half_made_stores_of_killed_processes_are_removed(cache):
    opened(cache).close()
    left = cache.folder / ".vitft-abc.partial"
    left.mkdir()
    os.utime(left, (1, 1))
    (cache.folder / ".vitft-new.partial").mkdir()  # somebody is making it
    opened(cache).close()
    assert sorted(path.name for path in cache.folder.glob(".*")) == [".vitft-new.partial"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_no_cache(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(NoCache, match="Permission denied"):
        opened(Cache(tmp_path / "cache"))
    tmp_path.chmod(0o700)


def test_a_file_in_place_of_the_folder_is_no_cache(tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(NoCache, match="cache"):
        opened(Cache(tmp_path / "cache"))


def test_a_disk_without_locks_is_no_cache(cache, monkeypatch):
    import fcntl

    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(NoCache, match="No locks available"):
        opened(cache)


# --- in memory ---------------------------------------------------------------------------------------------


def test_the_last_user_of_a_store_in_memory_removes_it(tmp_path):
    cache = Cache(tmp_path / "memory", is_temporary=True)
    first, second = opened(cache), opened(cache, fill=0)
    first.close()
    assert second.read(3, STAMP) is not None
    second.close()
    second.close()
    assert list(cache.folder.iterdir()) == []


def test_what_a_killed_user_left_in_memory_is_removed_by_the_next(tmp_path):
    cache = Cache(tmp_path / "memory", is_temporary=True)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            opened(cache, 1)
            os.write(writing, b".")
            time.sleep(10)
        finally:
            os._exit(1)
    os.read(reading, 1)
    mine = opened(cache, 2)
    assert names(cache) == ["1", "2"]
    mine.close()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    mine = opened(cache, 3)
    assert names(cache) == ["3"]
    mine.close()
    os.close(reading)
    os.close(writing)


def test_a_folder_in_memory_must_be_our_own(tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "memory").symlink_to(tmp_path / "theirs")
    with pytest.raises(NoCache, match="belongs to somebody else"):
        opened(Cache(tmp_path / "memory", is_temporary=True))


def test_many_who_open_and_close_at_once_leave_nothing(tmp_path):
    cache = Cache(tmp_path / "memory", is_temporary=True)
    children = []
    for _ in range(4):
        children.append(os.fork())
        if children[-1] == 0:
            code = 1
            try:
                for _ in range(10):
                    store = opened(cache, fill=1)
                    assert store.read(0, STAMP) is not None
                    store.close()
                code = 0
            finally:
                os._exit(code)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4
    opened(cache).close()
    assert list(cache.folder.iterdir()) == []


def test_the_environment_says_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("VITFT_CACHE", str(tmp_path))
    assert disk_folder() == tmp_path
    monkeypatch.setenv("VITFT_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert str(disk_folder()) == "/x/vitft"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert str(disk_folder()) == "/home/me/.cache/vitft"


def test_without_shared_memory_there_is_no_place_in_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(cache_module, "_MEMORY", tmp_path)
    assert memory_folder() == tmp_path / f"vitft-{os.getuid()}"
    monkeypatch.setattr(cache_module, "_MEMORY", tmp_path / "none")
    assert memory_folder() is None

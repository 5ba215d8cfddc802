"""Slots of bytes: found whole or not at all, whatever became of their writers."""

import errno
import os
import random
import signal
import time
from copy import deepcopy  # takes the same state that is sent to another process

import numpy as np
import pytest

from vitft.data import store as store_module
from vitft.data.store import Store, expected_bytes

SLOT, SLOTS = 5000, 40


@pytest.fixture
def folder(tmp_path):
    for name in ("slots", "index"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.fixture
def store(folder):
    opened = Store(folder, SLOT, 1 << 40)
    yield opened
    opened.close()


def stamp(number):
    return bytes([number % 256]) * 16


def content(slot, number):
    """Return what a slot has with a stamp; its length differs too."""
    return np.random.default_rng((slot, number)).integers(0, 256, SLOT - number, dtype=np.uint8)


def fill(store, number, slots=range(SLOTS)):
    for slot in slots:
        store.write(slot, stamp(number), bytes([slot]), content(slot, number))


def test_what_is_written_is_read_with_its_facts(store):
    fill(store, 1, [3, 0, 7])
    for slot in (0, 3, 7):
        found, facts = store.read(slot, stamp(1))
        assert bytes(found) == content(slot, 1).tobytes()
        assert facts == bytes([slot]).ljust(16, b"\0")
    assert [store.read(slot, stamp(1)) for slot in (1, 2, 8, 10**6)] == [None] * 4
    assert store.filled().tolist() == [True, False, False, True, False, False, False, True]


def test_a_slot_with_another_stamp_is_empty_and_can_be_written_again(store):
    fill(store, 1, [3])
    assert store.read(3, stamp(2)) is None
    fill(store, 2, [3])
    assert store.read(3, stamp(1)) is None
    assert bytes(store.read(3, stamp(2))[0]) == content(3, 2).tobytes()


def test_a_copy_in_another_process_opens_the_files_itself(store):
    fill(store, 1, [3])
    copy = deepcopy(store)
    assert bytes(copy.read(3, stamp(1))[0]) == content(3, 1).tobytes()
    copy.close()
    assert store.read(3, stamp(1)) is not None


@pytest.mark.parametrize("name", ["slots", "index"])
def test_no_damaged_byte_is_ever_returned(store, folder, name):
    fill(store, 1, [0, 1])
    whole = (folder / name).read_bytes()
    size = len(whole) // 2 if name == "index" else SLOT  # both slots are full but for one byte
    for place in random.Random(0).sample(range(size), 40 if name == "slots" else size):
        (folder / name).write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        is_padding = name == "slots" and place == SLOT - 1
        assert (store.read(0, stamp(1)) is not None) == is_padding, place
        assert store.read(1, stamp(1)) is not None
    os.truncate(folder / name, size + 1)
    assert store.read(1, stamp(1)) is None


def test_twenty_kills_leave_no_wrong_slot(store, folder):
    generator, num_found = random.Random(0), []
    begun = time.perf_counter()
    fill(store, 99)
    takes = (time.perf_counter() - begun) / SLOTS
    for number in range(1, 21):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                mine = Store(folder, SLOT, 1 << 40)
                for slot in range(SLOTS):
                    os.write(writing, b".")
                    fill(mine, number, [slot])
                time.sleep(60)
            finally:
                os._exit(1)
        for _ in range(generator.randrange(1, SLOTS)):
            os.read(reading, 1)
        time.sleep(generator.uniform(0, takes))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)
        os.close(writing)
        found = {(slot, k): store.read(slot, stamp(k)) for slot in range(SLOTS) for k in range(1, number + 1)}
        for (slot, k), each in found.items():
            assert each is None or bytes(each[0]) == content(slot, k).tobytes()
        num_found.append(sum(found[slot, number] is not None for slot in range(SLOTS)))
    assert any(0 < count < SLOTS for count in num_found), num_found  # some were killed in the middle


def test_two_who_write_the_same_slots_at_once_never_mix(store, folder):
    children = []
    for number in (1, 2):
        children.append(os.fork())
        if children[-1] == 0:
            try:
                mine = Store(folder, SLOT, 1 << 40)
                while True:
                    fill(mine, number, range(3))
            finally:
                os._exit(1)
    num_found = 0
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        for slot in range(3):
            for number in (1, 2):
                if found := store.read(slot, stamp(number)):
                    num_found += 1
                    assert bytes(found[0]) == content(slot, number).tobytes()
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert num_found


def test_part_of_a_slot_on_a_full_disk_is_no_slot(store, monkeypatch):
    fill(store, 1, [3])

    def half(descriptor, data, offset, write=os.pwrite):
        if len(data) < 1000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[: len(data) // 2], offset)

    monkeypatch.setattr(store_module.os, "pwrite", half)
    with pytest.raises(OSError, match="No space left"):
        fill(store, 2, [3])
    assert store.read(3, stamp(1)) is None
    assert store.read(3, stamp(2)) is None


def test_it_stops_at_its_limit_and_leaves_room_on_the_disk(folder):
    limited = Store(folder, SLOT, 5 * SLOT)
    with pytest.raises(OSError, match="reached its limit"):
        fill(limited, 1)
    assert 4 < limited.filled().sum() < 10
    crowded = Store(folder, SLOT, 1 << 40, leave_free=1 << 62)
    with pytest.raises(OSError, match="too little room"):
        fill(crowded, 1)
    assert crowded.read(0, stamp(1)) is not None
    limited.close()
    crowded.close()


def test_small_contents_of_large_slots_take_few_pages(folder):
    sparse = Store(folder, 200_000, 1 << 40)
    for slot in range(20):
        sparse.write(slot, stamp(1), b"", np.full(3000, slot, dtype=np.uint8))
    sparse.close()
    used = sum((folder / name).stat().st_blocks * 512 for name in ("slots", "index"))
    assert used <= expected_bytes(3000, 200_000, 20) < 20 * 10_000
    assert expected_bytes(200_000, 200_000, 20) > 20 * 200_000

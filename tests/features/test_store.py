"""Features in the cache: what is read is what was written, of the images that are there now."""

import errno
import os
from dataclasses import replace

import pytest
import torch
from PIL import Image

from vitft.cli import main
from vitft.data.batches import RowNote
from vitft.data.cache import Cache, disk_folder
from vitft.data.store import SLOTS, Store
from vitft.features.features import Features
from vitft.features.store import FeatureStore
from vitft.reading.source import open_source
from vitft.recipe.keys import DataRecipe

SHAPE = (2, 4, 3)
FACTS = {"dataset": "photos", "what": "features of train", "weights": "1a"}
MADE = Features.of(
    torch.arange(24.0).reshape(SHAPE).index_fill(1, torch.tensor([2]), 0),
    [RowNote(2, "row 2", "is no image")],
    [RowNote(1, "row 1", "is odd"), RowNote(1, "row 1", "is very odd")],
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VITFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def split(tmp_path):
    """Return a training split of four files."""
    for number in range(6):
        folder = tmp_path / "photos" / ("train" if number < 4 else "validation") / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (number, 0, 0)).save(folder / f"{number}.png")
    return open_source(DataRecipe(dataset=str(tmp_path / "photos")), seed=0).train


@pytest.fixture
def said():
    return []


@pytest.fixture
def opened(split, said):
    """Return a function that opens the store."""

    def opened(limit=10**9, rows=split, model="lab/vit-small", **facts):
        return FeatureStore(FACTS | facts, rows, SHAPE, limit, said.append, model=model)

    return opened


@pytest.fixture
def written(opened):
    with opened() as store:
        store.save(MADE)


def load(store):
    with store:
        return store.load()


def test_what_is_read_is_what_was_written(written, opened, said):
    found = load(opened())
    assert torch.equal(found.values, MADE.values)
    assert (found.skipped, found.notes) == (MADE.skipped, MADE.notes)
    assert load(opened(model="/tmp/the-same")) is not None
    [kept] = Cache(disk_folder()).stores()
    assert kept.model == "lab/vit-small"
    assert load(opened(weights="1b")) is None
    assert said == []


def test_a_changed_image_makes_all_be_computed_again(written, opened, split):
    path = split.encoded(3)
    Image.new("RGB", (4, 4), (200, 0, 0)).save(path)
    os.utime(path, (10**9, 10**9))
    assert load(opened()) is None


def test_bytes_in_a_table_are_known_by_their_checksum(opened, split, said):
    class Bytes:
        def __init__(self, change=b""):
            self.change = change

        def __getitem__(self, row):
            return {"image": {"bytes": f"image {row}".encode() + self.change, "path": None}}

    rows = replace(split, rows=Bytes(), image_columns=("image",))
    with opened(rows=rows) as store:
        store.save(MADE)
    assert load(opened(rows=rows)) is not None
    assert load(opened(rows=replace(rows, rows=Bytes(b"!")))) is None


@pytest.mark.parametrize("place", [0, 23, 2 * 1024 + 20, 5 * 1024 + 20])
def test_a_damaged_byte_is_not_taken(written, opened, cache, place):
    [folder] = cache.iterdir()
    content = bytearray((folder / SLOTS).read_bytes())
    content[place] ^= 0x40
    (folder / SLOTS).write_bytes(content)
    assert load(opened()) is None
    with opened() as store:
        store.save(MADE)
    assert load(opened()) is not None


def test_a_half_written_store_is_empty(opened, monkeypatch, said):
    write, done = Store.write, []

    def full(*arguments):
        if len(done) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        done.append(1)
        write(*arguments)

    monkeypatch.setattr(Store, "write", full)
    with opened() as store:
        store.save(MADE)
    expected = "features of train are not stored, and the next run computes them again: No space left on device"
    assert said == [expected]
    assert load(opened()) is None


def test_what_does_not_fit_the_limit_is_not_stored(opened, said):
    with opened(limit=100) as store:
        store.save(MADE)
        assert store.load() is None
    assert len(said) == 1 and "data.cache_limit" in said[0]


def test_the_cache_lists_and_removes_features(written, capsys, cache):
    with pytest.raises(SystemExit):
        main(["cache", "ls"])
    assert "features of train" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["cache", "rm", "--all"])
    assert list(cache.iterdir()) == []

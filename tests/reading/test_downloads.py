from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
from golden import rows
from huggingface_hub import constants

from vitft.errors import DataError
from vitft.reading.downloads import load_verified, refuse_mixed_names

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Cache:
    """The caches of a Hub dataset ``me/d`` of which files were downloaded."""

    def __init__(self, root: Path) -> None:
        self.repo = root / "hub" / "datasets--me--d"
        self.rows = root / "datasets" / "me___d" / COMMIT
        self.loads = 0

    def download(self, name: str, content: bytes, arrives: bytes | None = None) -> Path:
        """Put a file into the cache as the Hub's client does; ``arrives`` is what the network made of it."""
        blob = self.repo / "blobs" / hashlib.sha256(content).hexdigest()
        link = self.repo / "snapshots" / COMMIT / name
        for path in (blob, link):
            path.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content if arrives is None else arrives)
        link.unlink(missing_ok=True)
        link.symlink_to(blob)
        return blob

    def opened(self) -> Any:
        self.rows.mkdir(parents=True, exist_ok=True)
        return {"train": SimpleNamespace(cache_files=[{"filename": str(self.rows / "d-train.arrow")}])}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return Cache(tmp_path)


def loaded(cache: Cache, *arriving: bytes, commit: str | None = None) -> Any:
    """Load the dataset, whose downloads bring what arrives; what is in the cache is not downloaded again."""
    downloads = iter(arriving)

    def load() -> Any:
        if not (cache.repo / "snapshots" / COMMIT / "train.parquet").exists():
            cache.loads += 1
            cache.download("train.parquet", b"rows", next(downloads))
        if (cache.repo / "snapshots" / COMMIT / "train.parquet").read_bytes() == b"broken":
            raise ValueError("no parquet file")
        return cache.opened()

    return load_verified("me/d", commit, load)


def test_a_whole_download_is_left_alone_and_compared_once(cache: Cache) -> None:
    loaded(cache, b"rows")
    cache.download("train.parquet", b"rows", b"rowz")  # damaged later: no download
    loaded(cache)
    assert cache.loads == 1


@pytest.mark.parametrize("damaged", [b"rowz", b"broken"], ids=["that loads", "that does not load"])
def test_a_damaged_download_is_fetched_again(cache: Cache, damaged: bytes) -> None:
    loaded(cache, damaged, b"rows", commit=COMMIT)
    assert (cache.repo / "snapshots" / COMMIT / "train.parquet").read_bytes() == b"rows" and cache.loads == 2


def test_rows_that_were_made_from_a_damaged_download_are_made_again(cache: Cache) -> None:
    cache.opened()
    (cache.rows / "d-train.arrow").write_bytes(b"damaged")
    loaded(cache, b"rowz", b"rows")
    assert not (cache.rows / "d-train.arrow").exists()


@pytest.mark.parametrize("damaged", [(b"rowz", b"rowy"), (b"broken", b"broken"), (b"rowz", b"broken")], ids=str)
def test_a_download_that_is_damaged_twice_is_refused_with_the_file(cache: Cache, damaged: tuple[bytes, ...]) -> None:
    with pytest.raises(DataError, match=r"me/d arrived damaged twice: the SHA-256 of train\.parquet differs from"):
        loaded(cache, *damaged, commit=COMMIT)
    assert not [*(cache.repo / "blobs").iterdir()] and not cache.rows.exists()


def test_what_cannot_be_loaded_though_it_is_whole_raises_what_it_raised(cache: Cache) -> None:
    cache.download("train.parquet", b"broken")
    with pytest.raises(ValueError, match="no parquet file"):
        loaded(cache, commit=COMMIT)


def test_a_small_file_whose_name_is_no_sha256_is_not_compared(cache: Cache) -> None:
    blob = cache.download("README.md", b"read me")
    small = blob.rename(blob.with_name("a" * 40))
    (cache.repo / "snapshots" / COMMIT / "README.md").unlink()
    (cache.repo / "snapshots" / COMMIT / "README.md").symlink_to(small)
    loaded(cache, b"rows")
    assert small.exists() and cache.loads == 1


def test_rows_that_are_in_no_cache_are_not_compared() -> None:
    opened = {"train": SimpleNamespace(cache_files=[])}
    assert load_verified("me/d", None, lambda: opened) is opened


def shard(tmp_path: Path, *names: str) -> bytes:
    rows([0, 1], datasets.ClassLabel(names=[*names])).to_parquet(tmp_path / "one.parquet")
    return (tmp_path / "one.parquet").read_bytes()


def test_files_that_number_classes_differently_are_refused(cache: Cache, tmp_path: Path) -> None:
    cache.download("data/train-00000-of-00002.parquet", shard(tmp_path, "cat", "dog"))
    cache.download("data/train-00001-of-00002.parquet", shard(tmp_path, "dog", "cat"))
    with pytest.raises(DataError, match=r"me/d number the classes of 'label' differently: cat, dog; and dog, cat"):
        refuse_mixed_names(cache.opened(), "me/d")


def test_splits_may_number_classes_each_in_its_way(cache: Cache, tmp_path: Path) -> None:
    cache.download("data/train-00000-of-00001.parquet", shard(tmp_path, "cat", "dog"))
    cache.download("data/test-00000-of-00001.parquet", shard(tmp_path, "dog", "cat"))
    refuse_mixed_names(cache.opened(), "me/d")
    cache.download("data/train-00001-of-00001.parquet", shard(tmp_path, "dog", "cat"))
    with pytest.raises(DataError, match="number the classes of 'label' differently"):
        refuse_mixed_names(cache.opened(), "me/d")

import multiprocessing
from dataclasses import replace

import datasets
import pytest
from data.numbered import PAUSE, HastyStream, N, png

from vitft.reading.source import open_source
from vitft.recipe.keys import DataRecipe

# Readers are forked from a server that has imported what they need; each for itself would take seconds.
multiprocessing.set_forkserver_preload(["vitft.reading.source", "vitft.data.stream_batches"])


@pytest.fixture(scope="session")
def parquet(tmp_path_factory):
    """Rows whose pixels are their own number."""
    folder = tmp_path_factory.mktemp("numbered")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["even", "odd"])})
    for split, n in (("train", N), ("validation", 20)):
        # The images of both splits have the same pixels, and other bytes.
        rows = {
            "image": [{"bytes": png(i) + split.encode(), "path": None} for i in range(n)],
            "label": [i % 2 for i in range(n)],
        }
        shards = datasets.Dataset.from_dict(rows, features=features)
        for shard in range(2):
            shards.shard(2, shard, contiguous=True).to_parquet(folder / f"{split}-{shard:05d}-of-00002.parquet")
    return folder


@pytest.fixture(scope="session")
def source(parquet):
    return open_source(DataRecipe(dataset=str(parquet)), seed=0)


@pytest.fixture
def stream(parquet, monkeypatch):
    monkeypatch.setattr(datasets.config, PAUSE, 0.1)
    source = open_source(DataRecipe(dataset=str(parquet), streaming=True), seed=0)
    return replace(source, train=HastyStream(**vars(source.train)))


@pytest.fixture(scope="session")
def broken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("broken")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    for split in ("train", "validation"):
        images = [{"bytes": b"no image" if i in (3, 11) else png(i), "path": None} for i in range(20)]
        rows = datasets.Dataset.from_dict({"image": images, "label": [i % 2 for i in range(20)]}, features=features)
        rows.to_parquet(folder / f"{split}.parquet")
    return open_source(DataRecipe(dataset=str(folder), check_images="off", allow_overlap=True), seed=0)

"""Datasets of the Hub as they arrive: damaged, cut into files that disagree, or with copies between their splits."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence

import datasets
import numpy as np
import pytest
from hub_client import Client
from hub_server import Fault, Hub
from PIL import Image

FILE = "train-00000-of-00001.parquet"
TRAIN = f"data/{FILE}"


def parquet(labels: Sequence[int], names: Sequence[str] = ("cat", "dog"), first: int = 0) -> bytes:
    """Return a shard of images that no other number gives."""
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=[*names])})
    pixels = [
        np.random.default_rng(first + row).integers(0, 255, (6, 6, 3), dtype=np.uint8) for row in range(len(labels))
    ]
    rows = {"image": [Image.fromarray(each) for each in pixels], "label": [*labels]}
    buffer = io.BytesIO()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(buffer)
    return buffer.getvalue()


@pytest.fixture
def world(hub: Hub, client: Client) -> Iterator[Hub]:
    yield hub
    client.empty()


def test_a_dataset_of_the_hub_is_described(world: Hub, client: Client) -> None:
    files = {TRAIN: parquet([0, 1] * 6), "data/test-00000-of-00001.parquet": parquet([1, 0], first=90)}
    world.make("dataset", "lab/pets", files)
    outcome = client.run("data", "lab/pets", "--format", "json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["splits"] == {"train": 10, "validation": 2, "test": 2}


def test_shards_that_number_classes_differently_are_refused(world: Hub, client: Client) -> None:
    files = {
        "data/train-00000-of-00002.parquet": parquet([0, 1] * 6),
        "data/train-00001-of-00002.parquet": parquet([0, 1] * 6, ("dog", "cat"), 50),
    }
    world.make("dataset", "lab/pets", files)
    outcome = client.run("data", "lab/pets")
    assert outcome.code == 1
    assert "the files of lab/pets number the classes of 'label' differently: cat, dog; and dog, cat" in outcome.err
    assert "hf download --repo-type dataset lab/pets" in outcome.err


@pytest.mark.parametrize("flip", ["flip-inside", "flip"])  # in an image; in what makes it a parquet file
def test_a_flipped_bit_is_noticed_and_the_file_fetched_again(flip: str, world: Hub, client: Client) -> None:
    world.make("dataset", "lab/pets", {TRAIN: parquet([0, 1] * 6)})
    whole = client.run("data", "lab/pets", "--format", "json")
    client.empty()
    world.log.clear()
    world.faults = [Fault(FILE, flip, times=1)]
    again = client.run("data", "lab/pets", "--format", "json")
    assert (again.code, again.out) == (0, whole.out), again.err
    assert world.faults[0].times == 0
    assert len([each for each in world.log if each.method == "GET" and TRAIN in each.path]) == 2


def test_a_bit_that_flips_twice_is_refused_with_the_name_of_the_file(world: Hub, client: Client) -> None:
    world.make("dataset", "lab/pets", {TRAIN: parquet([0, 1] * 6)})
    world.faults = [Fault(FILE, "flip-inside")]
    outcome = client.run("data", "lab/pets")
    assert outcome.code == 1 and "the download of lab/pets arrived damaged twice" in outcome.err
    assert "train-00000-of-00001.parquet" in outcome.err


def test_after_a_damaged_download_the_next_one_is_good(world: Hub, client: Client) -> None:
    world.make("dataset", "lab/pets", {TRAIN: parquet([0, 1] * 6)})
    world.faults = [Fault(FILE, "flip", times=2)]
    assert client.run("data", "lab/pets").code == 1
    outcome = client.run("data", "lab/pets")
    assert outcome.code == 0, outcome.err


def test_copies_between_published_splits_are_noted_and_not_refused(world: Hub, client: Client) -> None:
    files = {TRAIN: parquet([0, 1] * 6), "data/test-00000-of-00001.parquet": parquet([1, 0], first=11)}
    world.make("dataset", "lab/pets", files)
    outcome = client.run("data", "lab/pets")
    assert outcome.code == 0, outcome.err
    assert "note: 1 of 2 images of test are also in train: row 0 of test is row 11 of train" in outcome.out

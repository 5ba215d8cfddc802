"""Where staged images are kept, and that a run is the same wherever that is."""

import json
import os
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch

from vitft.data import cache as cache_module
from vitft.data.cache import Cache
from vitft.data.device_store import DeviceStore, device_bytes
from vitft.data.images import ImageSplit, StreamSplit
from vitft.data.train_batches import StagingCost
from vitft.recipe.recipe import Recipe
from vitft.train import caching, plan
from vitft.train.caching import CachePlan, bytes_on_device, plan_cache

GB = 10**9


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Let the cache lie in empty folders of this test: (on disk, in memory)."""
    memory = tmp_path / "shm"
    memory.mkdir()
    monkeypatch.setattr(cache_module, "_MEMORY", memory)
    monkeypatch.setenv("VITFT_CACHE", str(tmp_path / "disk"))
    return tmp_path / "disk", memory


# --- the plan ----------------------------------------------------------------------------------------------


class Classifier:
    image_size = (224, 224)
    process = SimpleNamespace(settings=lambda: {"size": 224})


def split(num_rows):
    rows = np.arange(num_rows)
    return ImageSplit("train", None, ("image",), np.zeros(num_rows, dtype=np.int64), (), "train", rows)


def planned(num_rows=1000, passes=10.0, seconds=0.01, num_bytes=200_000, train=None, **changes):
    recipe = Recipe.load(None, {f"data.{key}": value for key, value in changes.items()})
    source = SimpleNamespace(train=train or split(num_rows), validation=split(100), id="photos", revision=None)
    return plan_cache(recipe, source, Classifier(), 258, passes, lambda: StagingCost(seconds, num_bytes))


@pytest.fixture
def machine(places, monkeypatch):
    """A machine with 16 GB of free memory, 8 GB in /dev/shm and 100 GB on the disk; change them here."""
    free = {"memory": 16 * GB, str(places[1]): 8 * GB, "disk": 100 * GB}
    monkeypatch.setattr(caching, "free_memory", lambda: free["memory"])
    monkeypatch.setattr(
        caching.shutil, "disk_usage", lambda path: SimpleNamespace(free=free.get(str(path), free["disk"]))
    )
    return free


def test_a_small_split_is_kept_in_memory(machine):
    made = planned(10_000)
    assert made.place == "memory"
    assert "2.0 GB" in made.reason and "16 GB of memory is free" in made.reason


@pytest.mark.parametrize(("what", "free"), [("memory", 7 * GB), ("shm", 3 * GB)])
def test_what_is_more_than_a_part_of_memory_is_kept_on_the_disk(machine, places, what, free):
    machine[str(places[1]) if what == "shm" else what] = free
    made = planned(10_000)
    assert (made.place, made.reason) == ("disk", f"auto: at most 2.0 GB in {places[0]}")


def test_what_fits_nowhere_is_not_kept_and_both_reasons_are_said(machine):
    made = planned(1_000_000)
    assert made.place == "off"
    assert "is too much for memory (16 GB free, 4.0 GB in /dev/shm)" in made.reason
    assert "200 GB is too much for data.cache_limit (20 GB)" in made.reason
    machine["disk"] = 300 * GB
    assert "too much for the disk" in planned(1_000_000, cache_limit="1 TB").reason
    machine["disk"] = 500 * GB
    assert planned(1_000_000, cache_limit="1 TB").place == "disk"


def test_small_images_take_little_room_in_large_slots(machine):
    assert planned(100_000, num_bytes=3072).place == "memory"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"passes": 1}, "auto: the training reads each image only once"),
        ({"seconds": 0.0005, "passes": 2.9}, "auto: staging takes 0.5 ms per image here, not worth a cache"),
        ({"cache": "off"}, ""),
        ({"train": StreamSplit("train", None, ("image",), "label", 9)}, "the rows of a stream cannot be found again"),
    ],
)
def test_where_it_does_not_help_nothing_is_kept(machine, changes, reason):
    assert planned(**changes) == CachePlan("off", reason)


def test_a_wish_is_taken_where_it_is_possible(machine, places):
    for place in ("memory", "disk"):
        assert planned(passes=1, seconds=0, cache=place).place == place
    machine[str(places[1])] = 0
    assert "too much for memory" in planned(cache="memory").reason
    assert planned(cache="disk", cache_limit="1 MB").place == "off"


def test_a_system_that_lacks_what_it_takes_has_no_cache(machine, monkeypatch):
    monkeypatch.setattr(caching, "IS_SUPPORTED", False)
    assert planned() == CachePlan("off", "not on this operating system")


@pytest.mark.parametrize(
    ("changes", "is_kept"),
    [({}, True), ({"free": 19 * GB}, False), ({"cache": "off"}, False), ({"passes": 1}, False), ({"on": "cpu"}, False)],
)
def test_images_that_take_little_of_a_gpu_stay_there(monkeypatch, changes, is_kept):
    given = {"free": 21 * GB, "cache": "auto", "passes": 10, "on": "cuda"} | changes
    monkeypatch.setattr(caching.torch.cuda, "mem_get_info", lambda _: (given["free"], 80 * GB))
    recipe = Recipe.load(None, {"data.cache": given["cache"]})
    found = bytes_on_device(recipe, split(10_000), torch.device(given["on"]), 258, given["passes"])
    assert found == (3 * 258**2 * 10_000 if is_kept else 0)


# --- runs --------------------------------------------------------------------------------------------------


def run(home, **changes):
    from vitft import finetune

    return finetune(tiny.recipe(home, **changes)).run_dir


def test_a_run_whose_images_stay_on_the_device_is_the_run_without(home, uninterrupted, monkeypatch):
    monkeypatch.setattr(plan, "bytes_on_device", lambda _, train, __, size, ___: device_bytes(len(train), size))
    taken = []
    batch = DeviceStore.batch
    monkeypatch.setattr(DeviceStore, "batch", lambda self, *given: taken.append(given) or batch(self, *given))
    tiny.assert_same_run(run(home, run__name="on-device"), uninterrupted)
    assert taken


def test_a_run_with_a_cache_is_the_run_without(home, uninterrupted, places):
    folder = run(home, run__name="disk", data__cache="disk")
    tiny.assert_same_run(folder, uninterrupted)
    found = Cache(cache_module.disk_folder()).stores()
    assert {each.what: (each.num_filled, each.is_in_use) for each in found} == {
        "train staged at 9": (40, False),
        "validation as the model sees it at 8x8": (16, False),
    }
    rows = {row["name"]: row for row in json.loads((folder / "plan.json").read_text())["rows"]}
    assert rows["cache"]["value"] == "disk"
    assert rows["cache"]["reason"].endswith(f"in {places[0]}")


def test_a_killed_run_resumes_to_the_same_end_with_another_cache(home, uninterrupted, places):
    folder = home / "runs" / "killed-with-cache"

    def work():
        from vitft.train import step

        tiny.at_call(step, "_accumulate", 8, tiny.send(signal.SIGKILL))
        run(home, run__name=folder.name, data__cache="disk")

    tiny.assert_killed(tiny.in_child(work), folder)
    assert len(list(places[0].iterdir())) == 2
    outcome = tiny.resume(folder, data__cache="memory")
    assert outcome.code == 0, outcome.text
    tiny.assert_same_run(folder, uninterrupted)
    assert list((places[1] / f"vitft-{os.getuid()}").iterdir()) == []


@pytest.mark.parametrize("trouble", ["no folder", "full disk"])
def test_a_run_goes_on_without_its_cache_and_says_why(home, places, trouble, monkeypatch):
    if trouble == "no folder":
        places[0].write_text("a file")
        said = f"the staged train images are not kept: {places[0]}: File exists"
    else:
        said = "the cache of staged train images: nothing more is written to it: No space left on device"

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "pwrite", full)
    folder = run(home, run__name=trouble.replace(" ", "-"), data__cache="disk", train__duration="3 steps")
    notes = [line["text"] for line in tiny.events(folder, "note")]
    assert notes.count(said) == 1
    assert notes.count(said.replace("train", "validation")) == 1


def test_another_version_or_setting_is_another_store(monkeypatch):
    def key(stage_size=258, **changes):
        recipe = Recipe.load(None, {f"data.{name}": value for name, value in changes.items()})
        source = SimpleNamespace(train=split(9), validation=None, id="photos", revision=None)
        found = caching._wanted(recipe, source, Classifier(), stage_size, 100.0)
        return json.dumps(found["train"].key)

    keys = [key(), key(256), key(max_pixels=1000), key(config="other")]
    monkeypatch.setattr(caching, "STAGING_VERSION", 10**6)
    assert len({*keys, key()}) == 5
    assert key() == key(workers=3, cache="disk", bad_images="skip")

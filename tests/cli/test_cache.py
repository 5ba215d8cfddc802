"""``vitft cache``: what is kept, listed and removed."""

import json
import os

import numpy as np
import pytest
from cli.command import run

from vitft.data import cache as cache_module
from vitft.data.cache import Cache, disk_folder

pytestmark = pytest.mark.skipif(os.name == "nt", reason="there is no cache on Windows")


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("VITFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache_module, "_MEMORY", tmp_path / "none")


def kept(name, is_closed=True, model=""):
    key = {"dataset": f"/data/{name}", "what": "train staged at 258"}
    store = Cache(disk_folder()).open(key, 4096, 10**5, model=model)
    for slot in range(3):
        store.write(slot, bytes(16), b"", np.ones(4096, dtype=np.uint8))
    if is_closed:
        store.close()
    return store


def test_an_empty_cache_says_where_it_would_be(capsys, tmp_path):
    assert run("cache") == 0
    assert capsys.readouterr().out == f"nothing is kept in {tmp_path / 'cache'}\n"
    assert not (tmp_path / "cache").exists()


def test_cache_ls_gives_a_line_to_each(capsys):
    store = kept("photos", is_closed=False)
    kept("birds\x1b[31m", model="/home/runs/birds/model")
    assert run("cache", "ls") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["name", "dataset", "what", "model", "rows", "size", "last", "used"]
    photos = next(line for line in lines if "photos" in line)
    assert photos.startswith(store.folder.name)
    assert (
        "photos   " in photos
        and "train staged at 258  -            3     16 kB" in photos
        and photos.endswith("in use")
    )
    assert any(
        "birds" in line and "  birds/model  3 " in line and line.endswith(" s ago") and "\x1b" not in line
        for line in lines
    )
    assert run("cache", "ls", "--format", "json") == 0
    found = {each["dataset"]: each for each in json.loads(capsys.readouterr().out)}
    assert found["/data/photos"]["rows"] == 3 and found["/data/photos"]["in_use"] is True
    store.close()


def test_cache_rm_removes_what_is_named_or_everything_not_in_use(capsys):
    one, two, three = kept("one"), kept("two"), kept("three", is_closed=False)
    assert run("cache", "rm", one.folder.name) == 0
    assert capsys.readouterr().err == "16 kB freed\n"
    assert not one.folder.exists() and two.folder.exists()
    assert run("cache", "rm", "--all") == 2
    assert f"in use by a run, or not removable: {three.folder.name}" in capsys.readouterr().err
    assert not two.folder.exists() and three.folder.exists()
    three.close()
    assert run("cache", "rm", "--all") == 0
    assert list(disk_folder().iterdir()) == []


def test_cache_rm_must_know_what_to_remove(capsys):
    name = kept("photos").folder.name
    assert run("cache", "rm") == 2
    assert "names, or --all" in capsys.readouterr().err
    assert run("cache", "rm", name, "--all") == 2
    assert run("cache", "rm", name[:-1] + "x") == 2
    assert name in capsys.readouterr().err
    assert len(Cache(disk_folder()).stores()) == 1

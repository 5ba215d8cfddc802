"""What is on the disk is whole, and as readable as what lies beside it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vitft.disk import remove_whole, sweep, whole_folder
from vitft.train import checkpoint
from vitft.train.checkpoint import TrainState


@pytest.fixture(params=[0o022, 0o027, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_weights_are_as_readable_as_the_umask_says(tmp_path: Path, umask: int) -> None:
    with whole_folder(tmp_path / "model") as folder:
        (folder / "config.json").write_text("{}")
        save_file({"a": torch.zeros(1)}, folder / "model.safetensors")
    saved = checkpoint.save(tmp_path / "checkpoints", TrainState(step=1), {"model": {"a": torch.zeros(1)}}, keep=1)
    for path in (*(tmp_path / "model").iterdir(), *saved.iterdir()):
        assert path.stat().st_mode & 0o777 == 0o666 & ~umask, path.name


def test_an_older_folder_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with whole_folder(folder) as partial:
        (partial / "a").write_text("old")
    with pytest.raises(KeyboardInterrupt), whole_folder(folder) as partial:
        (partial / "a").write_text("new")
        raise KeyboardInterrupt
    assert (folder / "a").read_text() == "old"
    with whole_folder(folder) as partial:
        (partial / "b").write_text("new")
    assert [path.name for path in folder.iterdir()] == ["b"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_folder_that_is_removed_is_never_half_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "step-1").mkdir()
    (tmp_path / "step-1" / "a").write_text("a")
    seen: list[list[str]] = []
    remove = shutil.rmtree

    def watched(path: Path, **options: bool) -> None:
        seen.append(sorted(each.name for each in tmp_path.iterdir()))
        remove(path, **options)

    monkeypatch.setattr(shutil, "rmtree", watched)
    remove_whole(tmp_path / "step-1")
    assert seen == [["step-1"], [".step-1.removed"]]
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    for name in (".model.partial", ".step-1.removed", ".push-ab12", "model"):
        (tmp_path / name).mkdir()
    for name in (".results.json.partial", ".lock", "a.partial", ".hidden"):
        (tmp_path / name).write_text("")
    assert sweep(tmp_path) == [".model.partial", ".results.json.partial", ".step-1.removed", ".push-ab12"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", ".lock", "a.partial", "model"]

"""``vitft data``: what it prints, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
from PIL import Image

from vitft.cli import main


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["data", *map(str, arguments)])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def photos(root: Path, *folders: str, each: int = 5) -> Path:
    for number, name in enumerate(folders):
        (root / name).mkdir(parents=True)
        for index in range(each):
            Image.new("RGB", (3, 3), (number, index, 9)).save(root / name / f"{index}.png")
    return root


def test_a_dataset_is_described_on_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = photos(tmp_path / "p", "cat", "dog", each=10)
    (root / "notes.txt").touch()
    assert run(root) == 0
    printed = capsys.readouterr()
    lines = [" ".join(line.split()) for line in printed.out.splitlines()]
    assert lines[:6] == [
        f"dataset {root}", "train 18 images", "validation 2 images (part of train)",
        "classes 2, from the names of the folders", "cat train 9 validation 1 cat/0.png",
        "dog train 9 validation 1 dog/0.png",
    ]  # fmt: skip
    assert "note: 1 file without an image suffix left out: .txt (1)" in lines and printed.err == ""


def test_json_is_one_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(photos(tmp_path / "p", "train/a", "train/b", "test/a", "test/b"), "--format", "json") == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["splits"]["test"] == 10 and plain["classes"]["a"] == {"train": 4, "validation": 1, "test": 5}


def test_settings_decide_how_it_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = photos(tmp_path / "p", "dogs/lab", "dogs/pug", "cats/manx", "cats/tabby")
    assert run(root, "--set", "data.class_level=2", "--format", "json") == 0
    assert [*json.loads(capsys.readouterr().out)["classes"]] == ["lab", "manx", "pug", "tabby"]


def test_two_readings_end_with_1_and_both_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(photos(tmp_path / "p", "dogs/lab", "dogs/pug", "cats/manx", "cats/tabby")) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and "Traceback" not in printed.err
    assert "level 1: 2 classes: cats (10), dogs (10)" in printed.err
    assert "level 2: 4 classes: lab (5), manx (5), pug (5), tabby (5)" in printed.err
    assert "--set data.class_level=1 or --set data.class_level=2" in printed.err


def test_an_error_shows_the_notes_that_led_to_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = photos(tmp_path / "p", "images")
    (root / "sizes.csv").write_text("name,size\na,1\nb,2\n")
    assert run(root) == 1
    assert "note: sizes.csv was left out: no column names an image" in capsys.readouterr().err


def test_settings_of_training_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "--set", "optim.lr=1") == 2
    assert "only the dataset has settings here" in capsys.readouterr().err


@pytest.mark.parametrize(("choice", "code"), [("stop", 1), ("skip", 0)])
def test_a_bad_image_ends_it_or_is_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], choice: str, code: int
) -> None:
    root = photos(tmp_path / "p", "a", "b")
    (root / "a" / "bad.png").write_bytes(b"no image")
    assert run(root, "--bad-images", choice) == code
    printed = capsys.readouterr()
    assert "a/bad.png" in (printed.err if code else printed.out)


def test_an_ascii_terminal_does_not_end_it(tmp_path: Path) -> None:
    root = photos(tmp_path / "p", "café", "naïve", "海豹")
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "vitft", "data", str(root)]
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert b"train 4" in done.stdout and b"classes  3" in done.stdout

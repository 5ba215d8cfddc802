"""A finished run meets photos that it has not seen, as people have them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image

from vitft.cli import main
from vitft.errors import DataError
from vitft.tasks import evaluate


def new_photos(root: Path, *names: str, each: int = 2) -> Path:
    generator = np.random.default_rng(3)
    for name in names:
        (root / name).mkdir(parents=True)
        for number in range(each):
            Image.fromarray(generator.integers(0, 255, (9, 9, 3), dtype=np.uint8)).save(root / name / f"{number}.png")
    return root


def shown(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", *map(str, arguments), "--device", "cpu", "--format", "json"])
    printed = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, printed.out, printed.err


def test_class_folders_without_splits_are_scored_whole(
    uninterrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = shown(capsys, uninterrupted, "--dataset", new_photos(tmp_path / "new-photos", *tiny.CLASSES))
    assert code == 0 and json.loads(out)["count"] == 6
    assert "names no splits: evaluating on all 6 images" in err


def test_folders_in_other_case_are_the_models_classes_and_that_is_said(
    uninterrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = shown(capsys, uninterrupted, "--dataset", new_photos(tmp_path / "p", "ASH", "Birch", "cedar"))
    assert code == 0 and "classes matched despite different spelling: ASH -> ash, Birch -> birch" in err


def test_a_class_that_the_model_lacks_is_named(uninterrupted: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not know 1 of the classes in .*: fir"):
        evaluate(uninterrupted, str(new_photos(tmp_path / "p", "ash", "fir")), device="cpu")


@pytest.fixture
def checkpoint(home: Path, tmp_path: Path) -> Path:
    """Return the checkpoint of two classes, whose names a test may write."""
    return Path(shutil.copytree(home / "checkpoint", tmp_path / "checkpoint"))


def name_classes(checkpoint: Path, *names: str) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    config["id2label"] = {str(number): name for number, name in enumerate(names)}
    config["label2id"] = {name: number for number, name in enumerate(names)}
    (checkpoint / "config.json").write_text(json.dumps(config))


def test_a_name_that_two_classes_of_the_model_have_is_refused_with_their_ids(checkpoint: Path, tmp_path: Path) -> None:
    name_classes(checkpoint, "crane", "crane")
    with pytest.raises(DataError, match=r"several classes of the model are called 'crane' \(ids 0, 1\)"):
        evaluate(checkpoint, str(new_photos(tmp_path / "p", "crane")), device="cpu")


def test_a_model_without_names_is_matched_by_number_and_that_is_said(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name_classes(checkpoint, "LABEL_0", "LABEL_1")
    code, out, err = shown(capsys, checkpoint, "--dataset", new_photos(tmp_path / "p", "0", "1"))
    assert code == 0 and json.loads(out)["count"] == 4
    assert "classes: matched by number, because the model's classes have no names" in err

"""What cannot be read at the end of a run costs its row, or its split the score, and never the training."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import attack
import pytest
import tiny
from tiny import at_call
from transformers import AutoModelForImageClassification

from vitft.data.images import ImageSplit
from vitft.train import validation

# The look at the images before the first step does not meet the bad one, as in a dataset that is too large for it.
UNSEEN = {"data__check_images": "off", "data__allow_overlap": True, "run__pictures": "off"}


def photos_with_bad(home: Path, split: str, which: slice) -> Path:
    """Copy the photos and break some of a split."""
    folder = home / f"photos-{split}-{which.start}-{which.stop}"
    if not folder.exists():
        shutil.copytree(home / "photos", folder)
        for path in sorted((folder / split).rglob("*.png"))[which]:
            path.write_bytes(b"no image")
    return folder


def test_a_bad_image_of_the_test_split_costs_its_row(home: Path, whole: Path) -> None:
    photos = photos_with_bad(home, "test", slice(2, 3))
    outcome = attack.start(home, "late-row", data__dataset=str(photos), **UNSEEN)
    run = home / "late-row" / attack.NAME
    assert outcome.code == 0, outcome.text
    assert "test: its score leaves out unreadable images: 1 (" in outcome.text
    found, expected = attack.results(run), attack.results(whole)
    assert found["test"]["count"] == expected["test"]["count"] - 1 == 5
    assert found["validation"] == expected["validation"]
    assert len(found["bad_images"]) == 1 and "of test" in next(iter(found["bad_images"]))
    model = "model/model.safetensors"
    assert (run / model).read_bytes() == (whole / model).read_bytes()


def test_a_split_of_nothing_but_bad_images_costs_its_score(home: Path, whole: Path) -> None:
    photos = photos_with_bad(home, "test", slice(0, 99))
    outcome = attack.start(home, "late-split", data__dataset=str(photos), **UNSEEN)
    run = home / "late-split" / attack.NAME
    assert outcome.code == 0, outcome.text
    found = attack.results(run)
    assert "test" not in found and "no usable samples" in found["unscored"]["test"]
    assert found["validation"] == attack.results(whole)["validation"]
    assert "test has no score, but the model is saved" in outcome.text
    assert "- test has no score" in attack.card(run)
    AutoModelForImageClassification.from_pretrained(run / "model")


def test_a_dataset_that_fails_in_the_final_scoring_costs_a_score(home: Path, whole: Path) -> None:
    def corrupt() -> None:
        raise ValueError("Corrupt snappy compressed data")  # what a cut parquet file raises

    def prepare() -> None:
        at_call(validation, "until_failure", 2, lambda: at_call(ImageSplit, "encoded", 3, corrupt))

    outcome = attack.start(home, "late-parquet", prepare, run__pictures="off")
    assert outcome.code == 0, outcome.text
    found = attack.results(home / "late-parquet" / attack.NAME)
    assert found["unscored"] == {"test": "Corrupt snappy compressed data"}
    assert found["validation"] == attack.results(whole)["validation"]


def test_the_model_is_there_before_it_is_scored(home: Path, whole: Path) -> None:
    run, seen = home / "saved-first" / attack.NAME, home / "seen-first"

    def look() -> None:
        assert not (run / "results.json").exists()
        shutil.copy(run / "model" / "model.safetensors", seen)

    prepare = lambda: at_call(validation, "until_failure", 1, look)  # noqa: E731
    assert attack.start(home, "saved-first", prepare, run__pictures="off").code == 0
    assert seen.read_bytes() == (whole / "model" / "model.safetensors").read_bytes()


def test_a_run_that_met_a_bad_training_image_goes_on_without_it_when_told_so(home: Path) -> None:
    photos = photos_with_bad(home, "train", slice(4, 5))
    skipping = {"data__dataset": str(photos), "data__bad_images": "skip", **UNSEEN}
    assert attack.start(home, "skipping", **skipping).code == 0
    expected = home / "skipping" / attack.NAME

    run = home / "stopping" / attack.NAME
    outcome = attack.start(home, "stopping", data__dataset=str(photos), train__checkpoint_every="1 step", **UNSEEN)
    assert outcome.code == 1 and "--bad-images skip" in outcome.text, outcome.text
    assert attack.resume(run).code == 1  # the same again
    outcome = attack.resume(run, data__bad_images="skip")
    assert outcome.code == 0, outcome.text
    assert "bad_images: skip" in (run / "recipe.yaml").read_text()  # or the recipe would not replay the run
    assert attack.results(run) == attack.results(expected)
    assert tiny.losses(run) == tiny.losses(expected)
    assert json.loads((run / "results.json").read_text())["bad_images"]


@pytest.mark.slow
def test_a_bad_image_that_one_of_two_processes_meets_costs_its_row_in_both(home: Path, whole: Path) -> None:
    photos = photos_with_bad(home, "test", slice(2, 3))
    (home / "two.yaml").write_text(attack.recipe(home, "two", data__dataset=str(photos)).dump())
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("ACCELERATE_", "VITFT_"))}
    done = subprocess.run(
        [sys.executable, "-m", "vitft", "finetune", "--recipe", "two.yaml", "--num-processes", "2"],
        cwd=home,
        env=clean | {"PYTHONPATH": str(Path(__file__).parents[2]), "HF_HOME": str(home / "hf")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = attack.results(home / "two" / attack.NAME)
    assert found["test"]["count"] == 5 and len(found["bad_images"]) == 1

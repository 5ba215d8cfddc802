"""A run is scored again on its own images when no dataset is named, and trained on as a new run."""

import json

import pytest

from vitft import Recipe, evaluate, finetune
from vitft.errors import ModelError, UsageError
from vitft.run import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    changes = {
        "data.dataset": "builtin:digits", "data.max_train_samples": 60, "data.workers": 0, "run.pictures": "off",
        "model.checkpoint": "builtin:vit-micro", "train.duration": "2 steps", "train.batch_size": 8, "run.name": "one",
        "run.output_dir": str(tmp_path_factory.mktemp("runs")), "train.device": "cpu",
        "model.image_size": 16,
    }  # fmt: skip
    return finetune(Recipe.load(None, changes)).run_dir


@pytest.mark.parametrize("split", ["test", "validation"])
def test_the_scores_are_those_of_the_run(run, split):
    expected = json.loads((run / "results.json").read_text())[split]
    found = evaluate(run, split=split, device="cpu").scores
    assert (found["count"], found["top1"]) == (expected["count"], expected["top1"])
    assert found["nll"] == pytest.approx(expected["nll"], rel=1e-5)


def test_a_model_without_a_run_needs_a_dataset(run):
    with pytest.raises(UsageError, match="is not a run with a dataset of its own") as error:
        evaluate(run / "model", device="cpu")
    assert error.value.hint == f"vitft evaluate {run / 'model'} DATASET"


def test_a_split_that_is_not_there_is_an_error_that_lists_the_others(run):
    with pytest.raises(UsageError) as error:
        evaluate(run, split="holdout", device="cpu")
    assert error.value.allowed == "test, validation, train"


def test_a_new_run_goes_on_from_a_finished_one_with_its_head(run):
    changes = Run.open(run).follow_up() | {"train.duration": "1 steps", "optim.lr": 1e-9}
    again = finetune(Recipe.load(run / "recipe.yaml", changes))
    assert again.run_dir != run
    notes = [each["text"] for each in Run(again.run_dir).events() if each["event"] == "note"]
    assert any(note.startswith("head: kept, as") for note in notes)
    before, after = (json.loads((each / "results.json").read_text())["test"]["nll"] for each in (run, again.run_dir))
    assert after == pytest.approx(before, abs=1e-4)


def test_a_run_that_is_not_finished_has_no_model_yet(run, tmp_path):
    begun = Run.create(Recipe.load(None, {"run.output_dir": str(tmp_path), "run.name": "begun"}), "begun")
    with pytest.raises(UsageError, match="is not finished"):
        begun.follow_up()
    with pytest.raises(ModelError, match="is not finished, so it has no model yet") as error:
        evaluate(begun.folder, "builtin:digits", device="cpu")
    assert error.value.hint == f"vitft finetune --resume {begun.folder}"


def test_a_mistyped_run_lists_those_that_there_are(run):
    with pytest.raises(ModelError, match="there is no run") as error:
        evaluate(run.parent / "oen", "builtin:digits", device="cpu")
    assert str(run) in error.value.allowed
    assert error.value.hint == f"{run}, if you mean that"

"""The whole job through the Python interface, on what ships: train, save, score, load without vitft, predict."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from vitft import Recipe, finetune, predict, write_report
from vitft.errors import DataError, ModelError, RecipeError, UsageError
from vitft.report.runs import list_runs

TINY = {
    "data.max_train_samples": 200, "train.duration": "2 epochs", "train.batch_size": 32, "optim.lr": 2e-3,
    "model.checkpoint": "builtin:vit-micro",
}  # fmt: skip


def test_results_have_exact_counts_and_the_promised_keys(finished):
    results = json.loads((finished.run_dir / "results.json").read_text())
    assert results == json.loads(json.dumps(finished.results))
    assert results["validation"]["count"] == 144
    assert results["test"]["count"] == 360
    for split in ("validation", "test"):
        scores = results[split]
        assert {"top1", "top5", "mean_per_class_accuracy", "macro_f1", "nll", "count"} <= scores.keys()
        confusion = np.array(scores["confusion"])
        assert confusion.sum() == scores["count"]
        assert confusion.trace() / scores["count"] == pytest.approx(scores["top1"])
    assert results["train"]["steps"] == 13  # 400 images in steps of 32
    assert results["train"]["samples"] == 400
    assert {"seconds", "images_per_second", "peak_memory_bytes"} <= results["train"].keys()


def test_a_few_seconds_of_training_teach_something(finished):
    assert finished.results["test"]["top1"] > 0.4  # chance is 0.1


def test_the_run_directory_is_what_the_readme_says(finished):
    run = finished.run_dir
    present = {path.name for path in run.iterdir() if not path.name.startswith("vit-micro")}
    assert {"recipe.yaml", "environment.json", "metrics.jsonl", "results.json", "model"} <= present
    assert "checkpoints" not in present  # removed when it was finished
    assert not list(run.rglob("*.partial"))
    assert not [p for p in run.rglob("*") if p.suffix in {".bin", ".pt", ".pkl", ".pth"}]
    environment = json.loads((run / "environment.json").read_text())
    assert environment["dataset"]["id"] == "builtin:digits"
    assert environment["versions"]["torch"] == torch.__version__
    assert list((run / "vitft").rglob("events.out.tfevents*")), "the tracker wrote nothing"


def test_the_stream_of_metrics_has_each_step_once(finished):
    lines = [json.loads(line) for line in (finished.run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["event"] == "step"] == list(range(1, 14))
    assert [line["step"] for line in lines if line["event"] == "validation"] == [7, 13]
    assert any("zero-initialised" in line["text"] for line in lines if line["event"] == "note")


def test_a_run_that_fails_says_why_in_the_list_of_runs(tmp_path, monkeypatch):
    recipe = Recipe.load("quickstart", {**TINY, "data.max_train_samples": 40, "run.output_dir": str(tmp_path)})

    def fail(*_, **__):
        raise RuntimeError("a rare fault\nof a library")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr("vitft.train.fit.fit", fail)
        finetune(recipe)
    [found] = list_runs(tmp_path).runs
    assert (found.state, found.failure) == ("failed", "RuntimeError: a rare fault of a library")
    assert "It failed: RuntimeError: a rare fault" in write_report(found.folder).path.read_text("utf-8")
    finetune(resume=found.folder)
    assert [each.state for each in list_runs(tmp_path).runs] == ["done"]


def test_the_resolved_recipe_replays_the_run(finished, tmp_path):
    recipe = Recipe.load(str(finished.run_dir / "recipe.yaml"), {"run.output_dir": str(tmp_path), "run.track": []})
    again = finetune(recipe)
    weights = [(run / "model" / "model.safetensors").read_bytes() for run in (finished.run_dir, again.run_dir)]
    assert weights[0] == weights[1]
    assert again.results["test"] == finished.results["test"]


def test_a_dry_run_writes_nothing(tmp_path):
    result = finetune(Recipe.load("quickstart", {**TINY, "run.output_dir": str(tmp_path / "runs")}), dry_run=True)
    assert result.run_dir is None
    assert "total_steps" in result.plan_text and "GFLOP" in result.plan_text
    assert not (tmp_path / "runs").exists()


def test_another_metric_is_computed_at_the_end(tmp_path):
    metric = tmp_path / "parity"
    metric.mkdir()
    (metric / "parity.py").write_text(
        "import datasets\nimport evaluate\n"
        "class Parity(evaluate.Metric):\n"
        "    def _info(self):\n"
        "        number = datasets.Value('int64')\n"
        "        features = datasets.Features({'predictions': number, 'references': number})\n"
        "        return evaluate.MetricInfo(description='', citation='', inputs_description='', features=features)\n"
        "    def _compute(self, predictions, references):\n"
        "        return {'parity': sum(p % 2 == r % 2 for p, r in zip(predictions, references)) / len(predictions)}\n"
    )
    changes = {
        **TINY,
        "train.duration": "1 steps",
        "model.image_size": 16,
        "run.output_dir": str(tmp_path / "runs"),
        "run.metrics": [str(metric)],
    }
    results = finetune(Recipe.load("quickstart", changes)).results
    confusion = np.array(results["test"]["confusion"])
    same_parity = sum(confusion[i, j] for i in range(10) for j in range(10) if i % 2 == j % 2)
    assert results["test"]["parity"] == pytest.approx(same_parity / 360)


def test_names_count_up_and_are_never_overwritten(tmp_path):
    changes = {**TINY, "train.duration": "1 steps", "model.image_size": 16, "run.output_dir": str(tmp_path)}
    first = finetune(Recipe.load("quickstart", changes)).run_dir
    second = finetune(Recipe.load("quickstart", changes)).run_dir
    assert (first.name, second.name) == ("vit-micro-digits", "vit-micro-digits-2")
    with pytest.raises(UsageError, match="will not be overwritten"):
        finetune(Recipe.load("quickstart", {**changes, "run.name": first.name}))


@pytest.mark.parametrize("what", ["head", "last:2"])
def test_only_what_should_learn_does(tmp_path, what):
    from safetensors.torch import load_file

    from vitft.builtin import checkpoint_path

    changes = {**TINY, "train.duration": "3 steps", "model.train": what, "run.output_dir": str(tmp_path)}
    run = finetune(Recipe.load("quickstart", changes)).run_dir
    before, after = load_file(checkpoint_path() / "model.safetensors"), load_file(run / "model" / "model.safetensors")
    moved = {
        name for name in before if not name.startswith("classifier") and not torch.equal(before[name], after[name])
    }
    blocks = {int(name.split(".")[3]) for name in moved if ".layer." in name}
    assert blocks == (set() if what == "head" else {4, 5})
    assert not {name for name in moved if "embeddings" in name}
    assert after["classifier.weight"].abs().sum() > 0


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"data.dataset": None}, RecipeError, "names no dataset"),
        ({"data.dataset": "builtin:letters"}, DataError, "not built in"),
        ({"data.dataset": "./no/such/folder"}, DataError, "no/such/folder"),
        ({"model.checkpoint": "./no/such/model"}, ModelError, "no/such/model"),
        ({"model.checkpoint": "builtin:vit-huge"}, ModelError, "builtin:vit-micro"),
        ({"model.image_size": 33}, ModelError, "32 and 36"),
        ({"train.device": "cuda:7"}, UsageError, "cuda:7 is not available"),
        ({"train.precision": "fp16", "train.device": "cpu"}, UsageError, "fp16"),
        ({"model.train": "last:9"}, ModelError, "6 blocks"),
        ({"run.metrics": ["./no-metric"]}, UsageError, "no-metric"),
    ],
)
def test_bad_input_is_explained_before_anything_is_written(tmp_path, changes, kind, message):
    recipe = Recipe.load("quickstart", {**TINY, "run.output_dir": str(tmp_path / "runs"), **changes})
    with pytest.raises(kind, match=message) as error:
        finetune(recipe)
    assert error.value.hint or error.value.allowed
    assert not (tmp_path / "runs").exists()


# --- real data ---------------------------------------------------------------------------------------------

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.mark.real
def test_cifar100_needs_no_other_flag(tmp_path):
    changes = {
        "data.dataset": str(SHARED / "cifar100"), "model.checkpoint": "builtin:vit-micro",
        "run.output_dir": str(tmp_path),
    }  # fmt: skip
    plan = finetune(Recipe.load(None, changes), dry_run=True).plan_text
    assert "450,000 images" in plan  # ten epochs of what is left after carving validation


@pytest.mark.real
def test_a_linear_probe_of_the_real_checkpoint_knows_flowers(tmp_path):
    from transformers import pipeline

    changes = {
        "data.dataset": str(SHARED / "flowers12"), "model.checkpoint": str(SHARED / "vit-tiny-patch16-224"),
        "model.train": "head", "data.max_train_samples": 120, "train.duration": "3 epochs", "train.batch_size": 16,
        "optim.lr": 5e-3, "train.evaluate_every": "100%", "run.output_dir": str(tmp_path),
    }  # fmt: skip
    result = finetune(Recipe.load(None, changes))
    assert result.results["test"]["top1"] > 0.9
    photos = sorted((SHARED / "flowers12" / "test").rglob("*.jpg"))[::24]
    classify = pipeline("image-classification", model=str(result.run_dir / "model"), device="cpu")
    for photo, ours in zip(photos, predict(result.run_dir, photos, top_k=12), strict=True):
        theirs = {each["label"]: each["score"] for each in classify(str(photo), top_k=12)}
        assert all(each["score"] == pytest.approx(theirs[each["label"]], abs=2e-3) for each in ours["predictions"])

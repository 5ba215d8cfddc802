"""The whole job through the Python interface, on what ships: train, save, score, load without vitft, predict."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vitft import Recipe, cli, evaluate, finetune, predict
from vitft.errors import DataError, ModelError, RecipeError, UsageError
from vitft.recipe.keys import DataRecipe
from vitft.tasks import EvaluationResult, SizeSweep, evaluate_sizes

TINY = {
    "data.max_train_samples": 200, "train.duration": "2 epochs", "train.batch_size": 32, "optim.lr": 2e-3,
    "model.checkpoint": "builtin:vit-micro",
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of a few seconds on digits."""
    folder = tmp_path_factory.mktemp("runs")
    recipe = Recipe.load("quickstart", {**TINY, "run.output_dir": str(folder), "run.track": ["tensorboard"]})
    return finetune(recipe)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Test digits as files in class folders."""
    from vitft.builtin.digits import load_digits

    folder = tmp_path_factory.mktemp("digits")
    for number, row in enumerate(load_digits()["test"].select(range(40))):
        place = folder / "test" / str(row["label"])
        place.mkdir(parents=True, exist_ok=True)
        row["image"].convert("RGB").save(place / f"{number}.png")
    return folder


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
    assert {"recipe.yaml", "environment.json", "metrics.jsonl", "results.json", "checkpoints", "model"} <= present
    assert not list(run.rglob("*.partial"))
    assert not [p for p in run.rglob("*") if p.suffix in {".bin", ".pt", ".pkl", ".pth"}]
    environment = json.loads((run / "environment.json").read_text())
    assert environment["dataset"]["id"] == "builtin:digits"
    assert environment["versions"]["torch"] == torch.__version__
    assert list(run.rglob("events.out.tfevents*")), "the tracker wrote nothing"


def test_the_stream_of_metrics_has_each_step_once(finished):
    lines = [json.loads(line) for line in (finished.run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["event"] == "step"] == list(range(1, 14))
    assert [line["step"] for line in lines if line["event"] == "validation"] == [7, 13]
    assert any("zero-initialised" in line["text"] for line in lines if line["event"] == "note")


def test_the_resolved_recipe_replays_the_run(finished, tmp_path):
    recipe = Recipe.load(str(finished.run_dir / "recipe.yaml"), {"run.output_dir": str(tmp_path), "run.track": []})
    again = finetune(recipe)
    weights = [(run / "model" / "model.safetensors").read_bytes() for run in (finished.run_dir, again.run_dir)]
    assert weights[0] == weights[1]
    assert again.results["test"] == finished.results["test"]


def test_plain_transformers_loads_the_result_and_agrees_with_predict(finished, digits):
    from transformers import AutoModelForImageClassification, pipeline

    _, info = AutoModelForImageClassification.from_pretrained(finished.run_dir / "model", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    classify = pipeline("image-classification", model=str(finished.run_dir / "model"), device="cpu")
    files = sorted(digits.rglob("*.png"))[:12]
    for file, ours in zip(files, predict(finished.run_dir, files, top_k=10), strict=True):
        theirs = {each["label"]: each["score"] for each in classify(Image.open(file), top_k=10)}
        for each in ours["predictions"]:
            assert each["score"] == pytest.approx(theirs[each["label"]], abs=2e-3)
        assert sum(each["score"] for each in ours["predictions"]) == pytest.approx(1, abs=1e-5)


def test_evaluate_agrees_with_the_run_and_with_predict(finished, digits):
    scores = evaluate(finished.run_dir, "builtin:digits").scores
    assert scores["count"] == 360
    assert scores["top1"] == finished.results["test"]["top1"]
    assert scores["nll"] == pytest.approx(finished.results["test"]["nll"], rel=1e-5)
    assert "shift_consistency" not in scores
    moved = evaluate(finished.run_dir, "builtin:digits", shift=2)
    assert 0 < moved.scores["shift_consistency"] < 1
    assert f"{100 * moved.scores['shift_consistency']:.2f}%" in str(moved)
    files = sorted(digits.rglob("*.png"))
    right = sum(
        each["predictions"][0]["label"] == file.parent.name
        for file, each in zip(files, predict(finished.run_dir, files, top_k=1), strict=True)
    )
    folder = evaluate(finished.run_dir, str(digits), split="test").scores
    assert folder["count"] == 40
    assert folder["top1"] == right / 40


def test_predict_reports_what_it_cannot_read(finished, digits, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"<html>404</html>")
    good = next(digits.rglob("*.png"))
    answers = predict(finished.run_dir, [good, broken, tmp_path / "absent.png"], top_k=2)
    assert [sorted(answer) for answer in answers] == [["image", "predictions"], ["error", "image"], ["error", "image"]]
    assert len(answers[0]["predictions"]) == 2


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
        "run.output_dir": str(tmp_path / "runs"),
        "run.metrics": [str(metric)],
    }
    results = finetune(Recipe.load("quickstart", changes)).results
    confusion = np.array(results["test"]["confusion"])
    same_parity = sum(confusion[i, j] for i in range(10) for j in range(10) if i % 2 == j % 2)
    assert results["test"]["parity"] == pytest.approx(same_parity / 360)


def test_names_count_up_and_are_never_overwritten(tmp_path):
    changes = {**TINY, "train.duration": "1 steps", "run.output_dir": str(tmp_path)}
    first = finetune(Recipe.load("quickstart", changes)).run_dir
    second = finetune(Recipe.load("quickstart", changes)).run_dir
    assert (first.name, second.name) == ("vit-micro-digits", "vit-micro-digits-2")
    with pytest.raises(UsageError, match="not overwritten"):
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
        ({"train.device": "cuda:7"}, UsageError, "cuda:7 is not there"),
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


def test_evaluating_with_other_classes_names_them(finished, tmp_path):
    for kind in ("cat", "dog"):
        (tmp_path / "test" / kind).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / "test" / kind / "a.png")
    with pytest.raises(DataError, match="cat"):
        evaluate(finished.run_dir, DataRecipe(dataset=str(tmp_path)))


# --- sizes -------------------------------------------------------------------------------------------------


def test_a_run_is_scored_at_several_sizes(finished, digits):
    sweep = evaluate_sizes(finished.run_dir, str(digits), [(32, 32), (24, 24), (32, 48)])
    assert [row.image_size for row in sweep.rows] == [(32, 32), (24, 24), (32, 48)]
    assert sweep.own_size == (32, 32)
    assert all(row.scores["count"] == 40 and row.images_per_second > 0 for row in sweep.rows)
    alone = evaluate(finished.run_dir, str(digits))
    same = evaluate(finished.run_dir, str(digits), image_size=(24, 24))
    assert sweep.rows[0].scores["nll"] == pytest.approx(alone.scores["nll"])
    assert sweep.rows[1].scores["nll"] == pytest.approx(same.scores["nll"])
    assert len({round(row.scores["nll"], 6) for row in sweep.rows}) == 3, "another size is another input"
    assert "32x48" in str(sweep) and "images/s" in str(sweep)


def test_an_impossible_size_is_found_before_the_first_is_scored(finished, digits, monkeypatch):
    monkeypatch.setattr("vitft.tasks.evaluating._score", lambda *_: pytest.fail("a size was scored"))
    with pytest.raises(ModelError, match="30x30 is not divisible by 4"):
        evaluate_sizes(finished.run_dir, str(digits), [(32, 32), (30, 30)])


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ({16: 0.5, 32: 0.9, 48: 0.8}, "best at the checkpoint's own 32x32"),
        ({32: 0.50, 48: 0.52}, "+2.00 points over the checkpoint's own 32x32, not more than chance explains"),
        ({32: 0.50, 48: 0.90}, "+40.00 points over the checkpoint's own 32x32, more than chance explains"),
        ({16: 0.5, 48: 0.9}, "the checkpoint's own 32x32 was not tried"),
    ],
)
def test_the_question_of_the_best_size_is_answered(scores, words):
    rows = [
        EvaluationResult({"top1": top1, "count": 1000}, "test", (side, side), 10.0) for side, top1 in scores.items()
    ]
    assert words in SizeSweep(rows, (32, 32)).conclusion()


def test_evaluate_with_several_sizes_prints_one_document_and_draws(finished, digits, tmp_path, capsys):
    words = ["evaluate", str(finished.run_dir), "--dataset", str(digits), "--image-size", "24,32"]
    assert cli._run([*words, "--format", "json", "--plot", str(tmp_path / "sizes.svg")])[0] == 0
    said = json.loads(capsys.readouterr().out)
    assert [row["image_size"] for row in said["sizes"]] == [[24, 24], [32, 32]]
    assert "top-1" in Path(said["plot"]).read_text()
    assert cli._run([*words, "--plot", str(tmp_path / "sizes.jpeg")])[0] == 2
    assert cli._run([*words, "--metrics", "f1"])[0] == 2
    assert cli._run([*words[:-1], "24", "--plot", str(tmp_path / "a.png")])[0] == 2


def test_files_are_labelled_at_another_size(finished, digits):
    photos = sorted((digits / "test").rglob("*.png"))[:4]
    own, larger = predict(finished.run_dir, photos), predict(finished.run_dir, photos, image_size=(48, 48))
    assert [row["predictions"] for row in own] != [row["predictions"] for row in larger]


# --- real data ---------------------------------------------------------------------------------------------

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


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

"""Scoring a finished model, as trained and at other sizes."""

import json
from pathlib import Path

import pytest
from PIL import Image

from vitft import cli, evaluate, predict, write_report
from vitft.errors import DataError, ModelError, UsageError
from vitft.recipe.keys import DataRecipe
from vitft.scoring.predictions import read_predictions
from vitft.tasks import EvaluationResult, SizeSweep, evaluate_sizes
from vitft.tasks.judging import open_judged
from vitft.tasks.models import load_model


def test_evaluate_agrees_with_the_run_and_with_predict(finished, digits):
    scores = evaluate(finished.run_dir, "builtin:digits").scores
    assert scores["count"] == 360
    assert scores["top1"] == finished.results["test"]["top1"]
    assert scores["nll"] == pytest.approx(finished.results["test"]["nll"], rel=1e-5)
    assert "shift_consistency" not in scores
    moved = evaluate(finished.run_dir, str(digits), split="test", shift=2)
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


def test_a_split_that_a_run_used_in_part_says_what_is_scored(finished, tmp_path, capsys):
    classifier, accelerator = load_model(finished.run_dir, "fp32", "cpu")

    def opened(dataset, split):
        capsys.readouterr()
        rows = open_judged(classifier, accelerator, dataset, split).rows
        return rows.name, len(rows), capsys.readouterr().err

    name, count, said = opened(None, "train")  # which validation was carved out of
    assert (name, count) == ("train", 200)
    assert "200 images  (part of train)" in said and "note: train: 200 of 1,293 rows" in said
    _, count, said = opened(DataRecipe(dataset="builtin:digits", max_train_samples=7), "train")
    assert count == 1437 and "data.max_train_samples is for training: all 1,437 images of train are used" in said
    assert f"used 200 for train and 144 for validation; to score those: vitft evaluate {finished.run_dir} --spl" in said
    # Other data than the run had may give other parts, and a stream has always others.
    classifier.name = str(tmp_path)
    known = json.loads((finished.run_dir / "environment.json").read_text())
    (tmp_path / "environment.json").write_text(json.dumps({"dataset": known["dataset"] | {"fingerprint": "another"}}))
    recipe = (finished.run_dir / "recipe.yaml").read_text()
    (tmp_path / "recipe.yaml").write_text(recipe)
    assert "the dataset has changed since" in opened(None, "validation")[2]
    (tmp_path / "recipe.yaml").write_text(recipe.replace("streaming: false", "streaming: true"))
    with pytest.raises(UsageError, match="read its dataset as a stream, so its validation images are not known"):
        opened(None, "validation")


def test_evaluating_with_other_classes_names_them(finished, tmp_path):
    for kind in ("cat", "dog"):
        (tmp_path / "test" / kind).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / "test" / kind / "a.png")
    with pytest.raises(DataError, match="cat"):
        evaluate(finished.run_dir, DataRecipe(dataset=str(tmp_path)))


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
    frame = sweep.to_pandas()
    assert frame[["height", "width"]].values.tolist() == [[32, 32], [24, 24], [32, 48]]
    assert frame["top1"].tolist() == [row.scores["top1"] for row in sweep.rows]
    assert alone.to_pandas()["images"].sum() == 40
    assert alone.to_pandas()["class"].tolist() == [str(digit) for digit in range(10)]
    assert alone._repr_html_() == f"<pre>{alone}</pre>"


def test_an_impossible_size_is_found_before_the_first_is_scored(finished, digits, monkeypatch):
    monkeypatch.setattr("vitft.tasks.evaluating._score", lambda *_: pytest.fail("a size was scored"))
    with pytest.raises(ModelError, match="30x30 is not divisible by 4"):
        evaluate_sizes(finished.run_dir, str(digits), [(32, 32), (30, 30)])


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ({16: 0.5, 32: 0.9, 48: 0.8}, "no size has a higher top-1 than the checkpoint's own 32x32"),
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


def test_an_evaluation_keeps_its_predictions(finished, digits, tmp_path):
    result = evaluate(finished.run_dir, str(digits), split="test", out=tmp_path / "kept")
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {
        "evaluation.json", "predictions-test.parquet", "report.html", "scores.json", "thumbnails",
    }  # fmt: skip
    assert json.loads((tmp_path / "kept" / "scores.json").read_text())["top1"] == result.scores["top1"]
    said, sources = read_predictions(
        tmp_path / "kept" / "predictions-test.parquet", result.scores["per_class"]["class"]
    )
    assert said.is_correct.mean() == result.scores["top1"]
    assert sorted(sources) == sorted(str(path) for path in digits.rglob("*.png"))
    with pytest.raises(UsageError, match="already exists"):
        evaluate(finished.run_dir, str(digits), out=tmp_path / "kept")
    # Again from the folder alone, and beside another evaluation on the same images.
    page = (tmp_path / "kept" / "report.html").read_text("utf-8")
    assert "could not be made" not in page and 'class="gaps"' not in page and "evaluation <bdi>kept</bdi>" in page
    for part in ("scores", "confusion", "classes", "mistakes", "trust", "environment"):
        assert f'id="{part}"' in page
    wrong = said.take(~said.is_correct)
    shown = page[page.index('id="mistakes"') : page.index('id="pairs"')]
    assert shown.count("data:image/jpeg") == min(20, len(wrong)) > 0
    assert write_report(tmp_path / "kept").path == tmp_path / "kept" / "report.html"
    assert (tmp_path / "kept" / "report.html").read_text("utf-8") == page
    evaluate(finished.run_dir, str(digits), split="test", out=tmp_path / "again")
    [test] = write_report([tmp_path / "kept", tmp_path / "again"], tmp_path / "two.html").comparison.tests
    assert (test.count, test.only_one, test.only_other) == (40, 0, 0)
    (tmp_path / "again" / "evaluation.json").write_text('{"split": "test"}')
    with pytest.raises(UsageError, match=r"again cannot be read: [\s\S]*vitft evaluate MODEL DATASET -o"):
        write_report(tmp_path / "again")


def test_an_evaluation_without_its_page_keeps_its_scores(finished, digits, tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise RuntimeError("no pen")

    monkeypatch.setattr("vitft.report.page.run_page", fail)
    words = ["evaluate", str(finished.run_dir), str(digits), "--split", "test", "-o", str(tmp_path / "kept")]
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    said = capsys.readouterr()
    assert ended.value.code == 0
    assert f"no page was written: RuntimeError: no pen; to make it: vitft report {tmp_path / 'kept'}" in said.err
    assert f"scores and predictions: {tmp_path / 'kept'}" in said.err and "report: " not in said.err
    monkeypatch.undo()
    with pytest.raises(SystemExit):
        cli.main(["report", str(tmp_path / "kept")])
    assert (tmp_path / "kept" / "report.html").is_file()


def test_an_evaluation_tells_every_class_on_demand(finished, digits, capsys):
    words = ["evaluate", str(finished.run_dir), str(digits), "--split", "test"]
    with pytest.raises(SystemExit):
        cli.main([*words, "--per-class"])
    said = capsys.readouterr().out
    assert "95 % interval" in said
    lines = said.splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("each class"))
    assert [line.split()[0] for line in lines[start + 1 : start + 11]] == [str(digit) for digit in range(10)]


def test_a_run_keeps_the_predictions_of_both_splits(finished):
    for split in ("validation", "test"):
        scores = finished.results[split]
        said, sources = read_predictions(finished.run_dir / f"predictions-{split}.parquet", finished.results["classes"])
        assert len(said) == scores["count"] and said.is_correct.mean() == pytest.approx(scores["top1"])
        assert len(set(sources)) == len(sources) and sources[0].startswith("row ")

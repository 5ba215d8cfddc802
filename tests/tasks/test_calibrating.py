"""A temperature for a finished model: fitted, reported, stored, applied, folded."""

import json
import shutil

import pytest
import torch
import torch.nn.functional as F

from vitft import evaluate, predict, write_report
from vitft.errors import DataError, ModelError, TrainError, UsageError
from vitft.ownership import Ownership
from vitft.recipe.keys import DataRecipe
from vitft.scoring.calibration import Temperature
from vitft.tasks import calibrating


@pytest.fixture(scope="module")
def calibrated(finished, tmp_path_factory):
    """A calibrated copy of the run with a folded model beside it, and the result."""
    home = tmp_path_factory.mktemp("calibrated")
    run = shutil.copytree(finished.run_dir, home / "run")
    return run, evaluate(run, calibrate=True, fold_temperature=home / "folded", precision="fp32"), home / "folded"


def stored(run):
    return json.loads((run / "model" / "calibration.json").read_text())


def labels_of(rows):
    return [[each["label"] for each in row["predictions"]] for row in rows]


def scores_of(rows):
    return {row["image"]: {each["label"]: each["score"] for each in row["predictions"]} for row in rows}


def test_the_result_has_the_scores_before_and_after(calibrated, finished):
    _, result, _ = calibrated
    found = result.scores["calibration"]
    assert result.split == "test"
    assert result.scores["nll"] == pytest.approx(finished.results["test"]["nll"], rel=1e-5)
    assert found["fitted_on"] == {
        "dataset": "builtin:digits", "split": "validation", "count": finished.results["validation"]["count"],
    }  # fmt: skip
    for name in ("nll", "brier", "ece", "ece_equal_count"):
        low, high = found["intervals"][name]
        assert low <= high and found[name] >= 0
    assert sum(each["count"] for each in found["reliability"]["equal_width"]) == result.scores["count"]
    assert found["nll"] <= result.scores["intervals"]["nll"][1]
    said = str(result).splitlines()
    assert [line.split()[0] for line in said[-3:-1]] == ["before", "after"]
    assert said[-1].startswith(f"temperature {found['temperature']:.4g}, fitted on")


def test_the_temperature_is_the_one_of_the_kept_logits(calibrated):
    """Fit it once more on logits from plain transformers."""
    from vitft.data.evaluation_batches import evaluation_batches
    from vitft.model.load import load_finished
    from vitft.reading.source import open_source

    run, result, _ = calibrated
    classifier = load_finished(run / "model", "run")
    rows = open_source(DataRecipe(dataset="builtin:digits"), seed=0).validation
    logits, labels = [], []
    for batch in evaluation_batches(rows, classifier.process, batch_size=64, skip_bad=False, workers=0, pin=False):
        with torch.no_grad():
            logits.append(classifier.model(classifier.pixel_values(batch.images)).logits.double())
        labels.append(batch.labels)
    logits, labels, best = torch.cat(logits), torch.cat(labels), result.scores["calibration"]["temperature"]
    lowest = float(F.cross_entropy(logits / best, labels))
    assert all(float(F.cross_entropy(logits / (best * factor), labels)) > lowest for factor in (0.99, 1.01))


def test_the_temperature_is_stored_beside_the_model_and_in_the_card(calibrated):
    run, result, _ = calibrated
    content, found = stored(run), result.scores["calibration"]
    assert found["stored"] == str(run / "model" / "calibration.json")
    assert content["temperature"] == found["temperature"]
    assert content["scored_on"] == {"dataset": "builtin:digits", "split": "test", "count": 360}
    assert content["before"]["nll"] == result.scores["nll"] and content["after"]["nll"] == found["nll"]
    assert not list((run / "model").glob(".*"))
    card = (run / "model" / "README.md").read_text()
    assert f"temperature of {found['temperature']:.3f}" in card and "--calibrated" in card


def test_a_run_in_use_is_refused(calibrated):
    run, *_ = calibrated
    owner = Ownership.take(run)
    try:
        for named in (run, run / "model"):
            with pytest.raises(TrainError, match=f"the run {run} is in use by this process"):
                evaluate(named, "builtin:digits", split="test", calibrate=True)
    finally:
        owner.release()


def test_the_page_shows_the_reliability_before_and_after(calibrated, digits, tmp_path, capsys):
    run, result, _ = calibrated
    evaluate(run, str(digits), split="test", calibrate=True, out=tmp_path / "kept")
    page = (tmp_path / "kept" / "report.html").read_text("utf-8")
    said = "The dashed line is the model with its temperature."
    assert said in page and "scored on test (40 images)" in page and "could not be made" not in page
    own = shutil.copytree(run, tmp_path / "own")
    assert said not in write_report(own).path.read_text("utf-8")  # the temperature was judged on other images
    (own / "model" / "calibration.json").write_text(json.dumps(stored(own) | {"temperature": 3.25}))
    capsys.readouterr()
    evaluate(own, calibrate=True)
    value = result.scores["calibration"]["temperature"]
    replaced = f"the temperature {value:.4g} replaces 3.25, which was fitted on validation of builtin:digits"
    assert replaced in capsys.readouterr().err and not (own / ".lock").exists()
    assert said in (own / "report.html").read_text("utf-8")
    bins = stored(own)["after"]["reliability"]["equal_width"]
    assert sum(each["count"] for each in bins) == stored(own)["scored_on"]["count"] == 360


def test_predict_applies_the_temperature_when_asked_and_never_otherwise(calibrated, finished, digits):
    run, result, _ = calibrated
    files = sorted(digits.rglob("*.png"))[:12]
    before, after = (
        predict(run, files, top_k=10, precision="fp32", calibrated=calibrated) for calibrated in (False, True)
    )
    assert before == predict(finished.run_dir, files, top_k=10, precision="fp32")
    assert labels_of(before) == labels_of(after), "no prediction changes, nor the order of the others"
    temperature = result.scores["calibration"]["temperature"]
    for one, other in zip(before, after, strict=True):
        logits = torch.tensor([each["score"] for each in one["predictions"]], dtype=torch.float64).log()
        expected = (logits / temperature).softmax(0).tolist()
        assert [each["score"] for each in other["predictions"]] == pytest.approx(expected, abs=1e-9)


def test_the_folded_model_in_a_plain_pipeline_is_the_calibrated_one(calibrated, digits):
    from PIL import Image
    from transformers import AutoModelForImageClassification, pipeline

    run, result, folded = calibrated
    files = sorted(digits.rglob("*.png"))[:12]
    classify = pipeline("image-classification", model=str(folded), device="cpu")
    ours = scores_of(predict(run, files, top_k=10, precision="fp32", calibrated=True))
    for file in files:
        theirs = {each["label"]: each["score"] for each in classify(Image.open(file), top_k=10)}
        assert ours[str(file)] == pytest.approx(theirs, abs=1e-5)
    own = AutoModelForImageClassification.from_pretrained(run / "model").state_dict()
    copy = AutoModelForImageClassification.from_pretrained(folded).state_dict()
    changed = {name for name in own if not torch.equal(own[name], copy[name])}
    assert changed <= {"classifier.weight", "classifier.bias"} and "classifier.weight" in changed
    content = json.loads((folded / "calibration.json").read_text())
    assert content["temperature"] == 1.0 and content["folded"] == result.scores["calibration"]["temperature"]


def test_a_run_is_scored_on_other_images_than_its_own(calibrated, digits, tmp_path):
    run = shutil.copytree(calibrated[0], tmp_path / "run")
    result = evaluate(run, str(digits), calibrate=True)
    assert result.scores["count"] == 40
    found = result.scores["calibration"]
    assert found["temperature"] == pytest.approx(calibrated[1].scores["calibration"]["temperature"], rel=0.02)
    assert stored(run)["scored_on"] == {"dataset": digits.name, "split": "test", "count": 40}, "and no path"


def test_a_model_folder_is_fitted_on_the_validation_split_of_the_dataset(calibrated, digits, tmp_path):
    model = shutil.copytree(calibrated[0] / "model", tmp_path / "model")
    (model / "calibration.json").unlink()
    files = next((digits / "test").iterdir())
    with pytest.raises(DataError, match=r"no validation split[\s\S]*data.validation_split"):
        evaluate(model, str(digits), calibrate=True)
    shutil.copytree(digits / "test", tmp_path / "photos" / "test")
    shutil.copytree(digits / "test", tmp_path / "photos" / "val", ignore=lambda *_: [files.name])
    found = evaluate(model, str(tmp_path / "photos"), calibrate=True).scores["calibration"]
    assert found["fitted_on"] == {"dataset": "photos", "split": "val", "count": 40 - len(list(files.iterdir()))}
    shutil.rmtree(tmp_path / "photos" / "test")
    with pytest.raises(UsageError, match="would be scored too"):
        evaluate(model, str(tmp_path / "photos"), calibrate=True)


def test_what_cannot_be_calibrated_says_what_to_do(calibrated, digits, tmp_path, finished):
    run, _, folded = calibrated
    photo = [next(digits.rglob("*.png"))]
    with pytest.raises(UsageError, match=r"would be scored too[\s\S]*vitft evaluate"):
        evaluate(run, split="validation", calibrate=True)
    with pytest.raises(UsageError, match=r"valid for one image size[\s\S]*vitft resize"):
        evaluate(run, calibrate=True, image_size=(48, 48))
    with pytest.raises(UsageError, match="add --calibrate"):
        evaluate(run, fold_temperature=tmp_path / "out")
    with pytest.raises(ModelError, match="already exists"):
        evaluate(run, calibrate=True, fold_temperature=folded)
    with pytest.raises(ModelError, match=rf"not calibrated[\s\S]*vitft evaluate {finished.run_dir} --calibrate"):
        predict(finished.run_dir, photo, calibrated=True)
    with pytest.raises(UsageError, match="calibrated at 32x32 only"):
        predict(run, photo, calibrated=True, image_size=(48, 48))


def test_a_model_that_cannot_be_written_to_keeps_its_result(calibrated, monkeypatch, capsys):
    run, _, _ = calibrated
    before = stored(run)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("vitft.disk.flush", refuse)
    again = evaluate(run, calibrate=True)
    assert again.scores["calibration"]["stored"] is None
    assert "was not stored" in capsys.readouterr().err
    assert stored(run) == before and not list((run / "model").glob(".*"))


def test_a_bound_is_said_and_neither_stored_nor_folded(calibrated, tmp_path, monkeypatch, capsys):
    run, _, _ = calibrated
    before = stored(run)
    monkeypatch.setattr("vitft.scoring.calibration.TemperatureFit.solve", lambda _: Temperature(0.01, 9, "lower"))
    result = evaluate(run, calibrate=True)
    assert result.scores["calibration"]["at_bound"] == "lower"
    assert "a bound (0.01 to 100)" in str(result) and "was not stored" in capsys.readouterr().err
    assert stored(run) == before
    with pytest.raises(DataError, match="no temperature to fold"):
        evaluate(run, calibrate=True, fold_temperature=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_sentence_says_how_sure_the_model_was():
    scores = dict.fromkeys(("nll", "brier", "ece", "ece_equal_count"), 0.5)
    found = scores | {"at_bound": None, "fitted_on": {"dataset": "d", "split": "val", "count": 1200}}
    for temperature, words in ((1.5, "too sure"), (0.5, "not sure enough"), (1.02, "about as sure as it should be")):
        text = calibrating.in_words(scores | {"calibration": found | {"temperature": temperature}})
        assert words in text and "1,200 images (val of d)" in text
    found |= {"temperature": 100.0, "at_bound": "upper", "bounds": [0.01, 100.0]}
    assert "the 1,200 val images are classified no better than by chance" in calibrating.in_words(
        scores | {"calibration": found}
    )

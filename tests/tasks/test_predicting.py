"""Labelling files with a finished model, as plain transformers would."""

import pytest
import torch
from PIL import Image

from vitft import predict, predict_each
from vitft.errors import ModelError


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


def test_predict_reports_what_it_cannot_read(finished, digits, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"<html>404</html>")
    good = next(digits.rglob("*.png"))
    answers = predict(finished.run_dir, [good, broken, tmp_path / "absent.png"], top_k=2)
    assert [sorted(answer) for answer in answers] == [["image", "predictions"], ["error", "image"], ["error", "image"]]
    assert len(answers[0]["predictions"]) == 2


def test_files_are_labelled_at_another_size(finished, digits):
    photos = sorted((digits / "test").rglob("*.png"))[:4]
    own, larger = predict(finished.run_dir, photos), predict(finished.run_dir, photos, image_size=(48, 48))
    assert [row["predictions"] for row in own] != [row["predictions"] for row in larger]


def test_predictions_are_a_table_for_pandas_and_notebooks(finished, digits, tmp_path):
    good = next(digits.rglob("*.png"))
    found = predict(finished.run_dir, [good, tmp_path / "<absent>.png"], top_k=2)
    frame = found.to_pandas()
    assert list(frame.columns) == ["image", "rank", "label", "score", "error"]
    assert frame["rank"].fillna(0).tolist() == [1, 2, 0]
    assert frame["label"].tolist()[:2] == [each["label"] for each in found[0]["predictions"]]
    assert "does not exist" in frame["error"].iloc[2]
    page = found._repr_html_()
    assert "<table" in page and "&lt;absent&gt;" in page


def test_predictions_come_as_they_are_computed(finished, digits):
    files = sorted(digits.rglob("*.png"))[:3]
    rows = predict_each(finished.run_dir, files, batch_size=1)
    assert next(rows)["image"] == str(files[0])
    assert [row["image"] for row in rows] == [*map(str, files[1:])]


@pytest.mark.parametrize("kind", ["regression", "multi_label_classification"])
def test_a_model_that_chooses_no_class_has_no_temperature(kind, digits, tmp_path):
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    torch.manual_seed(0)
    config = ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, image_size=32)
    config.problem_type = kind
    ViTForImageClassification(config).save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="does not choose one class per image"):
        predict(tmp_path, [next(digits.rglob("*.png"))], calibrated=True)

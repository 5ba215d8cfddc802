"""Running a model over images, against the model called directly."""

import copy

import pytest
import torch
from model import zoo
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil, pipeline

from vitft.errors import ModelError
from vitft.model.pixels import ImageProcess
from vitft.scoring.prediction import predict_files


@pytest.fixture
def process():
    return ImageProcess(ViTImageProcessorPil(size={"height": 16, "width": 16}, image_std=[0.2, 0.3, 0.4]), (16, 16))


@pytest.fixture
def photos(tmp_path):
    """Seven images, the third of which is none."""
    generator = torch.Generator().manual_seed(0)
    paths = [tmp_path / f"{number}.png" for number in range(7)]
    for number, path in enumerate(paths):
        pixels = torch.randint(0, 256, (20 + number, 30, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(path)
    paths[2].write_bytes(b"no image")
    return paths


def predictions(model, process, paths, accelerator, batch_size=3, top_k=5):
    return list(
        predict_files(
            zoo.loaded(model, process.processor, process.size), paths, accelerator, batch_size=batch_size, top_k=top_k
        )
    )


def test_files_come_in_order_with_what_the_model_says_of_each(model, process, photos, accelerator):
    made = predictions(model, process, photos, accelerator)
    assert [each["image"] for each in made] == [str(path) for path in photos]
    for path, each in zip(photos, made, strict=True):
        if path == photos[2]:
            continue
        pixels = torch.as_tensor(process.processor(Image.open(path))["pixel_values"][0])
        with torch.no_grad():
            probs = model(pixels[None].float()).logits[0].softmax(-1)
        assert [p["label"] for p in each["predictions"]] == [
            model.config.id2label[int(k)] for k in probs.argsort(descending=True)
        ]
        assert [p["score"] for p in each["predictions"]] == pytest.approx(
            sorted(probs.tolist(), reverse=True), abs=1e-5
        )
    assert len({tuple(p["score"] for p in each["predictions"]) for each in made if "predictions" in each}) == 6


def test_the_only_block_runs_for_the_class_token_alone(model, process, photos, accelerator, queries):
    predictions(model, process, photos, accelerator)
    assert queries == {1}


def test_a_file_that_is_no_image_has_a_reason_and_harms_no_other(model, process, photos, accelerator):
    made = predictions(model, process, photos, accelerator)
    assert set(made[2]) == {"image", "error"} and made[2]["error"]
    without = predictions(model, process, [*photos[:2], *photos[3:]], accelerator)
    others = [*made[:2], *made[3:]]
    for mine, other in zip(others, without, strict=True):
        scores = [[p["score"] for p in each["predictions"]] for each in (mine, other)]
        assert scores[0] == pytest.approx(scores[1], rel=1e-5)


def test_a_missing_file_has_a_reason_too(model, process, tmp_path, accelerator):
    (made,) = predictions(model, process, [tmp_path / "nowhere.png"], accelerator)
    assert made["error"]


def test_the_batch_size_does_not_matter_and_top_k_is_capped(model, process, photos, accelerator):
    whole = predictions(model, process, photos, accelerator, batch_size=100, top_k=2)
    single = predictions(model, process, photos, accelerator, batch_size=1, top_k=2)
    for one, other in zip(whole, single, strict=True):
        assert one["image"] == other["image"]
        first, second = one.get("predictions", []), other.get("predictions", [])
        assert [p["label"] for p in first] == [p["label"] for p in second]
        assert len(first) in (0, 2)
    assert (
        len(predictions(model, process, photos[:1], accelerator, top_k=9)[0]["predictions"]) == model.config.num_labels
    )


def test_the_same_file_twice_is_predicted_twice(model, process, photos, accelerator):
    first, second = predictions(model, process, [photos[0], photos[0]], accelerator)
    assert first == second


def test_a_model_in_training_mode_predicts_without_dropout(model, process, photos, accelerator):
    expected = predictions(model, process, photos[:2], accelerator)
    model.train()
    assert predictions(model, process, photos[:2], accelerator) == expected


# --- what the scores mean ----------------------------------------------------------------------------------

KINDS = [
    (kind, count)
    for kind in (None, "single_label_classification", "multi_label_classification", "regression")
    for count in (1, 2, 4)
    if (kind, count) != ("single_label_classification", 1)  # which transformers refuses
]


@pytest.mark.parametrize(("kind", "count"), KINDS)
def test_scores_are_those_of_the_pipeline_whatever_the_model_was_trained_for(
    kind, count, process, photos, accelerator, tmp_path
):
    torch.manual_seed(count)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=16, patch_size=8,
        num_labels=count, problem_type=kind,
    )  # fmt: skip
    model = ViTForImageClassification(config).eval()
    torch.nn.init.normal_(model.classifier.weight)
    classify = pipeline("image-classification", model=model, image_processor=process.processor)
    files = [photos[0], photos[1]]
    made = predictions(model, process, files, accelerator)
    # By default, transformers 5.17 turns the values of a regression into probabilities; later versions do not.
    told = {"function_to_apply": "none"} if kind == "regression" else {}
    for path, mine in zip(files, made, strict=True):
        theirs = classify(Image.open(path), **told)
        assert [each["label"] for each in mine["predictions"]] == [each["label"] for each in theirs]
        assert [each["score"] for each in mine["predictions"]] == pytest.approx(
            [each["score"] for each in theirs], abs=1e-5
        )


def test_equal_scores_stand_in_the_order_of_the_pipeline(process, photos, accelerator, model):
    flat = copy.deepcopy(model)
    torch.nn.init.zeros_(flat.classifier.weight)
    classify = pipeline("image-classification", model=flat, image_processor=process.processor)
    [mine] = predictions(flat, process, photos[:1], accelerator)
    assert [p["label"] for p in mine["predictions"]] == [p["label"] for p in classify(Image.open(photos[0]))]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_an_error_and_no_prediction(value, model, process, photos, accelerator):
    broken = copy.deepcopy(model)
    broken.classifier.bias.data[1] = value
    with pytest.raises(ModelError, match="not finite"):
        predictions(broken, process, photos, accelerator)


def test_a_large_image_is_an_error_and_a_large_jpeg_is_halved_with_a_note(process, model, tmp_path, accelerator):
    paths = [tmp_path / "a.png", tmp_path / "a.jpg"]
    for path in paths:
        Image.new("RGB", (60, 50)).save(path)
    classifier = zoo.loaded(model, process.processor, process.size)
    png, jpeg = predict_files(classifier, paths, accelerator, batch_size=2, top_k=1, max_pixels=2999)
    assert "3,000 pixels, more than 2,999" in png["error"]
    assert "predictions" in jpeg
    assert jpeg["notes"] == ["read at half its size: 3,000 pixels is more than 2,999 (data.max_pixels)"]

"""Running a model over images, against the model called directly."""

from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

from vitft.data.batches import BadRow, StagedBatch
from vitft.model.processor import ImageProcess, normalisation
from vitft.scoring.metrics import final_scores
from vitft.scoring.predict import predict_files, score_split

NAMES = ["ant", "bee", "cat", "dog"]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=16, patch_size=8,
        id2label=dict(enumerate(NAMES)), hidden_dropout_prob=0.5,
    )  # fmt: skip
    made = ViTForImageClassification(config)
    made.classifier.weight.data.normal_()
    return made.eval()


@pytest.fixture(scope="module")
def accelerator():
    return Accelerator(cpu=True)


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
            model,
            process,
            paths,
            normalisation=normalisation(process.processor),
            accelerator=accelerator,
            batch_size=batch_size,
            top_k=top_k,
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
        assert [p["label"] for p in each["predictions"]] == [NAMES[k] for k in probs.argsort(descending=True)]
        assert [p["score"] for p in each["predictions"]] == pytest.approx(
            sorted(probs.tolist(), reverse=True), abs=1e-5
        )
    assert len({tuple(p["score"] for p in each["predictions"]) for each in made if "predictions" in each}) == 6


def test_a_file_that_is_no_image_has_a_reason_and_harms_no_other(model, process, photos, accelerator):
    made = predictions(model, process, photos, accelerator)
    assert set(made[2]) == {"image", "error"} and made[2]["error"]
    without = predictions(model, process, [*photos[:2], *photos[3:]], accelerator)
    others = [*made[:2], *made[3:]]
    for mine, other in zip(others, without, strict=True):
        assert [p["score"] for p in mine["predictions"]] == pytest.approx([p["score"] for p in other["predictions"]])


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
    assert len(predictions(model, process, photos[:1], accelerator, top_k=9)[0]["predictions"]) == len(NAMES)


def test_the_same_file_twice_is_predicted_twice(model, process, photos, accelerator):
    first, second = predictions(model, process, [photos[0], photos[0]], accelerator)
    assert first == second


def test_a_model_in_training_mode_predicts_without_dropout(model, process, photos, accelerator):
    expected = predictions(model, process, photos[:2], accelerator)
    model.train()
    assert predictions(model, process, photos[:2], accelerator) == expected


# --- a split -----------------------------------------------------------------------------------------------


def split_of(images, labels, sizes, skipped=()):
    """Batches of uint8 images as staging would make them."""
    start = 0
    for number, size in enumerate(sizes):
        part = slice(start, start + size)
        start += size
        shape = torch.full((size, 2), 16)
        rows = torch.arange(part.start, part.stop)
        yield StagedBatch(images[part], shape, shape, labels[part], rows, skipped=skipped if number == 1 else ())


@pytest.fixture
def split():
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (11, 3, 16, 16), generator=generator, dtype=torch.uint8)
    return SimpleNamespace(images=images, labels=torch.randint(0, 4, (11,), generator=generator))


@pytest.mark.parametrize("sizes", [(11,), (4, 4, 3), (5, 0, 6)])
@pytest.mark.parametrize("training", [False, True])
def test_scores_are_those_of_the_model_on_every_row_once(model, accelerator, split, sizes, training):
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    pixels = (split.images.float() / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    with torch.no_grad():
        logits = model.eval()(pixels).logits
    model.train(training)
    scored = score_split(
        model,
        split_of(split.images, split.labels, sizes),
        num_classes=4,
        normalisation=(mean, std),
        accelerator=accelerator,
        collect=True,
    )
    assert model.training is training
    model.eval()
    assert scored.predictions == logits.argmax(-1).tolist()
    assert scored.labels == split.labels.tolist()
    scores = final_scores(scored.tally)
    assert scores["count"] == 11
    assert scores["top1"] == pytest.approx(float((logits.argmax(-1) == split.labels).float().mean()))
    assert scores["nll"] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, split.labels)), rel=1e-5)


def test_bad_rows_are_passed_on_and_predictions_only_collected_on_demand(model, accelerator, split):
    bad = BadRow(7, "train[7]", "truncated")
    scored = score_split(
        model,
        split_of(split.images, split.labels, (6, 5), skipped=(bad,)),
        num_classes=4,
        normalisation=((0.5,) * 3, (0.5,) * 3),
        accelerator=accelerator,
    )
    assert scored.bad_rows == [bad]
    assert scored.predictions == scored.labels == []

"""The scores of a split, against the model called directly."""

from types import SimpleNamespace

import pytest
import torch
from model import zoo
from transformers import ViTImageProcessorPil

from vitft.data.batches import RowNote, StagedBatch
from vitft.scoring.evaluation import evaluate_split
from vitft.scoring.metrics import final_scores


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
    processor = ViTImageProcessorPil(image_mean=list(mean), image_std=list(std))
    classifier = zoo.loaded(model, processor, (16, 16))
    scored = evaluate_split(classifier, split_of(split.images, split.labels, sizes), accelerator, collect=True)
    assert model.training is training
    model.eval()
    said = scored.predictions
    assert said.predicted.tolist() == logits.argmax(-1).tolist()
    assert said.label.tolist() == split.labels.tolist()
    assert said.row.tolist() == list(range(11))
    scores = final_scores(scored.tally, list("abcd"), said)
    assert scores["count"] == 11
    assert scores["top1"] == pytest.approx(float((logits.argmax(-1) == split.labels).float().mean()))
    assert scores["nll"] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, split.labels)), rel=1e-5)


def test_the_only_block_runs_for_the_class_token_alone(model, accelerator, split, queries):
    evaluate_split(
        zoo.loaded(model, ViTImageProcessorPil(), (16, 16)), split_of(split.images, split.labels, (11,)), accelerator
    )
    assert queries == {1}


def test_bad_rows_are_passed_on_and_predictions_only_collected_on_demand(model, accelerator, split):
    bad = RowNote(7, "train[7]", "truncated")
    batches = split_of(split.images, split.labels, (6, 5), skipped=(bad,))
    scored = evaluate_split(zoo.loaded(model, ViTImageProcessorPil(), (16, 16)), batches, accelerator)
    assert scored.bad_rows == [bad]
    assert scored.predictions is None

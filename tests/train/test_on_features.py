"""A head that is trained on features of a frozen backbone: against plain torch, against the whole model, and stored."""

from __future__ import annotations

import itertools
import json
import math
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
import zoo
from tiny import assert_killed, at_call, in_child, resume, send
from torch import Tensor

from vitft import finetune
from vitft.data import order
from vitft.data.batches import RowNote
from vitft.data.cache import Cache
from vitft.data.images import ImageSplit
from vitft.data.staging import decode
from vitft.data.train_batches import StepSlices
from vitft.errors import DataError
from vitft.features import backbone
from vitft.features.facts import facts_about
from vitft.features.features import Features
from vitft.reading.source import open_source
from vitft.recipe.keys import DataRecipe
from vitft.train import fit, pace
from vitft.train.on_features import FeatureBatches

HEAD = {"model__train": "head", "model__drop_path": 0, "augment__mixup_alpha": 0, "run__pictures": "off"}
AS_IT_IS = {"augment__crop_scale": [1, 1], "augment__crop_ratio": [1, 1], "augment__flip": 0, "augment__erase": 0}
SGD = {
    "optim__name": "sgd",
    "optim__lr": 0.1,
    "optim__layer_decay": 1.0,
    "optim__weight_decay": 0,
    "optim__warmup": "0 steps",
    "optim__schedule": "constant",
    "optim__max_grad_norm": None,
    "optim__ema_decay": 0,
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of the cache, empty at first."""
    monkeypatch.setenv("VITFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def small_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return photos that have the model's size, so that staging and the image processor agree on their pixels."""
    return tiny.make_small_photos(tmp_path_factory.mktemp("small"), (20, 12, 6))


def train(home: Path, **changes: object) -> Path:
    run = finetune(tiny.recipe(home, **HEAD | changes)).run_dir
    assert run is not None
    return run


def count_passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return what will list the images of each pass through the backbone."""
    passes: list[int] = []
    original = backbone.features_of

    def counted(model: Any, module: str, pixel_values: Tensor) -> Tensor:
        passes.append(len(pixel_values))
        return original(model, module, pixel_values)

    monkeypatch.setattr(backbone, "features_of", counted)
    return passes


# --- the same steps ----------------------------------------------------------------------------------------


def by_hand(home: Path, photos: Path, steps: int, batch_size: int) -> tuple[list[float], Tensor]:
    """Train a linear head on the last class tokens with plain SGD, written out; return losses and weight."""
    from transformers import ViTForImageClassification

    train_split = open_source(DataRecipe(dataset=str(photos)), seed=1).train
    assert isinstance(train_split, ImageSplit)
    images = [np.array(decode(train_split.encoded(row))[0]) for row in range(len(train_split))]
    pixels = (torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    labels = torch.tensor(train_split.labels)
    vit = ViTForImageClassification.from_pretrained(home / "checkpoint").eval().vit
    with torch.no_grad():
        tokens = vit(pixels).last_hidden_state[:, 0]
    balanced = len(labels) / (3 * torch.bincount(labels))
    weight, bias = torch.zeros(3, tokens.shape[1], requires_grad=True), torch.zeros(3, requires_grad=True)
    losses = []
    for step in range(steps):
        taken = order.sample_at(1, torch.arange(step * batch_size, (step + 1) * batch_size), len(labels))
        targets = 0.9 * F.one_hot(labels[taken], 3) + 0.1 / 3
        log_probs = (tokens[taken] @ weight.T + bias).log_softmax(1)
        loss = -(balanced * targets * log_probs).sum() / batch_size
        gradients = torch.autograd.grad(loss, (weight, bias))
        with torch.no_grad():
            weight -= 0.1 * gradients[0]
            bias -= 0.1 * gradients[1]
        losses.append(loss.item())
    return losses, weight.detach()


def test_the_steps_are_those_of_a_head_trained_by_hand(home: Path, small_photos: Path) -> None:
    losses, weight = by_hand(home, small_photos, steps=8, batch_size=15)
    run = train(
        home,
        **SGD,
        data__dataset=str(small_photos),
        optim__momentum=0,
        train__imbalance="weights",
        train__duration="8 steps",
        train__weights="last",
    )
    assert tiny.losses(run) == pytest.approx(losses, rel=1e-5)
    assert weight.abs().sum() > 0
    saved = tiny.tensors(run)["model/model.safetensors/classifier.weight"]
    torch.testing.assert_close(saved, weight, rtol=1e-4, atol=1e-6)


def test_with_as_many_views_as_epochs_a_run_is_that_of_the_whole_model(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = count_passes(monkeypatch)
    once = train(home, augment__erase=0.3, train__feature_views=9)  # of which 4 epochs need 4
    assert sum(passes) == 4 * 40 + 16
    whole = train(home, augment__erase=0.3, train__features="off")
    assert sum(passes) == 4 * 40 + 16
    assert tiny.losses(once) == pytest.approx(tiny.losses(whole), rel=1e-5)
    plan = json.loads((once / "plan.json").read_text())
    assert "4 random views of each image" in str(plan)
    card = (once / "model" / "README.md").read_text()
    assert (
        "computed once from 4 random views of each image" in card
        and "computed once" not in (whole / "model" / "README.md").read_text()
    )


def test_the_last_block_on_features_is_trained_as_in_the_whole_model(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = count_passes(monkeypatch)
    once, whole = (train(home, **AS_IT_IS, model__train="last:1", train__features=how) for how in ("auto", "off"))
    assert sum(passes) == 40 + 16
    assert tiny.losses(once) == pytest.approx(tiny.losses(whole), rel=1e-5)
    scores = [[line["nll"] for line in tiny.events(run, "validation")] for run in (once, whole)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-5)
    ours, theirs = (tiny.tensors(run) for run in (once, whole))
    changed = "model/model.safetensors/vit.encoder.layer.1.output.dense.weight"
    torch.testing.assert_close(ours[changed], theirs[changed], rtol=1e-4, atol=1e-6)
    assert "what vit.layers.1 reads, computed once" in (once / "plan.json").read_text()


def numbered(num_views: int, num_rows: int, bad: tuple[int, ...] = ()) -> tuple[Features, ImageSplit]:
    """Return features that say their view and row."""
    views, rows = torch.meshgrid(torch.arange(num_views), torch.arange(num_rows), indexing="ij")
    split = ImageSplit("train", None, ("image",), np.arange(num_rows))
    notes = [RowNote(row, f"row {row}", "is no image") for row in bad]
    return Features.of(torch.stack([views, rows], -1).float(), notes, []), split


def test_epoch_e_sees_view_e_mod_n() -> None:
    made, split = numbered(num_views=3, num_rows=10)
    batches = FeatureBatches(made, split, StepSlices(10, 10, 10, 80), seed=4)
    for epoch, [batch] in enumerate(batches.steps(0, 8)):
        expected = order.sample_at(4, torch.arange(10 * epoch, 10 * epoch + 10), 10)
        assert batch.images[:, 0].tolist() == [epoch % 3] * 10
        assert batch.images[:, 1].tolist() == batch.labels.tolist() == expected.tolist()


def test_a_process_without_a_part_of_a_step_gets_no_batch() -> None:
    made, split = numbered(num_views=1, num_rows=5)
    batches = FeatureBatches(made, split, StepSlices(5, 4, 4, 5, rank=0, world_size=2), seed=0)
    assert [[len(batch) for batch in step] for step in batches.steps(0, 2)] == [[2], []]


# --- bad images --------------------------------------------------------------------------------------------


def test_the_next_good_row_of_the_epoch_stands_in_for_a_bad_one() -> None:
    made, split = numbered(num_views=1, num_rows=10, bad=(2, 3, 7))
    batches = FeatureBatches(made, split, StepSlices(10, 10, 10, 30), seed=4)
    for epoch, [batch] in enumerate(batches.steps(0, 3)):
        rows = order.sample_at(4, torch.arange(10 * epoch, 10 * epoch + 10), 10).tolist()
        good = [next(row for row in rows[slot:] + rows[:slot] if row not in (2, 3, 7)) for slot in range(10)]
        assert batch.labels.tolist() == good
        assert {note.index for note in batch.skipped} == {2, 3, 7}


def test_without_a_good_image_a_run_ends() -> None:
    made, split = numbered(num_views=1, num_rows=3, bad=(0, 1, 2))
    with pytest.raises(DataError, match="none of its images can be decoded"):
        next(FeatureBatches(made, split, StepSlices(3, 2, 2, 3), seed=0).steps(0, 1))


def test_plain_images_and_bad_ones_are_those_of_the_whole_model(home: Path, tmp_path: Path) -> None:
    photos = tiny.make_small_photos(tmp_path / "photos", (20, 12, 6))
    bad = ("train/ash/003.png", "train/cedar/001.png", "validation/birch/000.png")
    for name in bad:
        (photos / name).write_text(f"{name} is no image")
    changes = {**AS_IT_IS, "data__dataset": str(photos), "data__check_images": "off", "optim__lr": 0.01}
    with pytest.raises(DataError, match=r"\(train/\w+/00\d\.png\) cannot be used"):
        train(home, **changes)
    changes["data__bad_images"] = "skip"
    once, whole, again = train(home, **changes), train(home, **changes, train__features="off"), train(home, **changes)
    assert tiny.losses(once) == pytest.approx(tiny.losses(whole), rel=1e-5)
    scores = [[line["nll"] for line in tiny.events(run, "validation")] for run in (once, whole)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-5) and len(scores[0]) == 6
    said = [line["text"] for line in tiny.events(once, "note") if line["text"].startswith("skipped")]
    assert len(said) == 3 and set(said) < {line["text"] for line in tiny.events(whole, "note")}
    skipped = [json.loads((run / "results.json").read_text())["bad_images"] for run in (once, whole)]
    assert skipped[0] == skipped[1] and len(skipped[0]) == 3
    tiny.assert_same_run(again, once)  # it read the features of the first, with what was said of its images


# --- the store ---------------------------------------------------------------------------------------------


def test_a_second_run_does_not_run_the_backbone(home: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = count_passes(monkeypatch)
    run = train(home, train__duration="2 steps")
    assert sum(passes) == 40 + 16 and len(list(cache.iterdir())) == 2
    shown = json.loads((run / "thumbnails" / "index.json").read_text())
    assert shown["views"] == [] and "features of the plain images" in shown["notes"][0]
    train(home, optim__lr=0.001, augment__flip=0, train__duration="3 steps")  # plain features do not depend on these
    assert sum(passes) == 40 + 16


def test_a_dry_run_estimates_the_time_of_features_and_stores_none(home: Path, cache: Path) -> None:
    text = finetune(tiny.recipe(home, **HEAD), dry_run=True, is_timed=True).plan_text
    assert "computed once from each plain image" in text and "time: about" in text
    assert not cache.exists()


def test_the_key_changes_with_frozen_weights_and_configuration_and_not_with_the_head() -> None:
    facts = []
    for change in (None, "classifier.bias", "vit.layernorm.bias", "config"):
        model = zoo.model_of("vit", **({"hidden_dropout_prob": 0.1} if change == "config" else {}))
        if change and change != "config":
            torch.nn.init.ones_(model.get_parameter(change))
        facts.append(facts_about(zoo.loaded(model, None, (32, 32)), "classifier", {"precision": "fp32"}))
    assert facts[0] == facts[1] and facts[0] not in facts[2:]
    assert facts[0]["config"] == facts[2]["config"] and facts[0]["weights"] == facts[3]["weights"]


def test_a_run_without_a_place_for_its_features_notes_it(home: Path, cache: Path) -> None:
    cache.write_text("a file in the way")
    notes = [line["text"] for line in tiny.events(train(home, train__duration="2 steps"), "note")]
    assert len([note for note in notes if "are not stored, and the next run computes them again" in note]) == 2


def checkpoints(run: Path) -> list[int]:
    return [int(path.name[5:]) for path in sorted((run / "checkpoints").iterdir())]


def test_a_head_alone_writes_checkpoints_at_most_every_half_minute(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep = {"train__keep_checkpoints": 9, "train__keep_after_end": 9}
    each = train(home, train__checkpoint_every="1 epoch", **keep)
    ticks = itertools.count(0, 12)  # seconds: started at 0; asked at 12, 24 and 36
    monkeypatch.setattr(pace, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    seldom = train(home, train__checkpoint_every="auto", **keep)
    assert checkpoints(each) == [3, 6, 9, 11] and checkpoints(seldom) == [9, 11]
    assert "steps, but at most every 30 s" in (seldom / "plan.json").read_text()
    ours, theirs = tiny.tensors(seldom), tiny.tensors(each)
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    whole = train(home, train__checkpoint_every="auto", train__features="off", train__duration="2 epochs", **keep)
    assert checkpoints(whole) == [3, 6]


# --- stopped and resumed -----------------------------------------------------------------------------------


def start(home: Path, name: str, prepare: Callable[[], object] = lambda: None, **changes: object) -> tiny.Outcome:
    def work() -> None:
        prepare()
        finetune(tiny.recipe(home, run__name=name, **HEAD | changes))

    return in_child(work)


@pytest.fixture(scope="module")
def whole(home: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a run that nothing disturbed, and the folder of its stored features."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VITFT_CACHE", str(cache))
        return train(home, train__feature_views=2), cache


def test_a_killed_run_reads_its_features_and_resumes_to_the_same_bits(home: Path, whole: tuple[Path, Path]) -> None:
    run = home / "runs" / "killed"
    killed = start(home, run.name, lambda: at_call(fit, "take_step", 6, send(signal.SIGKILL)), train__feature_views=2)
    assert_killed(killed, run)
    outcome = resume(run)
    assert outcome.code == 0, outcome.text
    assert outcome.text.count("read from") == 2
    tiny.assert_same_run(run, whole[0])


def test_a_run_that_is_stopped_while_it_computes_features_ends_with_75(
    home: Path, cache: Path, whole: tuple[Path, Path]
) -> None:
    run = home / "runs" / "stopped-in-features"
    stop = lambda: at_call(backbone, "features_of", 2, send(signal.SIGTERM))  # noqa: E731
    first = start(home, run.name, stop, train__feature_views=2)
    assert first.code == 75, first.text
    assert "stopped before all features were computed" in first.text
    assert "stopped before the first checkpoint (SIGTERM)" in first.text and f"--resume {run}" in first.text
    second = resume(run, train__time_limit="0.001 s")
    assert second.code == 75, second.text
    assert "stopped before the first checkpoint (the time limit of 0.001 seconds)" in second.text
    assert [each.num_filled for each in Cache(cache).stores()] == [0]
    last = resume(run, train__time_limit=None)
    assert last.code == 0, last.text
    tiny.assert_same_run(run, whole[0])


# --- accuracy ----------------------------------------------------------------------------------------------


@pytest.mark.slow  # the backbone sees every digit ten times
def test_features_of_plain_digits_are_at_least_as_good_as_random_views(tmp_path: Path) -> None:
    from vitft import Recipe

    changes = {"data.dataset": "builtin:digits", "model.checkpoint": "builtin:vit-micro", "model.train": "head"}
    changes |= {"data.max_train_samples": 400, "run.output_dir": str(tmp_path), "run.pictures": "off"}
    top1 = {
        how: finetune(Recipe.load(None, changes | {"train.features": how})).results["test"]["top1"]
        for how in ("auto", "off")
    }
    assert math.isfinite(top1["off"]) and top1["auto"] >= top1["off"]

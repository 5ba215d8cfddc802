"""Skewed classes: weights, sampling and adjusted logits against closed forms, and what is said and refused."""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from tiny import assert_killed, at_call, in_child, resume, send

from vitft import finetune
from vitft.data.images import ImageSplit, StreamSplit
from vitft.data.row_order import ClassSampling, RowOrder
from vitft.errors import RecipeError, TrainError
from vitft.reading.source import open_source
from vitft.recipe.keys import DataRecipe
from vitft.recipe.recipe import Recipe
from vitft.train import fit
from vitft.train.imbalance import ClassBalance, plan_imbalance
from vitft.views.mixing import soft_targets

COUNTS = (24, 12, 4)
HEAD = {"model__train": "head", "model__drop_path": 0, "augment__mixup_alpha": 0, "run__pictures": "off"}
ONE_STEP = {"train__duration": "1 steps", "train__evaluate_every": "1 steps", "train__checkpoint_every": "1 steps"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_small_photos(tmp_path_factory.mktemp("skewed"), COUNTS)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITFT_CACHE", str(tmp_path / "cache"))


def recipe(setting: str, **changes: object) -> Recipe:
    return Recipe.load(None, {"train.imbalance": setting, **{k.replace("__", "."): v for k, v in changes.items()}})


def train(home: Path, photos: Path, setting: str, **changes: object) -> Path:
    settings = {"data__dataset": str(photos), "train__imbalance": setting, **HEAD, **changes}
    run = finetune(tiny.recipe(home, **settings)).run_dir
    assert run is not None
    return run


# --- the loss ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("weights", [40 / (3 * 24), 40 / (3 * 12), 40 / (3 * 4)]),
        ("sqrt-weights", [(40 / 72) ** 0.5, (40 / 36) ** 0.5, (40 / 12) ** 0.5]),
    ],
)
def test_weights_are_those_of_a_hand_computation(photos: Path, setting: str, expected: list[float]) -> None:
    balance = ClassBalance.of(
        recipe(setting), open_source(DataRecipe(dataset=str(photos)), seed=0), torch.device("cpu")
    )
    assert balance.weights is not None and balance.offsets is None
    assert balance.weights.tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("tau", [1.0, 2.5])
def test_adjusted_logits_give_the_loss_of_the_paper_for_soft_targets(photos: Path, tau: float) -> None:
    source = open_source(DataRecipe(dataset=str(photos)), seed=0)
    balance = ClassBalance.of(recipe("logit-adjustment", train__imbalance_tau=tau), source, torch.device("cpu"))
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    smooth = soft_targets(torch.tensor([0, 1, 2, 2, 1]), 3, 0.1)
    targets = 0.7 * smooth + 0.3 * smooth.flip(0)  # as mixup leaves them
    prior = np.array(COUNTS) / 40
    weighed = logits.double().exp().numpy() * prior**tau
    expected = -(targets.numpy() * np.log(weighed / weighed.sum(1, keepdims=True))).sum()
    assert float(balance.loss(logits, targets)) == pytest.approx(expected, rel=1e-5)
    assert float(ClassBalance().loss(logits, targets)) == pytest.approx(
        float(F.cross_entropy(logits, targets, reduction="sum")), rel=1e-6
    )


def test_the_first_loss_of_a_run_is_the_closed_form_of_its_setting(home: Path, photos: Path) -> None:
    """A zero head gives every class 1/3, and logit adjustment its part of the images."""
    source = open_source(DataRecipe(dataset=str(photos)), seed=1)
    assert isinstance(source.train, ImageSplit)
    labels = source.train.labels
    prior, weights = np.array(COUNTS) / 40, np.array([40 / 72, 40 / 36, 40 / 12])
    plain = labels[RowOrder(1, 40).at(torch.arange(15)).rows.numpy()]
    expected = {
        "weights": math.log(3) * weights[plain].mean(),
        "logit-adjustment": -2 * np.log(prior[plain]).mean() + math.log((prior**2).sum()),
    }
    for setting, loss in expected.items():
        tau = {"train__imbalance_tau": 2} if setting == "logit-adjustment" else {}
        run = train(home, photos, setting, augment__label_smoothing=0, **ONE_STEP, **tau)
        assert tiny.losses(run)[0] == pytest.approx(loss, rel=1e-5)
        if setting == "logit-adjustment":  # the gradient says that the model took a step, evaluation that it is plain
            scored = json.loads((run / "results.json").read_text())["validation"]["nll"]
            assert scored == pytest.approx(math.log(3), abs=0.2)


# --- the samples -------------------------------------------------------------------------------------------


def test_a_sampled_run_trains_on_the_classes_that_it_says(
    home: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    original = fit.take_step

    def noted(training: object, step: int, batches: list[object]) -> object:
        seen.extend(label for batch in batches for label in batch.labels.tolist())
        return original(training, step, batches)

    monkeypatch.setattr(fit, "take_step", noted)
    for features in ("auto", "off"):
        seen.clear()
        run = train(home, photos, "sampling", train__features=features, train__duration="2 epochs")
        assert [np.bincount(seen[:40]).tolist(), np.bincount(seen[40:]).tolist()] == [[13, 13, 14]] * 2
        [row] = [row for row in json.loads((run / "plan.json").read_text())["rows"] if row["name"] == "imbalance"]
        assert row["value"] == "sampling"
        assert "40 samples, 13 to 14 of each class: it shows an image 0.542 to 3.5 times" in row["reason"]
    index = json.loads((run / "thumbnails" / "index.json").read_text())  # of the run without features
    first = [view["labels"][0][0] for view in index["views"]][:8]
    assert first == [tiny.CLASSES[label] for label in seen[:8]]


def test_an_image_shown_again_is_another_view_of_its_features() -> None:
    from train.test_on_features import numbered

    from vitft.data.train_batches import StepSlices
    from vitft.train.on_features import FeatureBatches

    made, _ = numbered(num_views=3, num_rows=40)
    split = ImageSplit("train", None, ("image",), np.repeat(np.arange(3), COUNTS))
    sampling = ClassSampling.of(split, 3, 0)
    batches = FeatureBatches(made, split, StepSlices(40, 40, 40, 80), 4, sampling)
    shown = torch.cat([batch.images for [batch] in batches.steps(0, 2)]).long()
    of_last_class = shown[shown[:, 1] >= 36]
    views = [torch.bincount(of_last_class[of_last_class[:, 1] == row, 0], minlength=3) for row in range(36, 40)]
    assert all(view.max() - view.min() <= 1 and view.sum() == 7 for view in views)


@pytest.mark.parametrize("setting", ["sqrt-sampling", "logit-adjustment"])
def test_killed_a_run_resumes_to_the_same_bits(home: Path, photos: Path, setting: str) -> None:
    settings = {"data__dataset": str(photos), "train__imbalance": setting, "train__duration": "2 epochs"}
    whole, run = home / "runs" / f"{setting}-whole", home / "runs" / f"{setting}-killed"
    finetune(tiny.recipe(home, run__name=whole.name, **settings))

    def start() -> None:
        at_call(fit, "take_step", 5, send(signal.SIGKILL))
        finetune(tiny.recipe(home, run__name=run.name, **settings))

    assert_killed(in_child(start), run)
    assert resume(run).code == 0
    tiny.assert_same_run(run, whole)


# --- what is said and refused ------------------------------------------------------------------------------


def test_a_skew_is_said_with_the_setting_to_try() -> None:
    def notes(counts: tuple[int, ...], setting: str = "none") -> tuple[str, ...]:
        split = ImageSplit("train", None, ("image",), np.repeat(np.arange(len(counts)), counts))
        return plan_imbalance(recipe(setting), split, [f"class {k}" for k in range(len(counts))]).notes

    [note] = notes((3, 1200, 0, 24))
    assert note.startswith("classes are skewed: class 1 has 1,200 training images, class 0 3 (400 to 1); rare")
    assert "--set train.imbalance=sqrt-weights (docs" in note
    assert notes((1200, 24), "weights") == (
        "classes are skewed: class 0 has 1,200 training images, class 1 24 (50 to 1)",
    )
    assert notes((40, 10)) == ()


@pytest.mark.parametrize("setting", ["sampling", "sqrt-sampling", "logit-adjustment", "weights", "sqrt-weights"])
def test_a_stream_is_refused_with_the_reason(setting: str) -> None:
    stream = StreamSplit("train", None, ("image",), "label", 100)
    with pytest.raises(TrainError, match=f"train.imbalance: {setting} needs the number of images per class") as error:
        plan_imbalance(recipe(setting), stream, ["a"])
    assert "train.imbalance=none" in str(error.value.hint)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"train.imbalance": "balanced"}, "'balanced' is not allowed; use none, weights, sqrt-weights, sampling"),
        ({"train.class_weights": "sqrt"}, "train.class_weights: unknown key; it is now train.imbalance (weights for"),
        ({"train.imbalance_tau": 2}, "train.imbalance_tau: 2 needs train.imbalance: logit-adjustment, not none"),
        ({"train.imbalance_tau": 0}, "train.imbalance_tau: 0 is not allowed; use a number > 0"),
    ],
)
def test_nonsense_is_refused_with_what_is_allowed(changes: dict[str, object], says: str) -> None:
    with pytest.raises(RecipeError) as error:
        Recipe.load(None, changes)
    assert says in error.value.wrong

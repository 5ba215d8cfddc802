"""The loop in one process: against plain torch, and against itself under settings that must not matter."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitft import finetune
from vitft.data import order
from vitft.errors import DataError
from vitft.reading.source import open_source
from vitft.recipe.keys import DataRecipe
from vitft.train import checkpoint, setup

PLAIN = {
    "model__drop_path": 0,
    "augment__crop_scale": [1, 1],
    "augment__crop_ratio": [1, 1],
    "augment__flip": 0,
    "augment__erase": 0,
    "augment__mixup_alpha": 0,
}
SHORT = {"train__duration": "5 steps", "train__evaluate_every": "5 steps", "train__checkpoint_every": "5 steps"}


def train(home: Path, **changes: object) -> Path:
    run = finetune(tiny.recipe(home, **changes)).run_dir
    assert run is not None
    return run


def weights_of(folder: Path) -> dict[str, Tensor]:
    """Return the weights of a transformers folder by their names in memory."""
    from transformers import ViTForImageClassification

    return ViTForImageClassification.from_pretrained(folder).state_dict()


# --- against plain torch -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return photos that already have the model's size: 24 of ash, 12 of birch, 4 of cedar, and some to validate."""
    return tiny.make_small_photos(tmp_path_factory.mktemp("small"), (24, 12, 4))


def plain_torch(home: Path, photos: Path, steps: int, batch_size: int) -> tuple[list[float], nn.Module]:
    """Train with SGD, momentum, warmup, cosine, clipping and averaging, written out; return losses and the average."""
    from transformers import ViTForImageClassification

    source = open_source(DataRecipe(dataset=str(photos)), seed=1)
    assert source.train is not None
    rows = [source.train.encoded(row) for row in range(len(source.train))]
    labels = torch.tensor(source.train.labels)
    pixels = torch.stack([_pixels(row) for row in rows])
    model = ViTForImageClassification.from_pretrained(home / "checkpoint").train()
    model.classifier = nn.Linear(model.classifier.in_features, 3)
    nn.init.zeros_(model.classifier.weight)
    nn.init.zeros_(model.classifier.bias)
    average = {name: p.detach().clone() for name, p in model.named_parameters()}
    momentum = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    losses = []
    for step in range(steps):
        positions = torch.arange(step * batch_size, (step + 1) * batch_size)
        taken = order.sample_at(1, positions, len(labels))
        logits = model(pixels[taken]).logits
        loss = F.cross_entropy(logits, labels[taken], label_smoothing=0.1)
        model.zero_grad()
        loss.backward()
        norm = math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters()))
        lr = 0.1 * (step + 1) / 2 if step < 2 else 0.05 * (1 + math.cos(math.pi * (step - 2) / (steps - 2)))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                momentum[name] = 0.9 * momentum[name] + parameter.grad * min(1, 0.5 / norm)
                parameter -= lr * momentum[name]
                forget = min(0.3, (2 + step) / (11 + step))
                average[name] = forget * average[name] + (1 - forget) * parameter
        losses.append(loss.item())
    model.load_state_dict(average, strict=False)
    return losses, model


def _pixels(encoded: object) -> Tensor:
    from vitft.data.staging import decode

    image, _ = decode(encoded)
    return (torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255 - 0.5) / 0.5


def test_the_loop_takes_the_steps_of_plain_torch(home: Path, small_photos: Path) -> None:
    expected_losses, expected = plain_torch(home, small_photos, steps=8, batch_size=15)
    run = train(
        home,
        **PLAIN,
        data__dataset=str(small_photos),
        optim__name="sgd",
        optim__lr=0.1,
        optim__layer_decay=1.0,
        optim__weight_decay=0,
        optim__warmup="2 steps",
        optim__max_grad_norm=0.5,
        optim__ema_decay=0.3,
        train__duration="8 steps",
        train__weights="last",
    )
    assert tiny.losses(run) == pytest.approx(expected_losses, rel=1e-5)
    assert min(expected_losses) < 1.0 < max(expected_losses)  # something was learned
    assert max(line["grad_norm"] for line in tiny.events(run, "step")) > 0.5  # clipping had work to do
    ours = weights_of(run / "model")
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-4, atol=1e-6)


# --- settings that must not matter -------------------------------------------------------------------------


def test_losses_do_not_depend_on_the_micro_batch(home: Path) -> None:
    runs = {size: train(home, **SHORT, train__batch_size=16, train__micro_batch_size=size) for size in (4, 8, 16)}
    steps = {size: tiny.events(run, "step") for size, run in runs.items()}
    for size in (4, 8):
        for key in ("loss", "grad_norm"):
            assert [s[key] for s in steps[size]] == pytest.approx([s[key] for s in steps[16]], rel=1e-5, abs=1e-6)


def test_losses_do_not_depend_on_gradient_checkpointing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = {False: 0, True: 0}
    is_on = False
    attention = F.scaled_dot_product_attention

    def counted(*args: object, **kwargs: object) -> Tensor:
        calls[is_on] += torch.is_grad_enabled()
        return attention(*args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", counted)
    plain = train(home, **SHORT)
    is_on = True
    recomputed = train(home, **SHORT, train__gradient_checkpointing=True)
    assert tiny.losses(recomputed) == pytest.approx(tiny.losses(plain), rel=1e-6)
    assert calls[True] >= calls[False] * 3 / 2 > 0  # the blocks ran again in the backward pass


def test_losses_do_not_depend_on_tokens_that_the_head_does_not_read(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries: set[int] = set()
    attention = F.scaled_dot_product_attention

    def noted(query: Tensor, *args: object, **kwargs: object) -> Tensor:
        queries.add(query.shape[-2])
        return attention(query, *args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", noted)
    short = train(home, **SHORT)
    assert queries == {1, 5}
    monkeypatch.setattr(setup, "shorten_last_block", lambda model: False)
    whole = train(home, **SHORT)
    for key in ("loss", "grad_norm"):
        ours, theirs = ([line[key] for line in tiny.events(run, "step")] for run in (short, whole))
        assert ours == pytest.approx(theirs, rel=1e-5)


# --- what learns, and which weights become the model -------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "learning"),
    [("head", ("classifier",)), ("last:1", ("classifier", "vit.layernorm", ".layer.1.", ".layers.1."))],
)
def test_frozen_parameters_keep_their_bits(home: Path, what: str, learning: tuple[str, ...]) -> None:
    run = train(home, **SHORT, model__train=what, model__drop_path=0, optim__weight_decay=0.5)
    before, after = weights_of(home / "checkpoint"), weights_of(run / "model")
    for name, tensor in after.items():
        if any(part in name for part in learning):
            assert "classifier" in name or not torch.equal(tensor, before[name]), name
        else:
            assert torch.equal(tensor, before[name]), name
    assert after["classifier.weight"].abs().sum() > 0


def test_the_best_weights_become_the_model(uninterrupted: Path) -> None:
    scored = tiny.events(uninterrupted, "validation")
    best = max(scored, key=lambda line: (line["top1"], -line["nll"]))
    assert best["step"] < scored[-1]["step"]  # else the last weights would pass for the best
    results = json.loads((uninterrupted / "results.json").read_text())
    assert results["weights"] == f"best (step {best['step']})"
    for key in ("top1", "nll", "macro_f1", "count"):
        assert results["validation"][key] == pytest.approx(best[key], rel=1e-6)
    kept = checkpoint.load(tiny.last_checkpoint(uninterrupted))[1]["best"]
    saved = weights_of(uninterrupted / "model")
    last = checkpoint.load(tiny.last_checkpoint(uninterrupted))[1]["averaged"]
    assert not all(torch.equal(tensor, last[name]) for name, tensor in saved.items())
    assert kept.keys() == saved.keys()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in saved.items())


@pytest.mark.parametrize(("decay", "file"), [(0.8, "averaged"), (0, "model")])
def test_the_last_weights_become_the_model(home: Path, decay: float, file: str) -> None:
    run = train(home, train__weights="last", optim__ema_decay=decay, optim__lr=0.01, train__duration="6 steps")
    state, tensors = checkpoint.load(tiny.last_checkpoint(run))
    assert "best" not in tensors
    assert ("averaged" in tensors) == bool(decay)
    saved = weights_of(run / "model")
    assert all(torch.equal(tensor, tensors[file][name]) for name, tensor in saved.items())
    last = tiny.events(run, "validation")[-1]
    assert last["step"] == state.step == 6
    assert json.loads((run / "results.json").read_text())["validation"]["nll"] == pytest.approx(last["nll"], rel=1e-6)


# --- what is told ------------------------------------------------------------------------------------------


def test_what_is_counted_is_what_was_taken(uninterrupted: Path) -> None:
    results = json.loads((uninterrupted / "results.json").read_text())
    assert results["train"]["steps"] == 11
    assert results["train"]["samples"] == 160
    assert (results["validation"]["count"], results["test"]["count"]) == (16, 6)
    assert [line["step"] for line in tiny.events(uninterrupted, "step")] == list(range(1, 12))
    assert [line["step"] for line in tiny.events(uninterrupted, "validation")] == [2, 4, 6, 8, 10, 11]


def test_the_last_step_ends_the_last_epoch(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(home)
    assert "step 11/11  epoch 4.00  validation" in capsys.readouterr().err


# --- bad images --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def broken_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_photos(tmp_path_factory.mktemp("broken"), bad=(4, 17))


def test_a_bad_image_stops_the_run_and_is_named(home: Path, broken_photos: Path) -> None:
    with pytest.raises(DataError, match=r"(004|017)\.png\) cannot be used") as error:
        train(home, data__dataset=str(broken_photos))
    assert "--bad-images skip" in str(error.value.hint)


def test_bad_images_that_are_passed_over_are_listed_and_counted(home: Path, broken_photos: Path) -> None:
    run = train(home, data__dataset=str(broken_photos), data__bad_images="skip")
    bad = json.loads((run / "results.json").read_text())["bad_images"]
    assert sorted(Path(where.split()[-1].strip("()")).name for where in bad) == ["004.png", "017.png"]
    assert len(tiny.events(run, "step")) == 11

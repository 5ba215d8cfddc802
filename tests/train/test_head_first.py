"""The head fitted alone before the training: closed forms, and what a run makes of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from vitft import finetune
from vitft.errors import ModelError, StoppedEarly
from vitft.train import head_first
from vitft.train.head_first import Rows, fit_head
from vitft.train.imbalance import ClassBalance
from vitft.train.stopping import StopRequests


def rows(count: int, seed: int, classes: int = 4, width: int = 6, spread: float = 1.5) -> Rows:
    """Return features around a centre for each class, which overlap."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(9))
    labels = torch.arange(count) % classes
    return Rows(centres[labels] + spread * torch.randn(count, width, generator=generator), labels)


def zero_head(width: int = 6, classes: int = 4) -> nn.Linear:
    head = nn.Linear(width, classes)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


# --- closed forms ------------------------------------------------------------------------------------------


def test_without_any_signal_the_biases_give_the_smoothed_shares_of_the_classes() -> None:
    labels = torch.tensor([0] * 6 + [1] * 3 + [2])
    blank = Rows(torch.zeros(10, 5), labels)
    head = zero_head(5, 3)
    fitted = fit_head(head, blank, blank, smoothing=0.3)
    shares = 0.7 * torch.tensor([0.6, 0.3, 0.1]) + 0.3 / 3
    torch.testing.assert_close(fitted.state["bias"].softmax(0), shares, rtol=0, atol=1e-5)
    assert torch.equal(fitted.state["weight"], torch.zeros(3, 5))
    assert not head.weight.any() and not head.bias.any()  # it was a copy


def test_weights_of_classes_weigh_their_images() -> None:
    labels = torch.tensor([0] * 6 + [1] * 3 + [2])
    blank = Rows(torch.zeros(10, 5), labels)
    fitted = fit_head(zero_head(5, 3), blank, blank, balance=ClassBalance(torch.tensor([0.5, 1.0, 3.0])))
    torch.testing.assert_close(fitted.state["bias"].softmax(0), torch.full((3,), 1 / 3), rtol=0, atol=1e-5)


def test_it_is_the_logistic_regression_of_scikit_learn_with_the_best_penalty() -> None:
    train, validation = rows(120, seed=1), rows(80, seed=2)

    def theirs(penalty: float) -> tuple[LogisticRegression, float]:
        model = LogisticRegression(C=1 / (penalty * 120), tol=1e-10, max_iter=10_000)
        model.fit(train.features.double().numpy(), train.labels.numpy())
        said = model.predict_log_proba(validation.features.double().numpy())
        return model, -float(np.mean(said[np.arange(80), validation.labels.numpy()]))

    all_of_them = [(penalty, *theirs(penalty)) for penalty in head_first.PENALTIES]
    penalty, best, nll = min(all_of_them, key=lambda each: each[2])
    assert penalty not in (head_first.PENALTIES[0], head_first.PENALTIES[-1])
    fitted = fit_head(zero_head(), train, validation)
    assert f"penalty {penalty:g}, " in fitted.said and f"nll {nll:.4f}" in fitted.said
    torch.testing.assert_close(fitted.state["weight"].double(), torch.from_numpy(best.coef_), rtol=0, atol=1e-4)
    bias, expected = fitted.state["bias"].double(), torch.from_numpy(best.intercept_)
    torch.testing.assert_close(bias - bias.mean(), expected - expected.mean(), rtol=0, atol=1e-4)


def test_the_start_and_the_parts_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    train, validation = rows(60, seed=1), rows(40, seed=2)
    whole = fit_head(zero_head(), train, validation, smoothing=0.1)
    other = nn.Linear(6, 4)
    monkeypatch.setattr(head_first, "_VALUES", 7 * 6)  # seven rows at once
    again = fit_head(other, train, validation, smoothing=0.1)
    assert again.said == whole.said
    torch.testing.assert_close(again.state["weight"], whole.state["weight"], rtol=0, atol=1e-5)


def test_a_request_to_stop_ends_it() -> None:
    asked = iter([""] * 2 + ["SIGTERM"] * 1000)
    assert fit_head(zero_head(), rows(60, 1), rows(40, 2), stopped=lambda: next(asked)).state == {}


# --- in a run ----------------------------------------------------------------------------------------------

FIRST = {"train__head_first": True, "train__duration": "2 steps", "run__pictures": "off"}


@pytest.fixture(scope="module", autouse=True)
def no_page() -> Iterator[None]:
    """Leave out what comes after the scores, which takes longer than these runs."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("finish", "keep_thumbnails"):
            patch.setattr(f"vitft.tasks.training.{name}", lambda *_: None)
        yield


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Tensor]]]:
    """The heads that runs of this test begin with."""
    found: list[dict[str, Tensor]] = []
    put = head_first.fit_head_first

    def fit_head_first(run, backbone, *others) -> None:  # type: ignore[no-untyped-def]
        put(run, backbone, *others)
        found.append({k: v.clone() for k, v in backbone.classifier.model.classifier.state_dict().items()})

    monkeypatch.setattr("vitft.train.setup.fit_head_first", fit_head_first)
    yield found


@pytest.fixture(scope="module")
def whole(home: Path) -> Path:
    """A run that nothing disturbed."""
    run = finetune(tiny.recipe(home, run__name="first", **FIRST)).run_dir
    assert run is not None
    return run


def test_a_run_begins_with_the_fitted_head_and_trains_everything_from_there(home: Path, whole: Path) -> None:
    [said] = [event["text"] for event in tiny.events(whole, "note") if event["text"].startswith("head first: penalty")]
    assert "validation top-1" in said
    plain = finetune(tiny.recipe(home, run__name="not-first", **FIRST | {"train__head_first": False})).run_dir
    assert plain is not None
    assert tiny.losses(plain)[0] == pytest.approx(math.log(3), abs=1e-4)
    assert abs(tiny.losses(whole)[0] - math.log(3)) > 1e-3
    before, after = (load_file(each / "model.safetensors") for each in (home / "checkpoint", whole / "model"))
    head = load_file(whole / "checkpoints" / "head.safetensors")
    assert head.keys() == {"weight", "bias"} and head["weight"].any()
    assert not torch.equal(after["classifier.weight"], head["weight"])
    matrices = [name for name in before if before[name].ndim > 1 and not name.startswith("classifier")]
    assert matrices and not any(torch.equal(before[name], after[name]) for name in matrices)


def test_stopped_in_either_stage_a_run_resumes_to_the_same_bits_with_the_same_head(
    home: Path, whole: Path, seen: list[dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise StoppedEarly("before the first step")

    run, kept = home / "runs" / "again", home / "runs" / "again" / "checkpoints" / "head.safetensors"
    with monkeypatch.context() as patch, pytest.raises(StoppedEarly):
        patch.setattr(StopRequests, "request", lambda _: "a test")
        finetune(tiny.recipe(home, run__name="again", **FIRST))
    assert not seen and not kept.exists()
    with monkeypatch.context() as patch:
        patch.setattr("vitft.train.fit.take_step", stop)
        with pytest.raises(StoppedEarly):
            finetune(resume=run)
        kept.write_bytes(kept.read_bytes()[:-5])  # damaged: fitted again
        with pytest.raises(StoppedEarly):
            finetune(resume=run)
    monkeypatch.setattr(head_first, "fit_head", lambda *_: pytest.fail("fitted again"))
    finetune(resume=run)
    tiny.assert_same_run(run, whole)
    assert len(seen) == 3
    expected = load_file(whole / "checkpoints" / "head.safetensors")
    assert all(torch.equal(head[name], expected[name]) for head in seen for name in head)


def test_a_head_that_cannot_be_fitted_alone_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ModelError("its head is 2 modules (a, b)")

    monkeypatch.setattr(head_first, "head_input", refuse)
    with pytest.raises(ModelError, match=r"train.head_first: its head is 2 modules \(a, b\)") as error:
        finetune(tiny.recipe(home, run__name="two", **FIRST))
    assert error.value.hint == "--set train.head_first=false"
    assert not (home / "runs" / "two").exists()

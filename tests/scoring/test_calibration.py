"""The temperature against a minimiser that keeps the logits, however the images come; degenerate splits."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from torch import Tensor

from vitft.errors import DataError, ModelError
from vitft.scoring.calibration import BOUNDS, TemperatureFit


def sample(num_rows: int, num_classes: int, sureness: float, signal: float = 2.0) -> tuple[Tensor, Tensor]:
    """Make logits that would be calibrated at a temperature near ``sureness``, and labels."""
    generator = torch.Generator().manual_seed(num_classes)
    logits = signal * torch.randn(num_rows, num_classes, generator=generator)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    return sureness * logits, labels


def fitted(logits: Tensor, labels: Tensor, chunk: int = 64) -> TemperatureFit:
    fit = TemperatureFit()
    for start in range(0, len(labels), chunk):
        fit.add(logits[start : start + chunk], labels[start : start + chunk])
    return fit


def reference(logits: Tensor, labels: Tensor) -> float:
    def nll(log_temperature: float) -> float:
        return float(F.cross_entropy(logits.double() / torch.tensor(log_temperature).double().exp(), labels))

    low, high = torch.tensor(BOUNDS).log().tolist()
    found = minimize_scalar(nll, bounds=(low, high), method="bounded", options={"xatol": 1e-9})
    return float(torch.tensor(found.x).exp())


@pytest.mark.parametrize("sureness", [0.03, 0.3, 0.77, 1.0, 1.4, 5.0, 40.0])
@pytest.mark.parametrize(("num_rows", "num_classes"), [(40, 2), (300, 10), (150, 1000)])
def test_the_temperature_is_that_of_a_minimiser_with_all_logits(num_rows, num_classes, sureness):
    logits, labels = sample(num_rows, num_classes, sureness)
    found = fitted(logits, labels).solve()
    assert found.at_bound is None and found.count == num_rows
    assert found.value == pytest.approx(reference(logits, labels), rel=2e-5)


def test_two_rows_have_a_temperature_in_closed_form():
    # sigmoid(3 / T) = 2/3 where of three equal rows two are right: T = 3 / log 2.
    logits = torch.tensor([[3.0, 0.0]] * 3)
    found = fitted(logits, torch.tensor([0, 0, 1])).solve()
    assert found.value == pytest.approx(3 / torch.tensor(2.0).log().item(), rel=1e-6)


def test_a_minimum_on_a_grid_point_is_found():
    log_two = torch.tensor(2.0).double().log()
    for point in (8, 16, 27):
        beta = TemperatureFit().betas[point]
        logits = torch.stack((log_two / beta, torch.zeros_like(log_two)))[None].expand(3, 2)
        found = fitted(logits, torch.tensor([0, 0, 1])).solve()
        assert found.value == pytest.approx(1 / beta, rel=1e-6)


@pytest.mark.parametrize(
    ("logits", "labels", "temperature", "at_bound"),
    [
        ([[3.0, 0.0]] * 4, [0] * 4, BOUNDS[0], "lower"),
        ([[300.0, 0.0]] * 4, [0] * 4, BOUNDS[0], "lower"),
        ([[3.0, 0.0]] * 4, [1] * 4, BOUNDS[1], "upper"),
        ([[2.0, 1.0, 0.0]], [0], BOUNDS[0], "lower"),
        ([[2.0, 1.0, 0.0]], [2], BOUNDS[1], "upper"),
        ([[5.0, 5.0, 5.0]] * 3, [0, 1, 2], 1.0, None),
        ([[1.0, 1.0, 0.0]] * 3, [0, 1, 1], BOUNDS[0], "lower"),
    ],
    ids=["all right", "surely right", "all wrong", "one right", "one wrong", "all equal", "tied with the label"],
)
def test_degenerate_splits_have_a_temperature_and_say_when_it_is_a_bound(logits, labels, temperature, at_bound):
    found = fitted(torch.tensor(logits), torch.tensor(labels)).solve()
    assert (found.value, found.at_bound) == (temperature, at_bound)


def test_the_order_and_the_size_of_batches_do_not_matter():
    logits, labels = sample(300, 5, 2.0)
    shuffled = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    whole = fitted(logits, labels, chunk=300).solve()
    assert fitted(logits[shuffled], labels[shuffled], chunk=7).solve().value == pytest.approx(whole.value, rel=1e-12)


def test_processes_sum_and_find_the_same_temperature(monkeypatch):
    logits, labels = sample(300, 5, 2.0)
    mine, other = fitted(logits[:101], labels[:101]), fitted(logits[101:], labels[101:])
    monkeypatch.setattr("torch.distributed.all_reduce", lambda tensor: tensor.add_(other._sums))
    both = mine.reduce(SimpleNamespace(num_processes=2)).solve()
    alone = fitted(logits, labels).reduce(SimpleNamespace(num_processes=1)).solve()
    assert both.count == alone.count == 300
    assert both.value == pytest.approx(alone.value, rel=1e-12)
    assert mine.solve().count == 101, "the part of a process stays its own"


def test_without_images_or_with_broken_logits_there_is_no_temperature():
    with pytest.raises(DataError, match="nothing to fit"):
        TemperatureFit().solve()
    with pytest.raises(ModelError, match="not finite"):
        fitted(torch.tensor([[float("nan"), 0.0]]), torch.tensor([0])).solve()

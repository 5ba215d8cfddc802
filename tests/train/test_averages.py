from __future__ import annotations

import pytest
import torch
from torch import nn

from vitft.train.averages import AveragedWeights


def model_of(value: float) -> nn.Module:
    model = nn.BatchNorm1d(2)
    with torch.no_grad():
        model.weight.fill_(value)
    return model


@pytest.mark.parametrize("decay", [0.5, 0.9998])
def test_averages_follow_the_plain_recursion(decay: float) -> None:
    model = model_of(3.0)
    averaged, expected = AveragedWeights(model, decay), 3.0
    for step, value in enumerate([1.0, -2.0, 5.0, 0.5, 4.0, 4.0, -1.0], start=1):
        with torch.no_grad():
            model.weight.fill_(value)
            model.running_mean.fill_(10 * value)
        averaged.update(step)
        forget = min(decay, (1 + step) / (10 + step))
        expected = forget * expected + (1 - forget) * value
        assert averaged.tensors["weight"].tolist() == pytest.approx([expected, expected], rel=1e-6)
    assert averaged.tensors["running_mean"].abs().sum() > 0  # buffers of floats are averaged too
    assert "num_batches_tracked" not in averaged.tensors


def test_in_place_lends_the_average_and_gives_back_the_same_weights() -> None:
    model = model_of(1.0)
    averaged = AveragedWeights(model, 0.5)
    with torch.no_grad():
        model.weight.fill_(2.0)
    averaged.update(1)
    average, parameter, storage = averaged.tensors["weight"].clone(), model.weight, model.weight.data_ptr()
    with pytest.raises(ZeroDivisionError), averaged.in_place():
        assert model.weight is parameter
        assert torch.equal(model.weight, average)
        raise ZeroDivisionError
    assert model.weight.data_ptr() == storage
    assert model.weight.tolist() == [2.0, 2.0]
    assert torch.equal(averaged.tensors["weight"], average)


def test_averages_that_are_loaded_go_on_bit_for_bit() -> None:
    model = model_of(1.0)
    whole, other = AveragedWeights(model, 0.9), AveragedWeights(model_of(7.0), 0.9)
    with torch.no_grad():
        model.weight.fill_(0.1)
    whole.update(1)
    other.load({name: tensor.clone() for name, tensor in whole.tensors.items()})
    assert all(torch.equal(tensor, whole.tensors[name]) for name, tensor in other.tensors.items())


def test_what_is_frozen_is_not_averaged() -> None:
    model = model_of(1.0)
    model.bias.requires_grad_(False)
    assert "bias" not in AveragedWeights(model, 0.9).tensors

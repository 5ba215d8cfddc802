from __future__ import annotations

import math

import pytest
from torch import nn

from vitft.model.load import load_for_training
from vitft.recipe.keys import ModelRecipe, OptimRecipe
from vitft.train.optim import lr_at, make_optimizer, parameter_groups, set_lr

SCHEDULES = ("cosine", "linear", "constant")


# --- the learning rate -------------------------------------------------------------------------------------


def rates(schedule: str, total: int = 20, warmup: int = 5, peak: float = 0.8) -> list[float]:
    return [lr_at(step, peak=peak, total_steps=total, warmup_steps=warmup, schedule=schedule) for step in range(total)]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_warmup_rises_evenly_to_the_peak(schedule: str) -> None:
    assert rates(schedule)[:5] == pytest.approx([0.16, 0.32, 0.48, 0.64, 0.8])


def test_cosine_falls_as_a_half_wave() -> None:
    expected = [0.4 * (1 + math.cos(math.pi * t / 15)) for t in range(15)]
    assert rates("cosine")[5:] == pytest.approx(expected)
    assert rates("cosine", total=21, warmup=1)[11] == pytest.approx(0.4)  # half the peak half way down


def test_linear_falls_evenly_and_would_be_zero_after_the_last_step() -> None:
    assert rates("linear")[5:] == pytest.approx([0.8 * (15 - t) / 15 for t in range(15)])


def test_constant_stays_at_the_peak() -> None:
    assert rates("constant")[5:] == [0.8] * 15


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("total", "warmup"), [(1, 0), (1, 1), (7, 7), (100, 0), (100, 99)])
def test_every_rate_is_above_zero_and_at_most_the_peak_and_never_rises_after_the_warmup(
    schedule: str, total: int, warmup: int
) -> None:
    course = rates(schedule, total, warmup)
    assert max(course) == pytest.approx(0.8)
    assert all(0 < lr <= 0.8 for lr in course)
    assert course[warmup:] == sorted(course[warmup:], reverse=True)


# --- parameter groups --------------------------------------------------------------------------------------


def groups_of(home, **changes: object) -> tuple[nn.Module, list[dict]]:
    loaded = load_for_training(ModelRecipe(checkpoint=str(home / "checkpoint")), ["a", "b"], "squash")
    return loaded.model, parameter_groups(loaded.model, OptimRecipe(**changes), loaded.head)


def test_each_block_has_its_power_of_the_layer_decay(home) -> None:
    _, groups = groups_of(home, layer_decay=0.5)
    scales = {name: group["lr_scale"] for group in groups for name in group["names"]}
    blocks = [name for name in scales if "layer" in name and "layernorm." not in name.replace("layernorm_", "")]
    assert {scale for name, scale in scales.items() if "embeddings" in name} == {0.125}
    assert {scales[name] for name in blocks if ".0." in name} == {0.25}
    assert {scales[name] for name in blocks if ".1." in name} == {0.5}
    assert {scale for name, scale in scales.items() if "classifier" in name or "vit.layernorm" in name} == {1.0}


def test_the_factor_of_the_head_scales_its_rate_alone(home) -> None:
    scales = {
        factor: {name: group["lr_scale"] for group in groups for name in group["names"]}
        for factor, (_, groups) in ((f, groups_of(home, layer_decay=0.5, head_lr_factor=f)) for f in (1.0, 3.0))
    }
    for name, scale in scales[1.0].items():
        assert scales[3.0][name] == (3 * scale if name.startswith("classifier") else scale)
    assert scales[1.0]["classifier.weight"] == scales[1.0]["vit.layernorm.weight"] == 1.0


def test_only_matrices_decay(home) -> None:
    model, groups = groups_of(home, weight_decay=0.3)
    decays = {name: group["weight_decay"] for group in groups for name in group["names"]}
    parameters = dict(model.named_parameters())
    assert decays.keys() == parameters.keys()
    for name, decay in decays.items():
        is_table = any(word in name for word in ("cls_token", "position_embeddings"))
        assert decay == (0.0 if parameters[name].ndim == 1 or is_table else 0.3), name


def test_each_learning_parameter_is_in_one_group_and_a_frozen_one_in_none(home) -> None:
    loaded = load_for_training(ModelRecipe(checkpoint=str(home / "checkpoint")), ["a", "b"], "squash")
    for name, parameter in loaded.model.named_parameters():
        parameter.requires_grad_("embeddings" not in name)
    groups = parameter_groups(loaded.model, OptimRecipe(), loaded.head)
    names = [name for group in groups for name in group["names"]]
    assert sorted(names) == sorted(n for n, p in loaded.model.named_parameters() if p.requires_grad)
    parameters = dict(loaded.model.named_parameters())
    assert all(parameters[n] is p for g in groups for n, p in zip(g["names"], g["params"], strict=True))


def test_the_rate_of_a_step_is_scaled_in_each_group(home) -> None:
    _, groups = groups_of(home, layer_decay=0.5)
    optimizer = make_optimizer(groups, OptimRecipe(), fused=False)
    for peak in (0.4, 0.8):  # not on top of the former
        assert set_lr(optimizer, OptimRecipe(lr=peak, schedule="constant"), 0, 10, 0) == peak
    assert sorted({group["lr"] for group in optimizer.param_groups}) == pytest.approx([0.1, 0.2, 0.4, 0.8])

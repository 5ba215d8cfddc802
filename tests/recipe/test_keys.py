"""The keys of a recipe: described, bounded, and at peace with each other."""

import pytest
import torch

from vitft.errors import RecipeError
from vitft.recipe.recipe import Recipe, keys
from vitft.views.mixing import draw_mixture


def complaints(changes, base=None):
    with pytest.raises(RecipeError) as caught:
        Recipe.load(base, changes)
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"augment.crop_scale": [0.8, 0.2]},
        {"augment.crop_scale": [0, 1]},
        {"model.init": "random", "model.train": "head"},
        {"model.adapter": True},
        {"model.lora_rank": 8, "model.train": "head"},
        {"model.lora_alpha": 8, "model.train": "last:2"},
        {"model.lora_dropout": 0, "model.train": "attention"},
        {"model.lora_targets": "all-linear"},
        {"train.head_first": True, "model.train": "head"},
        {"train.head_first": True, "model.init": "random"},
        {"train.head_first": True, "data.streaming": True},
        {"model.init": "random", "model.train": "lora"},
        {"train.feature_views": 2},
        {"train.feature_views": 2, "model.train": "head", "train.features": "off"},
        {"train.batch_size": 4, "train.micro_batch_size": 8},
    ],
)
def test_values_that_contradict_each_other_are_refused(changes):
    said = complaints(changes)
    assert "contradicts itself" in said
    assert next(iter(changes)) in said or "train.micro_batch_size" in said


@pytest.mark.parametrize("alpha", [5e-324, 1e-300, 1e-9, 1000])
def test_every_alpha_that_is_allowed_has_a_mixture(alpha):
    draws = torch.rand(64, 5, generator=torch.Generator().manual_seed(0))
    recipe = Recipe.load(None, {"augment.mixup_alpha": alpha, "augment.cutmix_alpha": alpha}).augment
    alphas = {"mixup_alpha": recipe.mixup_alpha, "cutmix_alpha": recipe.cutmix_alpha}
    mixture = draw_mixture(draws, (8, 8), **alphas, probability=1.0)
    assert ((mixture.lam >= 0) & (mixture.lam <= 1)).all()


def test_every_key_is_described_and_has_a_default():
    described = {key: field.description for key, field in keys()}
    assert set(described) == set(Recipe().flat())
    for key, description in described.items():
        assert description, key
        assert description.rstrip().endswith("."), key
        assert not description.endswith(".."), key

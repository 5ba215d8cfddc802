"""The page of what the network will see: the very views of the training."""

import re

import pytest
import torch
from cli.command import run

from vitft import Recipe, show_views
from vitft.builtin.digits import load_digits
from vitft.errors import DataError, RecipeError
from vitft.processes.device import make_accelerator
from vitft.recipe.keys import AugmentRecipe
from vitft.tasks.loading import load_setup
from vitft.tasks.viewing import _Album, in_use
from vitft.views.policy import policy

SMALL = {
    "data.max_train_samples": 50, "train.duration": "2 epochs", "train.batch_size": 15, "train.device": "cpu",
    "augment.policy": "trivialaugment", "augment.cutmix_alpha": 1.0, "augment.label_smoothing": 0.1,
}  # fmt: skip


def album(changes, number=4, per_image=3):
    recipe = Recipe.load("quickstart", SMALL | changes)
    setup = load_setup(None, recipe, *make_accelerator(recipe), is_quiet=True)
    return _Album(setup, setup.source.train, number, per_image)


def test_the_views_are_those_of_the_training():
    """Also with an odd batch, whose last image has no partner, and steps that go over the end of an epoch."""
    made = album({})
    setup = made.setup
    augment = setup.recipe.augment.model_copy(update={"label_smoothing": 0.0})
    view = policy(
        augment,
        resize_mode=setup.recipe.data.fit,
        image_size=setup.classifier.image_size,
        normalise=setup.classifier.pixel_values,
        num_classes=10,
        seed=setup.recipe.train.seed,
    )
    num_seen = 0
    for parts in made.training.batches.steps(0, setup.plan.total_steps):
        for part in parts:
            pixel_values, targets = view(part)
            for place, index in enumerate(part.sample_indices.tolist()):
                levels, target = made._seen(index)
                far = (setup.classifier.pixel_values.levels(pixel_values)[place] - levels).abs() > 1
                assert far.double().mean() < 1e-2
                assert torch.equal(targets[place], target)
                num_seen += 1
    assert num_seen == setup.plan.total_samples == 100


def test_every_epoch_shows_the_image_of_its_row():
    made = album({"augment.cutmix_alpha": 0.0, "data.max_train_samples": 20})
    assert made.num_views == 2 and "no more than 2 epochs" in made.notes[0]
    for row in made.chosen():
        shown = made.row(row)
        assert [each["labels"] for each in shown["views"]] == [[(shown["label"], 1.0)]] * 2
        assert shown["views"][0]["image"] != shown["views"][1]["image"]


def test_the_page_shows_images_views_and_the_keys_behind_them(tmp_path, capsys):
    settings = [f"--set={key}={value}" for key, value in SMALL.items()]
    words = ("--recipe", "quickstart", "--number", "3", "--per-image", "2", "-o", str(tmp_path), *settings)
    assert run("views", *words) == 0
    page = (tmp_path / "views.html").read_text(encoding="utf-8")
    assert str(tmp_path / "views.html") in capsys.readouterr().out
    assert page.count('src="data:image/png') == 3 * (1 + 1 + 2)
    assert "<td>augment.policy</td><td>trivialaugment</td>" in page and "<td>augment.blur</td>" not in page
    assert re.search(r"Off, or without effect here: .*augment\.blur", page)
    assert not re.search(r'(src|href)="(?!data:)', page)


def test_a_head_on_plain_features_sees_no_views_and_the_page_says_so(tmp_path):
    result = show_views(
        Recipe.load("quickstart", SMALL | {"model.train": "head"}), number=2, output=tmp_path / "a.html"
    )
    assert "nothing in augment but label_smoothing is used" in result.notes[0]
    page = result.path.read_text(encoding="utf-8")
    assert "just as it is scored" in page and "<th>epoch 1</th>" not in page
    few = album({"model.train": "head", "train.feature_views": 2})
    assert few.num_views == 2 and few.training.augment.cutmix_alpha == 0


def test_quarter_turns_of_another_shape_are_refused_before_the_training():
    with pytest.raises(RecipeError, match=r"augment.quarter_turns: an image of 32x48 pixels"):
        album({"augment.quarter_turns": True, "model.image_size": "32x48"})


def test_a_stream_has_no_views(tmp_path):
    load_digits()["train"].select(range(30)).to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")
    changes = {"data.dataset": str(tmp_path / "data"), "data.streaming": True, "train.duration": "1 steps"}
    with pytest.raises(DataError, match="can be read only once"):
        show_views(Recipe.load("quickstart", changes), output=tmp_path / "a.html")
    assert not (tmp_path / "a.html").exists()


@pytest.mark.parametrize(
    ("augment", "off"),
    [
        ({}, {"policy", "policy_ops", "erase", "erase_area", "mix_probability", "quarter_turns", "blur"}),
        ({"crop": "simple"}, {"crop_scale", "crop_ratio"}),
        ({"policy": "randaugment"}, {"erase_area"}),
        ({"mixup_alpha": 0.2, "mix_probability": 0}, {"mixup_alpha", "mix_probability"}),
    ],
)
def test_keys_without_effect_are_told_apart(augment, off):
    used = set(in_use(AugmentRecipe(**augment)))
    assert not used & off
    assert {"crop", "flip"} <= used
    assert ({"policy_noise", "policy_ops"} <= used) == (augment.get("policy") == "randaugment")

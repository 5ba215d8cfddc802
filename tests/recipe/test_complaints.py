"""What is wrong with a recipe is said all at once, a line for each key, with what is allowed."""

import pytest

from vitft.errors import RecipeError
from vitft.recipe.recipe import Recipe


def complaints(changes, base=None):
    with pytest.raises(RecipeError) as caught:
        Recipe.load(base, changes)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_a_key_too_deep_or_without_a_section_is_refused():
    assert "lr: unknown key; did you mean optim.lr?" in complaints({"lr": 1e-3})
    assert "optim.lr" in complaints({"optim.lr.head": 1e-3})


def test_all_errors_of_a_file_are_reported_at_once(tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text("optim: {lrr: 1, lr: fast}\ntrain: {duration: 10, seed: 1.5}\naugmnt: {}\nmodel: 3\n")
    said = complaints({"data.bad_images": "ignore"}, file)
    assert said.splitlines()[0] == f"{file} with the given changes has 7 errors:"
    for line in (
        "  optim.lrr: unknown key; did you mean 'lr'?",
        "  optim.lr: 'fast' is not allowed; use a number or a list",
        "  train.duration: 10 is not a duration; write a number and unit: 10 epochs, 2500 steps, 5%, 8 h",
        "  train.seed: 1.5 is not allowed; use a whole number",
        "  augmnt: unknown key; did you mean 'augment'?",
        "  model: 3 is not a section; write its keys below it, indented",
        "  data.bad_images: 'ignore' is not allowed; use stop or skip",
    ):
        assert line in said.splitlines()


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("optim.lr", 0, "0 is not allowed; use a number > 0 or a list"),
        ("optim.lr", float("nan"), "nan is not allowed; use a finite number or a list"),
        ("optim.weight_decay", -1, "-1 is not allowed; use a number >= 0"),
        ("optim.momentum", 1, "1 is not allowed; use a number < 1"),
        ("augment.flip", 2, "2 is not allowed; use a number <= 1"),
        ("augment.crop_scale", [0.5, 2], "2 is not allowed; use a number <= 1"),
        ("augment.crop_scale", [0.5], "[0.5] is not allowed; use a list of 2"),
        ("augment.crop_scale", 0.5, "0.5 is not allowed; use a list"),
        ("data.streaming", "maybe", "'maybe' is not allowed; use true or false"),
        ("train.batch_size", "big", "'big' is not allowed; use auto or a whole number"),
        ("train.batch_size", 1, "1 is not allowed; use auto or a number >= 2"),
        ("data.max_train_samples", "few", "'few' is not allowed; use a whole number or null"),
        ("train.time_limit", "10 epochs", "'10 epochs' has the wrong unit; use one of: time"),
        ("optim.warmup", "2 h", "'2 hours' has the wrong unit; use one of: epochs, steps, %"),
        ("train.duration", "50%", "'50%' has the wrong unit; use one of: epochs, steps"),
        ("run.track", ["excel"], "'excel' is not allowed; use tensorboard,"),
        ("run.name", "../up", "'../up' is not allowed; use letters, digits, and - _ . after the first"),
        ("model.position.kind", "absolute", "'absolute' is not allowed; use learned-1d, learned-2d, sincos-2d,"),
        ("model.position.kin", "none", "unknown key; did you mean 'kind'?"),
        ("model.position", "none", "'none' is not a section; write its keys below it, indented"),
        (
            "model.train",
            "last:0",
            "'last:0' is not allowed; use all, head, attention, norms-and-biases, all-but-embedding, "
            "lora, dora or last:N (did you mean last:2?)",
        ),
        ("model.lora_targets", "q_proj", "'q_proj' is not allowed; use attention or all-linear"),
        ("model.lora_rank", 0, "0 is not allowed; use a number >= 1"),
    ],
)
def test_each_error_is_one_line_that_says_what_is_allowed(key, value, says):
    lines = complaints({key: value}).splitlines()
    assert lines[0] == "the recipe has 1 error:"
    assert lines[1].startswith(f"  {key}: {says}")


def test_a_key_of_another_section_is_pointed_to():
    assert "train.weight_decay: unknown key; did you mean optim.weight_decay?" in complaints({"train.weight_decay": 0})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optim.betas", [1, 1]), ("optim.betas", [0.9, 1]), ("augment.mixup_alpha", 1e300),
        ("augment.cutmix_alpha", 1001), ("train.batch_size", 10**30), ("train.micro_batch_size", 10**30),
        ("data.workers", 10**6), ("train.keep_checkpoints", 10**10), ("data.shuffle_buffer", 10**30),
    ],
)  # fmt: skip
def test_a_number_that_cannot_work_is_refused_with_its_bound(key, value):
    with pytest.raises(RecipeError, match=rf"{key}: .* is not allowed; use .*a number <"):
        Recipe.load(None, {key: value})

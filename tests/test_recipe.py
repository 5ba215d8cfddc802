"""Recipes: how they are read, laid over each other, judged and written."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from vitft.builtin import recipe_names, recipe_path
from vitft.errors import RecipeError, did_you_mean
from vitft.recipe import fields
from vitft.recipe.describe import describe, fields_module
from vitft.recipe.lengths import Duration
from vitft.recipe.recipe import RESUMABLE_CHANGES, Recipe, keys, overlay
from vitft.recipe.yaml12 import parse_setting, parse_yaml
from vitft.views.mixing import draw_mixture


def complaints(changes, base=None):
    with pytest.raises(RecipeError) as caught:
        Recipe.load(base, changes)
    assert caught.value.exit_code == 2
    return str(caught.value)


# --- laying values over each other -------------------------------------------------------------------------


def test_changes_win_over_the_file_and_the_file_over_the_defaults(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text("optim: {lr: 1e-3, momentum: 0.5}\n")
    recipe = Recipe.load(file, {"optim.lr": 2e-3})
    assert (recipe.optim.lr, recipe.optim.momentum) == (2e-3, 0.5)
    assert recipe.optim.weight_decay == Recipe().optim.weight_decay


def test_overlay_changes_none_of_its_arguments():
    values, changes = (
        {"optim": {"lr": 1, "name": "sgd"}, "train": {"seed": 1}},
        {"optim.lr": 2, "run.name": "x"},
    )
    assert overlay(values, changes) == {
        "optim": {"lr": 2, "name": "sgd"},
        "train": {"seed": 1},
        "run": {"name": "x"},
    }
    assert values == {"optim": {"lr": 1, "name": "sgd"}, "train": {"seed": 1}}


def test_a_key_too_deep_or_without_a_section_is_refused():
    assert "lr: unknown key; did you mean optim.lr?" in complaints({"lr": 1e-3})
    assert "optim.lr" in complaints({"optim.lr.head": 1e-3})


def test_a_recipe_cannot_be_changed():
    recipe = Recipe()
    with pytest.raises(ValidationError, match="frozen"):
        recipe.optim.lr = 1.0
    with pytest.raises(ValidationError, match="frozen"):
        recipe.optim = recipe.optim


def test_differences_name_the_keys_and_both_values():
    one, other = Recipe(), Recipe.load(None, {"optim.lr": 0.25, "train.duration": "3 epochs"})
    assert one.differences(other) == [
        "optim.lr: 0.0005 -> 0.25",
        "train.duration: 10 epochs -> 3 epochs",
    ]
    assert one.differences(Recipe()) == []


# --- errors ------------------------------------------------------------------------------------------------


def test_all_errors_of_a_file_are_reported_at_once(tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text("optim: {lrr: 1, lr: fast}\ntrain: {duration: 10, seed: 1.5}\naugmnt: {}\nmodel: 3\n")
    said = complaints({"data.bad_images": "ignore"}, file)
    assert said.splitlines()[0] == f"{file} with what was laid over it has 7 errors:"
    for line in (
        "  optim.lrr: unknown key; did you mean 'lr'?",
        "  optim.lr: 'fast' is not allowed; use a number",
        "  train.duration: 10 is no duration; write a number and a unit: 10 epochs, 2500 steps, 5%, 8 h",
        "  train.seed: 1.5 is not allowed; use a whole number",
        "  augmnt: unknown key; did you mean 'augment'?",
        "  model: 3 is no section; write its keys below it, indented",
        "  data.bad_images: 'ignore' is not allowed; use stop or skip",
    ):
        assert line in said.splitlines()


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("optim.lr", 0, "0 is not allowed; use a number > 0"),
        ("optim.lr", float("nan"), "nan is not allowed; use a finite number"),
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
        ("run.name", "../up", "'../up' is not allowed; it is: Name of the run's new folder"),
        ("model.position.kind", "absolute", "'absolute' is not allowed; use learned-1d, learned-2d, sincos-2d,"),
        ("model.position.kin", "none", "unknown key; did you mean 'kind'?"),
        ("model.position", "none", "'none' is no section; write its keys below it, indented"),
        ("model.train", "last:0", "'last:0' is not allowed; it is: What learns: `all`, `head`, or `last:N`"),
    ],
)
def test_each_error_is_one_line_that_says_what_is_allowed(key, value, says):
    lines = complaints({key: value}).splitlines()
    assert lines[0] == "the recipe has 1 error:"
    assert lines[1].startswith(f"  {key}: {says}")


def test_a_key_below_a_key_is_one_of_the_recipe(tmp_path):
    recipe = Recipe.load(None, {"model.position.kind": "none", "model.image_size": 32})
    assert recipe.flat()["model.position.kind"] == "none" and recipe.model.image_size == (32, 32)
    assert Recipe().differences(recipe) == ["model.image_size: None -> 32", "model.position.kind: None -> none"]
    (tmp_path / "again.yaml").write_text(recipe.dump())
    assert Recipe.load(tmp_path / "again.yaml") == recipe
    assert "did you mean model.position.kind?" in complaints({"model.kind": "none"})


def test_a_key_of_another_section_is_pointed_to():
    assert "train.weight_decay: unknown key; did you mean optim.weight_decay?" in complaints({"train.weight_decay": 0})


@pytest.mark.parametrize(
    "changes",
    [
        {"augment.crop_scale": [0.8, 0.2]},
        {"augment.crop_scale": [0, 1]},
        {"model.init": "random", "model.train": "head"},
        {"train.batch_size": 4, "train.micro_batch_size": 8},
    ],
)
def test_values_that_contradict_each_other_are_refused(changes):
    said = complaints(changes)
    assert "contradicts itself" in said
    assert next(iter(changes)) in said or "train.micro_batch_size" in said


def test_an_unknown_recipe_is_answered_with_the_known_ones():
    said = complaints({}, "defualt")
    assert "there is no recipe 'defualt'" in said
    assert "--recipe default" in said


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- a\n- b\n", "holds a list, not a recipe"),
        ("a: [1\n", "is not valid YAML"),
        ("optim: {lr: 1}\noptim: {lr: 2}\n", "the key 'optim' stands twice"),
        ("optim:\n  lr: 1\n  lr: 2\n", "the key 'lr' stands twice"),
        ("!!python/object/apply:os.system ['true']", "is not valid YAML"),
    ],
)
def test_a_file_that_is_no_recipe_is_an_error_that_names_it(tmp_path, text, says):
    file = tmp_path / "odd.yaml"
    file.write_text(text)
    said = complaints({}, file)
    assert says in said
    assert str(file) in said


def test_a_file_that_is_no_text_is_an_error_that_names_it(tmp_path):
    file = tmp_path / "binary.yaml"
    file.write_bytes(b"\xff\xfe\x00\x01")
    assert f"cannot read the recipe {file}" in complaints({}, file)


# --- YAML and --set ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4), ("3E2", 300.0), ("-1.5e+3", -1500.0), (".5", 0.5), ("7", 7), ("-7", -7),
        ("no", "no"), ("on", "on"), ("Yes", "Yes"), ("true", True), ("False", False),
        ("null", None), ("~", None), ("", None), ("0o17", "0o17"), ("1_000", "1_000"), ("12:30", "12:30"),
        ("2026-11-22", "2026-11-22"), ("5%", "5%"), ("[1, 2e0, x]", [1, 2.0, "x"]), ("1.2.3", "1.2.3"),
    ],
)  # fmt: skip
def test_yaml_follows_the_rules_of_1_2(text, value):
    parsed = parse_yaml(text, "here")
    assert parsed == value
    assert type(parsed) is type(value)


def test_set_splits_at_the_first_equals_sign_and_reads_yaml():
    assert parse_setting("optim.lr=3e-4") == ("optim.lr", 3e-4)
    assert parse_setting("data.dataset=a=b") == ("data.dataset", "a=b")
    assert parse_setting("augment.crop_scale=[0.1, 1]") == ("augment.crop_scale", [0.1, 1])
    assert parse_setting("optim.max_grad_norm=null") == ("optim.max_grad_norm", None)


@pytest.mark.parametrize("text", ["optim.lr", "optim.lr 3e-4", "=3e-4", ""])
def test_set_without_a_key_or_a_value_is_refused(text):
    with pytest.raises(RecipeError, match="has no '='") as caught:
        parse_setting(text)
    assert "--set optim.lr=3e-4" in str(caught.value)


def test_did_you_mean_keeps_silent_when_nothing_is_near():
    assert did_you_mean("leraning_rate", ["learning_rate", "seed"]) == "learning_rate"
    assert did_you_mean("xyzzy", ["learning_rate", "seed"]) is None


# --- durations ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("10 epochs", "10 epochs"), ("1 epoch", "1 epoch"), ("0.5 epochs", "0.5 epochs"),
        ("2500steps", "2500 steps"), ("1 step", "1 step"), ("5%", "5%"), (" 2.5 % ", "2.5%"),
        ("8 h", "8 hours"), ("90 min", "90 minutes"), ("1 d", "1 day"), ("30s", "30 seconds"),
        ("1000000 steps", "1000000 steps"), ("123456789 steps", "123456789 steps"), (".00000001 %", "0.00000001%"),
    ],
)  # fmt: skip
def test_durations_are_read_and_written(text, canonical):
    assert str(Duration.parse(text)) == canonical
    assert Duration.parse(canonical) == Duration.parse(text)


@pytest.mark.parametrize("text", ["10", 10, "epochs", "-1 epochs", "10 weeks", "1e3 steps", "", None, "5 % epochs"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="is no duration; write a number and a unit"):
        Duration.parse(text)


@pytest.mark.parametrize("text", ["9" * 5000 + " steps", "1000000001 epochs", "9999999999 h"])
def test_a_duration_beyond_all_counting_is_refused_in_few_words(text):
    with pytest.raises(ValueError, match="is too long; use a number up to 1,000,000,000") as error:
        Duration.parse(text)
    assert len(str(error.value)) < 200


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


@pytest.mark.parametrize("alpha", [5e-324, 1e-300, 1e-9, 1000])
def test_every_alpha_that_is_allowed_has_a_mixture(alpha):
    draws = torch.rand(64, 5, generator=torch.Generator().manual_seed(0))
    recipe = Recipe.load(None, {"augment.mixup_alpha": alpha, "augment.cutmix_alpha": alpha}).augment
    alphas = {"mixup_alpha": recipe.mixup_alpha, "cutmix_alpha": recipe.cutmix_alpha}
    mixture = draw_mixture(draws, (8, 8), **alphas, probability=1.0)
    assert ((mixture.lam >= 0) & (mixture.lam <= 1)).all()


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("10%", 3),  # 0.1 * 30 is 3.0000000000000004
        ("11%", 4),
        ("100%", 30),
        ("0%", 0),
        ("7 steps", 7),
        ("2.5 steps", 3),
        ("1 epoch", 10),
        ("0.1 epochs", 1),
        ("1.01 epochs", 11),
    ],
)
def test_durations_in_steps_are_rounded_up(text, steps):
    assert Duration.parse(text).in_steps(batch_size=50, num_samples=500, total_steps=30) == steps


def test_the_steps_of_an_epoch_include_a_short_last_one():
    assert Duration.parse("3 epochs").in_steps(batch_size=62, num_samples=501) == 25  # ceil(1503 / 62)


def test_epochs_of_a_stream_of_unknown_length_cannot_be_counted():
    with pytest.raises(RecipeError, match="the length of this stream is unknown"):
        Duration.parse("1 epoch").in_steps(batch_size=2, num_samples=None)


def test_times_know_their_seconds():
    assert Duration.parse("1.5 h").seconds == 5400
    assert Duration.parse("1.5 h").is_time
    assert not Duration.parse("5 steps").is_time


# --- writing and describing --------------------------------------------------------------------------------


def test_what_is_dumped_loads_as_the_same_recipe(tmp_path):
    recipe = Recipe.load(
        None,
        {
            "data.dataset": "no",  # a word that YAML 1.1 would read as False
            "optim.lr": 1e-8,
            "train.time_limit": "90 min",
            "optim.max_grad_norm": None,
            "augment.crop_scale": [0.08, 1],
            "run.name": "2026-11-22",
            "run.metrics": ["f1", "./mine"],
            "model.allow_new": ["vit.*"],
        },
    )
    (tmp_path / "recipe.yaml").write_text(recipe.dump())
    assert Recipe.load(tmp_path / "recipe.yaml") == recipe
    assert Recipe.load(tmp_path) == recipe  # a run directory stands for its recipe


def test_a_recipe_knows_whether_a_file_names_its_metrics(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("run: {metrics: [f1]}")
    assert Recipe.load(path).metrics_from == str(path)
    assert Recipe.load(path).model_copy(update={"data": Recipe().data}).metrics_from == str(path)
    assert Recipe.load(path, {"run.metrics": ["f1"]}).metrics_from == ""
    assert Recipe.load(path, {"run.metrics": []}).metrics_from == ""
    assert Recipe.load(None, {"run.metrics": ["f1"]}).metrics_from == ""
    assert Recipe.load(path) != Recipe() == Recipe.load("default", {})


def test_every_key_is_described_and_has_a_default():
    described = {key: field.description for key, field in keys()}
    assert set(described) == set(Recipe().flat())
    for key, description in described.items():
        assert description, key
        assert description.rstrip().endswith("."), key
        assert not description.endswith(".."), key


def test_the_schema_describes_every_key_and_knows_no_others():
    schema = Recipe.model_json_schema()
    assert json.loads(json.dumps(schema)) == schema
    assert schema["additionalProperties"] is False
    for section, entry in schema["properties"].items():
        name = (entry.get("$ref") or entry["allOf"][0]["$ref"]).rsplit("/", 1)[1]
        below = schema["$defs"][name]
        assert below["additionalProperties"] is False
        for key, described in below["properties"].items():
            assert described.get("description"), f"{section}.{key}"
            assert "default" in described, f"{section}.{key}"
    assert schema["$defs"]["TrainRecipe"]["properties"]["duration"]["type"] == "string"


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_that_ships_is_valid_and_opens_with_its_command(name):
    Recipe.load(name)
    lines = recipe_path(name).read_text(encoding="utf-8").splitlines()
    opening = lines[: next(i for i, x in enumerate([*lines, ""]) if not x.startswith("#"))]
    assert opening, "no opening comment"
    assert any(line.lstrip("# ").startswith("vitft ") for line in opening), "no command in the opening comment"


def test_reading_recipes_imports_no_torch():
    code = "import sys; from vitft.recipe.recipe import Recipe; Recipe.load('default'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# --- what others make of the keys --------------------------------------------------------------------------


def test_what_flags_say_is_what_the_keys_say():
    written = Path(fields.__file__).read_text(encoding="utf-8")
    assert written == fields_module(), "python -m vitft.recipe.describe"


def test_the_kinds_of_keys():
    described = dict(describe())
    kinds = {
        "optim.lr": ("float", ()),
        "train.seed": ("int", ()),
        "train.batch_size": ("int", ("auto",)),
        "train.precision": ("str", ("auto", "bf16", "fp16", "fp32")),
        "train.duration": ("str", ()),
        "model.image_size": ("str", ()),
        "model.position.kind": ("str", ("learned-1d", "learned-2d", "sincos-2d", "none", "relative")),
        "data.streaming": ("bool", ()),
        "run.metrics": ("list", ()),
        "train.resolution_schedule": ("dict", ()),
    }
    assert {key: described[key][:2] for key in kinds} == kinds
    assert described["run.track"].kind == "list" and "tensorboard" in described["run.track"].choices


def test_what_may_change_when_a_run_is_resumed():
    assert {
        "data.bad_images", "data.workers", "run.track", "run.metrics", "run.name", "run.output_dir", "run.pictures",
        "train.device", "train.keep_checkpoints", "train.micro_batch_size", "train.time_limit", "hub.push", "hub.repo",
        "hub.private", "hub.revision", "hub.create_pr", "hub.every", "hub.license", "hub.force",
    } == RESUMABLE_CHANGES  # fmt: skip
    changed = Recipe.load(None, {"optim.lr": 1.0, "hub.push": True})
    assert Recipe().broken_by(changed) == ["optim.lr: 0.0005 -> 1.0"]

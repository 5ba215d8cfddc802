"""Recipes: how they are read, laid over each other, judged and written."""

import json
import subprocess
import sys

import pytest
from pydantic import ValidationError

from vitft.builtin import recipe_names, recipe_path
from vitft.errors import RecipeError
from vitft.recipe.recipe import RESUMABLE_CHANGES, Recipe, overlay


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


def test_a_recipe_cannot_be_changed():
    recipe = Recipe()
    with pytest.raises(ValidationError, match="frozen"):
        recipe.optim.lr = 1.0
    with pytest.raises(ValidationError, match="frozen"):
        recipe.optim = recipe.optim


def test_differences_name_the_keys_and_both_values():
    one, other = Recipe(), Recipe.load(None, {"optim.lr": 0.25, "train.duration": "3 epochs"})
    assert one.differences(other) == [
        "optim.lr: 0.001 -> 0.25",
        "train.duration: 10 epochs -> 3 epochs",
    ]
    assert one.differences(Recipe()) == []


def test_a_key_below_a_key_is_one_of_the_recipe(tmp_path):
    recipe = Recipe.load(None, {"model.position.kind": "none", "model.image_size": 32})
    assert recipe.flat()["model.position.kind"] == "none" and recipe.model.image_size == (32, 32)
    assert Recipe().differences(recipe) == ["model.image_size: None -> 32", "model.position.kind: None -> none"]
    (tmp_path / "again.yaml").write_text(recipe.dump())
    assert Recipe.load(tmp_path / "again.yaml") == recipe
    assert "did you mean model.position.kind?" in complaints({"model.kind": "none"})


def test_an_unknown_recipe_is_answered_with_the_known_ones():
    said = complaints({}, "defualt")
    assert "there is no recipe 'defualt'" in said
    assert "--recipe default" in said


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- a\n- b\n", "contains a list, not a recipe"),
        ("a: [1\n", "is not valid YAML"),
        ("optim: {lr: 1}\noptim: {lr: 2}\n", "the key 'optim' appears twice"),
        ("optim:\n  lr: 1\n  lr: 2\n", "the key 'lr' appears twice"),
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


def test_what_may_change_when_a_run_is_resumed():
    assert {
        "data.bad_images", "data.cache", "data.cache_limit", "data.workers",
        "run.track", "run.project", "run.metrics", "run.name", "run.output_dir",
        "run.pictures",
        "train.device", "train.keep_after_end", "train.keep_checkpoints", "train.micro_batch_size", "train.profile",
        "train.time_limit",
        "hub.push", "hub.repo", "hub.private", "hub.revision", "hub.create_pr", "hub.every", "hub.license", "hub.force",
    } == RESUMABLE_CHANGES  # fmt: skip
    changed = Recipe.load(None, {"optim.lr": 1.0, "hub.push": True})
    assert Recipe().broken_by(changed) == ["optim.lr: 0.001 -> 1.0"]

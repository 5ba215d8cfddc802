"""``vitft recipes``: listed, shown, copied, checked."""

import json

import yaml
from cli.command import run

from vitft.recipe.recipe import Recipe, keys


def test_recipes_ls_gives_a_line_to_each(capsys):
    from vitft.builtin import recipe_names

    assert run("recipes", "ls") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == recipe_names()
    assert all(len(line.split()) > 3 for line in lines)


def test_recipes_show_prints_every_key_as_a_recipe(capsys):
    assert run("recipes", "show", "default") == 0
    printed = capsys.readouterr().out
    assert printed.startswith("#")
    written = yaml.safe_load(printed)
    position = written["model"].pop("position")
    found = [f"{section}.{key}" for section in written for key in written[section]]
    assert found == [key for key, _ in keys() if key != "model.position.kind"] and position == {"kind": None}


def test_what_recipes_show_prints_is_the_same_recipe(tmp_path, capsys):
    from vitft.builtin import recipe_names

    for name in recipe_names():
        assert run("recipes", "show", name) == 0
        (tmp_path / "shown.yaml").write_text(capsys.readouterr().out)
        assert Recipe.load(tmp_path / "shown.yaml") == Recipe.load(name)


def test_recipes_cp_copies_and_never_overwrites(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("recipes", "cp", "default") == 0
    assert run("recipes", "cp", "default", "mine.yaml") == 0
    assert Recipe.load("mine.yaml") == Recipe.load("default.yaml") == Recipe()
    (tmp_path / "mine.yaml").write_text("train: {seed: 5}\n")
    assert run("recipes", "cp", "default", "mine.yaml") == 2
    assert "will not be overwritten" in capsys.readouterr().err
    assert Recipe.load("mine.yaml").train.seed == 5
    assert run("recipes", "cp", "default", "nowhere/mine.yaml") == 2


def test_recipes_validate_reports_every_file(tmp_path, capsys):
    for name, text in {"a": "optim: {lrr: 1}", "b": "train: {seed: x}", "c": "train: {seed: 1}"}.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    assert run("recipes", "validate", *(str(tmp_path / f"{name}.yaml") for name in "abc")) == 2
    printed = capsys.readouterr()
    assert "did you mean 'lr'?" in printed.err
    assert "--seed (train.seed): 'x' is not allowed" in printed.err
    assert printed.out == f"{tmp_path / 'c.yaml'}: valid\n"


def test_recipes_schema_is_json_with_every_section(capsys):
    assert run("recipes", "schema") == 0
    schema = json.loads(capsys.readouterr().out)
    assert list(schema["properties"]) == list(Recipe.model_fields)

"""Names that no file, model, dataset or run can have, given wherever a name is taken."""

import gzip
import os
import re
import zipfile

import numpy as np
import pytest
from PIL import Image

from vitft.cli import main
from vitft.errors import DataError, RecipeError, VitftError
from vitft.outside import printable
from vitft.reading.source import open_source
from vitft.recipe.keys import DataRecipe
from vitft.recipe.recipe import Recipe

NAMES = {
    "300 characters": "n" * 300,
    "a path of 300 characters": f"./{'n' * 300}",
    "a path of 9,000 characters": "./" + "n/" * 4500,
    "nothing": "",
    "a space": " ",
    "escape codes": "./\x1b[2Jgone\x1b]0;title\x07",
    "another direction": "./photo\u202egnp",
    "lines": "./a\nerror: all is well\n",
    "no unicode": "./caf\udce9",
    "a user that is not there": "~nobody-of-this-name/x",
    "a secret": "https://user:TOKEN@host.invalid/x",
    "a secret in a query": "https://host.invalid/x?token=TOKEN",
    "the file system": "/",
    "a device": "/dev/null",
    "builtin": "builtin:\x1b[2J",
    "a glob": "[",
}
COMMANDS = {
    "dataset": ["finetune", "--dataset", "{}", "--model", "builtin:vit-micro", "--dry-run"],
    "model": ["finetune", "--dataset", "builtin:digits", "--model", "{}", "--dry-run"],
    "recipe": ["finetune", "--recipe", "{}"],
    "run to resume": ["finetune", "--resume", "{}"],
    "model to evaluate": ["evaluate", "{}", "--dataset", "builtin:digits"],
    "model to predict": ["predict", "{}", "x.png"],
    "image": ["predict", "builtin:vit-micro", "--", "{}"],
    "model to resize": ["resize", "{}", "out", "--image-size", "64"],
    "model to look into": ["inspect", "{}"],
    "run to push": ["push", "{}"],
    "recipe to show": ["recipes", "show", "{}"],
    "recipe to check": ["recipes", "validate", "{}"],
    "setting": ["finetune", "--dataset", "builtin:digits", "--set", "{}"],
    "command": ["{}"],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_cannot_be_is_an_error_that_shows_it_safely(name, command, tmp_path, monkeypatch, capsys):
    if (name, command) == ("the file system", "dataset"):
        pytest.skip("every file of this machine would be looked at")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main([word.replace("{}", NAMES[name]) for word in COMMANDS[command]])
    out, err = capsys.readouterr()
    assert ended.value.code in (1, 2), err
    said = out + err
    assert "bug in vitft" not in said and "Traceback" not in said
    assert printable(said, lines=True) == said
    assert "TOKEN" not in said
    assert len(said) < 25_000
    assert os.listdir(tmp_path) in ([], ["runs"])  # noqa: PTH208


@pytest.mark.parametrize("key", ["data.dataset", "model.checkpoint", "run.name", "hub.repo"])
@pytest.mark.parametrize("name", ["a\0b", "n" * 100_000, "\x1b[2J", "a\nb"], ids=["null", "long", "escape", "lines"])
def test_a_recipe_cannot_bring_in_a_name_that_breaks_a_task(key, name, tmp_path, monkeypatch):
    from vitft import finetune

    monkeypatch.chdir(tmp_path)
    with pytest.raises(VitftError) as raised:
        finetune(Recipe.load("quickstart", {"hub.push": key == "hub.repo", key: name}), dry_run=key != "hub.repo")
    assert len(str(raised.value)) < 30_000
    assert printable(str(raised.value), lines=True) == str(raised.value)


# --- names inside a dataset --------------------------------------------------------------------------------


def digits(folder, names):
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(path, "PNG")


@pytest.mark.parametrize("name", ["a\0b", "n" * 100_000], ids=["null", "long"])
def test_a_recipe_cannot_bring_in_a_folder_that_cannot_be_made(name, tmp_path, monkeypatch):
    from vitft import finetune

    monkeypatch.chdir(tmp_path)
    with pytest.raises(VitftError):
        finetune(Recipe.load("quickstart", {"run.output_dir": name}))


@pytest.mark.parametrize("path", ["a\0b.png", "n" * 300 + ".png", "missing.png", "/dev/zero", "pipe.png", "loop.png"])
def test_a_csv_path_that_cannot_be_is_a_bad_image(path, tmp_path):
    digits(tmp_path, [f"{number}.png" for number in range(8)])
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    rows = [f"{number}.png,{'ab'[number % 2]}" for number in range(8)]
    (tmp_path / "train.csv").write_bytes("\n".join(["image,label", *rows, f"{path},a"]).encode())
    data = DataRecipe(dataset=str(tmp_path), validation_fraction=0.3)
    with pytest.raises(DataError, match=r"row 8 of train"):
        open_source(data, seed=0)
    source = open_source(data.model_copy(update={"bad_images": "skip"}), seed=0)
    from vitft.data.staging import BadImage, decode

    good = 0
    for split in (source.train, source.validation):
        for row in range(len(split)):
            try:
                good += bool(decode(split.encoded(row)))
            except BadImage as error:
                assert printable(error.wrong) == error.wrong
    assert good == 8


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".json", ".parquet", ".arrow", ".tar"])
def test_a_packed_data_file_is_refused_before_anything_is_unpacked(suffix, tmp_path):
    (tmp_path / f"train{suffix}").write_bytes(gzip.compress(b"image,label\n" + b"a.png,a\n" * 100_000))
    for dataset in (tmp_path, tmp_path / f"train{suffix}"):
        with pytest.raises(DataError, match=r"is compressed \(gzip\)"):
            open_source(DataRecipe(dataset=str(dataset)), seed=0)


def test_a_zip_called_csv_and_a_pipe_called_csv_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "train.csv", "w") as file:
        file.writestr("a", "a")
    with pytest.raises(DataError, match="zip"):
        open_source(DataRecipe(dataset=str(tmp_path / "train.csv")), seed=0)
    (tmp_path / "train.csv").unlink()
    os.mkfifo(tmp_path / "train.csv")
    with pytest.raises(DataError):
        open_source(DataRecipe(dataset=str(tmp_path)), seed=0)


def test_a_recipe_that_is_no_regular_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    for path in ("/dev/zero", tmp_path / "pipe.yaml"):
        with pytest.raises(RecipeError, match=re.escape(str(path))):
            Recipe.load(path)

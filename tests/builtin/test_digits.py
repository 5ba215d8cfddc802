from __future__ import annotations

import io
import re
import subprocess
import sys

import datasets
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits as load_sklearn_digits
from transformers import (
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

from vitft import Recipe, finetune
from vitft.builtin import recipe_path
from vitft.builtin.digits import load_digits


def test_digits_are_split_1437_to_360_and_stratified() -> None:
    digits = load_digits()
    counts = {name: np.bincount(rows["label"], minlength=10) for name, rows in digits.items()}
    assert (len(digits["train"]), len(digits["test"])) == (1437, 360)
    share = counts["test"] / (counts["test"] + counts["train"])
    assert np.abs(share - 360 / 1797).max() < 0.006  # one image of about 180


def test_digits_hold_every_image_of_the_source_once_with_its_label() -> None:
    source = load_sklearn_digits()
    expected = sorted((bytes(i), int(k)) for i, k in zip(source.images.astype(np.uint8), source.target, strict=True))
    found = [
        (bytes(np.rint(np.asarray(row["image"]) / 255 * 16).astype(np.uint8)), row["label"])
        for rows in load_digits().values()
        for row in rows
    ]
    assert sorted(found) == expected


def test_digits_are_lossless_grey_in_17_levels() -> None:
    rows = load_digits()["test"].cast_column("image", datasets.Image(decode=False))
    with Image.open(io.BytesIO(rows[0]["image"]["bytes"])) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "L", (8, 8))
        levels = set(np.asarray(image).ravel().tolist())
    assert {0} < levels <= {round(level * 255 / 16) for level in range(17)}


def test_digits_are_the_same_rows_each_time() -> None:
    assert load_digits()["test"]["label"] == load_digits()["test"]["label"]
    assert load_digits()["test"]["label"][:10] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_importing_digits_does_not_import_sklearn() -> None:
    code = "import sys, vitft.builtin.digits; print('sklearn' in sys.modules, 'datasets' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split() == ["False"] * 2


SHIPPED = sorted(path.stem for path in recipe_path("default").parent.glob("*.yaml"))


@pytest.fixture(scope="module")
def vit16(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a tiny random ViT with patches of 16 at 224 pixels."""
    folder = tmp_path_factory.mktemp("vit16")
    sides = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    ViTForImageClassification(ViTConfig(**sides)).save_pretrained(folder)
    ViTImageProcessor().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a tiny random ResNet."""
    folder = tmp_path_factory.mktemp("resnet")
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    ResNetForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor().save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_recipe_that_ships_opens_with_its_claim_and_command_and_can_be_planned(
    name: str, vit16: str, resnet: str
) -> None:
    text = recipe_path(name).read_text(encoding="utf-8")
    assert re.match(r"# \w", text)
    command = re.search(r"^#     (vitft finetune .*)$", text, re.MULTILINE)
    assert command and (f"--recipe {name}" in command[1] or name == "default")
    recipe = Recipe.load(name)
    assert recipe.model_dump() != Recipe().model_dump() or name == "default"
    changes = {"data.dataset": "builtin:digits", "data.workers": 0, "train.device": "cpu"}
    if not recipe.model.checkpoint.startswith("builtin:"):
        changes["model.checkpoint"] = resnet if "resnet" in recipe.model.checkpoint else vit16
    plan = finetune(Recipe.load(name, changes), dry_run=True).plan_text
    for size, _ in recipe.train.resolution_schedule or ():
        assert f"{size[0]}x{size[1]} from step" in plan

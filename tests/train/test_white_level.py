"""What is white in 16-bit grey images goes with the model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image

from vitft import evaluate, finetune, predict
from vitft.recipe.keys import DataRecipe


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return class folders of a microscope's images: 12 bits in 16."""
    root = tmp_path_factory.mktemp("slides") / "slides"
    generator = np.random.default_rng(0)
    for split, each in (("train", 8), ("val", 3)):
        for place, name in enumerate(("dark", "bright")):
            (root / split / name).mkdir(parents=True)
            for number in range(each):
                pixels = (1000 + 2000 * place + 1000 * generator.random((8, 8))).astype(np.uint16)
                pixels[0, 0] = 4095
                Image.fromarray(pixels).save(root / split / name / f"{number}.tif")
    return root


def run_on(home: Path, slides: Path, **changes: object) -> Path:
    recipe = tiny.recipe(home, data__dataset=str(slides), train__duration="20 steps", train__batch_size=8, **changes)
    folder = finetune(recipe).run_dir
    assert folder is not None
    return folder


@pytest.fixture(scope="module")
def run(home: Path, slides: Path) -> Path:
    return run_on(home, slides, data__white_level=4095, run__name="slides")


def saved_level(run: Path) -> object:
    return json.loads((run / "model" / "preprocessor_config.json").read_text()).get("white_level")


def test_the_white_level_is_written_beside_the_model(run: Path) -> None:
    assert saved_level(run) == 4095


def test_the_level_that_was_found_is_written(home: Path, slides: Path) -> None:
    assert saved_level(run_on(home, slides, data__white_level="auto", run__name="auto")) == 4095


def test_nothing_is_written_where_white_is_65535(uninterrupted: Path) -> None:
    assert saved_level(uninterrupted) is None


def test_evaluate_takes_the_models_white_level(run: Path, slides: Path) -> None:
    results = json.loads((run / "results.json").read_text())["validation"]
    scores = evaluate(run, str(slides), split="val", device="cpu").scores
    assert scores["nll"] == pytest.approx(results["nll"], abs=1e-5)


def test_evaluate_takes_another_white_level_on_request(run: Path, slides: Path) -> None:
    own = evaluate(run, str(slides), split="val", device="cpu").scores["nll"]
    data = DataRecipe(dataset=str(slides), white_level=1023)
    assert abs(evaluate(run, data, split="val", device="cpu").scores["nll"] - own) > 1e-4


def test_predict_takes_the_models_white_level(run: Path, slides: Path, tmp_path: Path) -> None:
    [deep] = sorted((slides / "val" / "bright").iterdir())[:1]
    pixels = np.asarray(Image.open(deep)).astype(np.int64)
    Image.fromarray(((pixels * 510 + 4095) // (2 * 4095)).astype(np.uint8)).save(tmp_path / "eight.png")
    first, second = predict(run, [str(deep), str(tmp_path / "eight.png")], device="cpu")
    assert first["predictions"] == second["predictions"]

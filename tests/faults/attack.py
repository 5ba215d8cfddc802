"""Runs to be attacked, and what must be the same of them after it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tiny

from vitft import finetune
from vitft.recipe.recipe import Recipe

NAME = "leaves"  # of every run, as it stands in figures and card; the runs lie in folders of their own


def recipe(home: Path, place: str, **changes: object) -> Recipe:
    """Return the recipe of a run in a folder ``place``, with pictures."""
    settings = {"run__output_dir": str(home / place), "run__name": NAME, "run__pictures": "on"}
    settings |= {"data__check_images": "off"}  # attacks count the images that are decoded, from the first step on
    return tiny.recipe(home, **(settings | changes))


def start(
    home: Path,
    place: str,
    prepare: Callable[[], object] = lambda: None,
    *,
    kill_after: float | None = None,
    **changes: Any,
) -> tiny.Outcome:
    """Start a run in a child after ``prepare`` has injected something into it."""
    asked = recipe(home, place, **changes)
    return tiny.in_child(lambda: (prepare(), finetune(asked)), kill_after=kill_after)


def resume(run: Path, prepare: Callable[[], object] = lambda: None, **changes: object) -> tiny.Outcome:
    """Resume a run in a child after ``prepare`` has injected something into it."""
    settings = {key.replace("__", "."): value for key, value in changes.items()}
    return tiny.in_child(lambda: (prepare(), finetune(resume=run, changes=settings)))


def files(run: Path) -> set[str]:
    return {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}


def card(run: Path) -> str:
    """Return the card without what a clock says."""
    return re.sub(r", and [^(,]+ on [^(]+ \([\d.]+ images per second\)", "", (run / "model" / "README.md").read_text())


def results(run: Path) -> dict[str, Any]:
    """Return the results without what a clock says."""
    found = json.loads((run / "results.json").read_text())
    timed = ("seconds", "images_per_second", "peak_memory_bytes", "peak_memory_share", "speeds", "seconds_by_part")
    return found | {"train": {key: value for key, value in found["train"].items() if key not in timed}}


def is_of_the_page(event: dict[str, Any]) -> bool:
    """Whether an event says that the page could not be written, which a run does not need to be complete."""
    return event["event"] == "note" and event["text"].startswith("no report was written")


def assert_same(run: Path, expected: Path) -> None:
    """Assert that two runs left the same: weights and pictures byte for byte, card, results, log, and nothing else."""
    assert files(run) == files(expected), files(run) ^ files(expected)
    for name in sorted(files(expected)):
        if name.endswith((".safetensors", ".png", ".jpg")):
            assert (run / name).read_bytes() == (expected / name).read_bytes(), name
    assert results(run) == results(expected)
    assert card(run).replace(str(run.parent), "") == card(expected).replace(str(expected.parent), "")
    assert [each for each in tiny.events(run) if not is_of_the_page(each)] == tiny.events(expected)


def assert_resumes_to(run: Path, expected: Path) -> None:
    """Resume a run that was ended somehow, and assert that it becomes the whole one. One that is finished says so."""
    outcome = resume(run)
    if outcome.code == 2:
        assert "is finished: its model, results.json and model card are written" in outcome.text, outcome.text
    else:
        assert outcome.code == 0, outcome.text
    assert_same(run, expected)
    shutil.rmtree(run.parent)


METRIC = """
import os
import signal
import datasets
import evaluate

class Mine(evaluate.Metric):
    def _info(self):
        value = datasets.Value("int64")
        return evaluate.MetricInfo(description="", citation="", inputs_description="",
            features=datasets.Features({"predictions": value, "references": value}))

    def _compute(self, predictions, references):
        if len(predictions) > 3:
            {act}
        return {"mine": 1.0}
"""


def metric(folder: Path, act: str) -> str:
    """Write a metric that does something, but not when it is tried on three rows; return its folder."""
    (folder / "mine").mkdir(parents=True)
    (folder / "mine" / "mine.py").write_text(METRIC.replace("{act}", act))
    return str(folder / "mine")

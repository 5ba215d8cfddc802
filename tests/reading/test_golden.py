from __future__ import annotations

import json
from pathlib import Path

import pytest
from golden import FILE, LAYOUTS, remembered

from vitft.reading.source import open_source
from vitft.recipe.keys import DataRecipe

READINGS = json.loads(FILE.read_text())


def test_every_layout_is_remembered() -> None:
    assert READINGS.keys() == LAYOUTS.keys()


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_reads_as_it_always_has(tmp_path: Path, name: str) -> None:
    dataset = LAYOUTS[name](tmp_path / "d")
    assert remembered(open_source(DataRecipe(dataset=str(dataset)), seed=0)) == READINGS[name]

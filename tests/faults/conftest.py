from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))  # the tiny runs and the children that do them

import tiny


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a tiny checkpoint, tiny photos and a place for runs."""
    return tiny.make_home(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def whole(home: Path) -> Path:
    """Return the run that nothing disturbed, with everything on; made in this process, it warms the children."""
    from attack import recipe

    from vitft import finetune

    run = finetune(recipe(home, "whole")).run_dir
    assert run is not None and (run / "figures").is_dir() and (run / "model" / "README.md").is_file()
    return run

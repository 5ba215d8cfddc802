from __future__ import annotations

from pathlib import Path

import pytest
import tiny


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a tiny checkpoint, tiny photos and a place for runs."""
    return tiny.make_home(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def uninterrupted(home: Path) -> Path:
    """Return the run that nothing disturbed. Made in this process, it also warms the children forked later."""
    from vitft import finetune

    run = finetune(tiny.recipe(home, run__name="uninterrupted")).run_dir
    assert run is not None
    return run

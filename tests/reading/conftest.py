from __future__ import annotations

from pathlib import Path

import datasets
import pytest
from hypothesis import settings

# The same examples every time: a test fails for a change of the code, not for a day's luck.
settings.register_profile("reading", derandomize=True, database=None, deadline=None)
settings.load_profile("reading")


@pytest.fixture(autouse=True)
def _no_hub_and_a_cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a local source went to the network")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", forbidden)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0.1)  # for Arrow's threads; else 5 seconds

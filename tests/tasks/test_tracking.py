"""Trackers learn the project and the run's name, each in its own way."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from accelerate import Accelerator, tracking

from vitft.tasks.tracking import _named


class Recorder:
    """Stands in for a tracker's package, and remembers how it was started."""

    def __init__(self) -> None:
        self.started: dict[str, object] = {}
        self.config: dict[str, str] = {}

    def __getattr__(self, name: str) -> object:
        def call(**given: object) -> SimpleNamespace:
            self.started |= given
            return SimpleNamespace()

        return call


@pytest.fixture(autouse=True, scope="module")
def _state():
    Accelerator(cpu=True)  # trackers log through its state


@pytest.mark.parametrize(
    ("module", "tracker", "key"),
    [
        ("wandb", tracking.WandBTracker, "name"),
        ("trackio", tracking.TrackioTracker, "name"),
        ("swanlab", tracking.SwanLabTracker, "experiment_name"),
    ],
)
def test_a_run_is_one_of_its_project(module, tracker, key, monkeypatch):
    package = Recorder()
    monkeypatch.setitem(sys.modules, module, package)
    tracker("vitft", **_named("flowers", "vitft")[module]).start()
    assert (package.started["project"], package.started[key]) == ("vitft", "flowers")


def test_mlflow_has_an_experiment_of_the_projects_name(monkeypatch):
    package = Recorder()
    package.search_experiments = lambda **_: [SimpleNamespace(experiment_id="7")]
    monkeypatch.setitem(sys.modules, "mlflow", package)
    tracking.MLflowTracker("vitft", **_named("flowers", "vitft")["mlflow"]).start()
    assert (package.started["experiment_id"], package.started["run_name"]) == ("7", "flowers")

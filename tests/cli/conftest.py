import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import vitft
from vitft.processes import launch


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "ACCELERATE_DYNAMO_MODE", "VITFT_LAUNCH_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(launch, "choose", lambda *_: None)  # counting devices would load torch


@pytest.fixture(autouse=True)
def handlers():
    """Put back the signal handlers that the end of a training, as of its process, leaves muted."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def tasks(monkeypatch):
    """Stand-ins for ``vitft.tasks`` that remember how they were called."""
    calls = []

    def finetune(recipe, **options):
        calls.append((recipe, options))
        return SimpleNamespace(
            run_dir=None if options["dry_run"] else Path("runs/x"),
            results={"test": {"top1": 0.5}},
            plan_text="steps: 3\n\nlr: 1",
            published=None,
        )

    fake = SimpleNamespace(finetune=finetune, calls=calls)
    monkeypatch.setitem(sys.modules, "vitft.tasks", fake)
    monkeypatch.setattr(vitft, "tasks", fake, raising=False)
    return fake

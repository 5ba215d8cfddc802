"""A push over a line that fails: once, and it still arrives as one commit; for good, and nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from hub_client import Client
from hub_server import Fault, Hub

STAGES = ("whoami", "info", "create", "validate", "preupload", "lfs-batch", "lfs-put", "lfs-verify", "commit")
FAULTS = (429, 500, 503, "cut", "lose", "drop", "slow")


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("stage", STAGES)
def test_a_fault_that_happens_once_costs_nothing(
    stage: str, kind: int | str, hub: Hub, client: Client, run: Path
) -> None:
    hub.faults = [Fault(stage, kind, times=1, seconds=0.2, retry_after="0")]
    outcome = client.run("push", run)
    assert outcome.code == 0, outcome.err
    assert hub.faults[0].times == 0, "the fault was never met"
    assert len(hub.titles()) == 1


PERMANENT = [(stage, kind) for stage in STAGES for kind in (503, "lose")] + [("commit", 403), ("lfs-put", "drop")]
# The Hub did the work and only its answers are lost: the next try finds it done.
ENOUGH = [("commit", "lose"), ("lfs-put", "lose"), ("lfs-verify", "lose"), ("lfs-verify", 503)]


@pytest.mark.parametrize(("stage", "kind"), PERMANENT)
def test_a_fault_that_stays_loses_nothing(stage: str, kind: int | str, hub: Hub, client: Client, run: Path) -> None:
    hub.faults = [Fault(stage, kind)]
    outcome = client.run("push", run)
    if (stage, kind) in ENOUGH:
        assert outcome.code == 0 and len(hub.titles()) == 1
        return
    assert outcome.code == 3, outcome.err
    assert "trained and saved" in outcome.err and f"vitft push {run}" in outcome.err
    assert not hub.titles()
    hub.faults = []
    assert client.run("push", run).code == 0
    assert len(hub.titles()) == 1

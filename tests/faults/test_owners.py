"""One run, one owner, whoever else tries."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import attack
import pytest
from tiny import at_call, send

from vitft import push
from vitft.errors import TrainError
from vitft.ownership import Ownership
from vitft.train import fit, step


def test_a_run_that_is_alive_is_not_resumed_and_comes_to_no_harm(home: Path, whole: Path) -> None:
    run, told = home / "alive" / attack.NAME, home / "told.json"

    def intrude() -> None:
        outcome = attack.resume(run)
        told.write_text(json.dumps([outcome.code, outcome.text]))

    assert attack.start(home, "alive", lambda: at_call(fit, "take_step", 5, intrude)).code == 0
    code, text = json.loads(told.read_text())
    assert code == 1 and "is in use by process" in text, text
    attack.assert_same(run, whole)


def test_a_run_is_not_resumed_twice_at_once(home: Path, whole: Path) -> None:
    run, told = home / "twice" / attack.NAME, home / "told-twice.json"
    assert attack.start(home, "twice", lambda: at_call(step, "_loss", 10, send(signal.SIGKILL))).code < 0

    def intrude() -> None:
        told.write_text(json.dumps(attack.resume(run).code))

    assert attack.resume(run, lambda: at_call(fit, "take_step", 2, intrude)).code == 0
    assert json.loads(told.read_text()) == 1
    attack.assert_same(run, whole)


def test_a_run_that_is_worked_on_is_not_pushed(whole: Path, tmp_path: Path) -> None:
    run = tmp_path / attack.NAME
    shutil.copytree(whole, run)
    owner = Ownership.take(run)
    with pytest.raises(TrainError, match="is in use by this process"):
        push(run)
    owner.release()

"""Killed anywhere between its start and its end, a run becomes the run that nothing disturbed."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import attack
import pytest
import tiny
from tiny import at_call, send

from vitft import disk
from vitft.model.classifier import Classifier
from vitft.report import page
from vitft.run import Run
from vitft.tasks import finishing, picturing

KILLS = 100 if os.environ.get("VITFT_SLOW") == "1" else 3
KILL = send(signal.SIGKILL)


@pytest.fixture(scope="module")
def length(home: Path, whole: Path) -> float:
    """Return the seconds that a run takes in a child."""
    outcome = attack.start(home, "timed")
    assert outcome.code == 0, outcome.text
    attack.assert_same(home / "timed" / attack.NAME, whole)
    return outcome.seconds


@pytest.mark.parametrize("number", range(KILLS))
def test_killed_at_a_random_moment(home: Path, whole: Path, length: float, number: int) -> None:
    # One moment in each part of the run's time, the end of the process in the last.
    moment = (number + random.Random(number).random()) / KILLS * 1.02 * length
    place = f"random-{number}"
    attack.start(home, place, kill_after=moment)
    run = home / place / attack.NAME
    if (run / "recipe.yaml").is_file():
        attack.assert_resumes_to(run, whole)
    else:  # killed before there was anything to resume
        assert not run.exists() or attack.files(run) <= {".recipe.yaml.partial"}


def is_named(name: str) -> Callable[..., bool]:
    return lambda *arguments, **_: any(str(each).endswith(name) for each in arguments)


def is_half_removed(path: str | Path, **_: object) -> bool:
    return str(path).endswith(".removed") and Path(path).exists()


def is_report(path: Path) -> bool:
    return path.name == ".report.html.partial"


def is_card(descriptor: int) -> bool:
    return "README.md" in Path(f"/proc/self/fd/{descriptor}").readlink().name


AFTER_THE_TRAINING: dict[str, Callable[[], None]] = {
    "before the results": lambda: at_call(Run, "write_text", 1, KILL, only=is_named("results.json")),
    "after the results": lambda: at_call(Run, "write_text", 1, KILL, only=is_named("results.json"), after=True),
    "while figures are drawn": lambda: at_call(picturing, "_look", 2, KILL),
    "while figures are flushed": lambda: at_call(disk, "flush_folder", 1, KILL, only=is_named(".figures.partial")),
    "before the figures are noted": lambda: at_call(picturing, "note_pictures", 1, KILL),
    "while thumbnails are flushed": lambda: at_call(
        disk, "flush_folder", 1, KILL, only=is_named(".thumbnails.partial")
    ),
    "while the report is flushed": lambda: at_call(disk, "flush", 1, KILL, only=is_report),
    "after the report": lambda: at_call(page, "write_page", 1, KILL, after=True),
    "before the card": lambda: at_call(finishing, "write_card", 1, KILL),
    "in the card": lambda: at_call(os, "fsync", 1, KILL, only=is_card),
    "after the card": lambda: at_call(Run, "write_text", 1, KILL, only=is_named("README.md"), after=True),
}
SELDOM = ("while figures are flushed", "after the report", "before the card", "before the results")


@pytest.fixture(scope="module")
def trained(home: Path, whole: Path) -> Path:
    """Return a run that was killed after its last step, to go on from."""
    last = lambda: at_call(Classifier, "save", 1, KILL)  # noqa: E731
    assert attack.start(home, "trained", last).code == -signal.SIGKILL
    return home / "trained"


@pytest.mark.parametrize(
    "phase",
    [pytest.param(name, marks=pytest.mark.slow if name in SELDOM else ()) for name in AFTER_THE_TRAINING],
)
def test_killed_after_its_last_step_it_makes_what_is_missing_without_training(
    home: Path, trained: Path, whole: Path, phase: str
) -> None:
    place = home / f"late-{phase.replace(' ', '-')}"
    shutil.copytree(trained, place)
    run = place / attack.NAME
    assert attack.resume(run, AFTER_THE_TRAINING[phase]).code == -signal.SIGKILL
    attack.assert_resumes_to(run, whole)


def test_a_run_without_its_card_and_figures_makes_them_from_what_is_there(whole: Path, tmp_path: Path) -> None:
    run = tmp_path / attack.NAME
    shutil.copytree(whole, run)
    shutil.rmtree(run / "figures")
    shutil.rmtree(run / "checkpoints")  # no training is needed
    (run / "model" / "README.md").unlink()
    outcome = attack.resume(run)
    assert outcome.code == 0, outcome.text
    assert "is trained and scored; making what is missing: pictures, the model card" in outcome.text
    shutil.copytree(whole / "checkpoints", run / "checkpoints")
    attack.assert_same(run, whole)


BROKEN = {
    "empty results": ("results.json", lambda _: b"", "results.json is empty"),
    "half results": ("results.json", lambda whole: whole[:100], "results.json is broken"),
    "empty environment": ("environment.json", lambda _: b"", "environment.json is empty"),
    "half a last line": ("metrics.jsonl", lambda whole: whole + b'{"event": "st', ""),
    "a hole in the log": (
        "metrics.jsonl",
        lambda whole: whole.replace(b"\n", b"\n" + b"\0" * 64 + b"\n", 1),
        "broken lines removed from metrics.jsonl: 1",
    ),
}


def test_a_finished_run_keeps_no_checkpoint_and_no_half_of_one(home: Path, trained: Path, whole: Path) -> None:
    place = home / "removed"
    shutil.copytree(trained, place)
    run = place / attack.NAME
    killed = attack.resume(
        run, lambda: at_call(shutil, "rmtree", 1, KILL, only=is_half_removed), train__keep_after_end=0
    )
    assert killed.code == -signal.SIGKILL and not (run / "model" / "README.md").exists()
    outcome = attack.resume(run, train__keep_after_end=0)
    assert outcome.code == 0, outcome.text
    assert "checkpoints removed because the run is finished" in outcome.text
    assert attack.files(run) == {name for name in attack.files(whole) if not name.startswith("checkpoints")}
    assert attack.results(run) == attack.results(whole)


def test_a_finished_run_whose_scores_are_lost_is_not_trained_again(whole: Path, tmp_path: Path) -> None:
    run = tmp_path / attack.NAME
    shutil.copytree(whole, run)
    shutil.rmtree(run / "checkpoints")
    (run / "results.json").write_text("")
    before = attack.files(run)
    outcome = attack.resume(run)
    assert outcome.code == 1
    assert "results.json cannot be read, and the checkpoints were removed" in outcome.text
    assert f"vitft evaluate {run / 'model'}" in outcome.text
    assert attack.files(run) == before


@pytest.mark.parametrize("case", BROKEN)
def test_a_file_that_a_power_cut_broke_is_said_and_mended(whole: Path, tmp_path: Path, case: str) -> None:
    name, damage, said = BROKEN[case]
    run = tmp_path / attack.NAME
    shutil.copytree(whole, run)
    (run / name).write_bytes(damage((run / name).read_bytes()))
    (run / "model" / "README.md").unlink()  # as it would be: the card is written last
    outcome = attack.resume(run)
    assert outcome.code == 0, outcome.text
    assert said in outcome.text
    attack.assert_same(run, whole)


def test_a_log_that_is_lost_holds_the_results_again(whole: Path, tmp_path: Path) -> None:
    run = tmp_path / attack.NAME
    shutil.copytree(whole, run)
    (run / "metrics.jsonl").unlink()
    (run / "model" / "README.md").unlink()
    assert attack.resume(run).code == 0
    assert [each["event"] for each in tiny.events(run)] == ["results", "note"]

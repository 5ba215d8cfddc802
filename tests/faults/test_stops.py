"""A request to stop ends a run with its checkpoint and code 75, whatever runs when it comes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import attack
import pytest
import tiny
from attack import metric
from tiny import at_call, send

from vitft.data import staging
from vitft.model import load
from vitft.model.classifier import Classifier
from vitft.reading import source
from vitft.run import Run
from vitft.tasks import finishing, picturing, training
from vitft.train import checkpoint, validation

STOP = send(signal.SIGTERM)


NOTHING = "stopped before the first step (SIGTERM): there is nothing to resume"

AFTER = "stopped after the last step (SIGTERM); the checkpoint is complete"

SCORED = "stopped after training (SIGTERM); the model and its scores are saved"

PHASES: dict[str, tuple[Callable[[], None], str]] = {
    "while the dataset is opened": (lambda: at_call(source, "find_columns", 1, STOP), NOTHING),
    "while the model is loaded": (lambda: at_call(load, "open_checkpoint", 1, STOP), NOTHING),
    "while the run is made": (lambda: at_call(training, "prepare", 1, STOP), NOTHING),
    "before the first step": (lambda: at_call(Run, "write_json", 1, STOP), "stopped before the first checkpoint"),
    "in a decoder": (lambda: at_call(staging, "_to_rgb", 36, STOP), "stopped at step 2 of 11 (SIGTERM)"),
    "while a checkpoint is written": (lambda: at_call(checkpoint, "save_file", 3, STOP), "stopped at step 4 of 11"),
    "in the last checkpoint": (
        lambda: at_call(checkpoint, "save_file", 15, STOP),
        "stopped at step 11 (SIGTERM); the checkpoint is complete",
    ),
    "while the model is saved": (lambda: at_call(Classifier, "save", 1, STOP), AFTER),
    "in a decoder of the final scoring": (lambda: at_call(validation, "until_failure", 1, in_a_decoder), AFTER),
    "while figures are drawn": (lambda: at_call(picturing, "_look", 2, STOP), SCORED),
    "in the card": (lambda: at_call(finishing, "write_card", 1, STOP), SCORED),
}

SELDOM = ("while the run is made", "while a checkpoint is written", "while the model is saved", "in the card")

SELDOM += ("in a decoder of the final scoring", "in the last checkpoint")


def in_a_decoder() -> None:
    at_call(staging, "_to_rgb", 2, STOP)


@pytest.mark.parametrize("phase", [pytest.param(p, marks=pytest.mark.slow if p in SELDOM else ()) for p in PHASES])
def test_stopped_in_a_phase_a_run_says_how_to_go_on_and_ends_as_the_whole_one(
    home: Path, whole: Path, phase: str
) -> None:
    prepare, said = PHASES[phase]
    place = f"stop-{phase.replace(' ', '-')}"
    run = home / place / attack.NAME
    outcome = attack.start(home, place, prepare)
    assert outcome.code == 75, outcome.text
    assert said in outcome.text
    assert "this is a bug" not in outcome.text and "Traceback" not in outcome.text
    if said == NOTHING:
        assert "try: the same command again" in outcome.text
        assert not run.exists()
    else:
        assert f"try: vitft finetune --resume {run}" in outcome.text
        assert not [name for name in attack.files(run) if Path(name).name.startswith(".")]
        attack.assert_resumes_to(run, whole)


@pytest.mark.parametrize(
    "act",
    [
        "os.kill(os.getpid(), signal.SIGTERM)",
        "\n            try: os.kill(os.getpid(), signal.SIGTERM); len([])\n            except: pass",
    ],
    ids=["a plain metric", "a metric that catches everything"],
)
def test_stopped_in_a_metric_a_run_stops_and_is_scored_when_it_is_resumed(
    home: Path, whole: Path, tmp_path: Path, act: str
) -> None:
    place = f"metric-{len(act)}"
    named = metric(tmp_path, act)
    run = home / place / attack.NAME
    outcome = attack.start(home, place, run__metrics=[named], run__pictures="off")
    assert outcome.code == 75, outcome.text
    assert AFTER in outcome.text and f"--resume {run} --trust-metrics" in outcome.text
    assert not (run / "results.json").exists()
    outcome = attack.resume(run, run__metrics=[])
    assert outcome.code == 0, outcome.text
    assert attack.results(run) == attack.results(whole)


COSTS = {
    "raises": "raise KeyError('x')",
    "leaves": "raise SystemExit(3)",
    "object": "return {'mine': object()}",
}


@pytest.mark.parametrize("how", [pytest.param(how, marks=pytest.mark.slow if how != "leaves" else ()) for how in COSTS])
def test_a_metric_that_breaks_after_training_costs_itself_and_nothing_else(
    home: Path, whole: Path, tmp_path: Path, how: str
) -> None:
    run = home / f"broken-{how}" / attack.NAME
    outcome = attack.start(home, f"broken-{how}", run__metrics=[metric(tmp_path, COSTS[how])])
    assert outcome.code == 0, outcome.text
    assert "everything else of the run is complete" in outcome.text
    found = attack.results(run)
    assert list(found.pop("refused_metrics")) == [str(tmp_path / "mine")]
    assert found == attack.results(whole)
    assert attack.files(run) == attack.files(whole)


def test_an_interrupt_in_the_final_scoring_says_how_to_go_on(home: Path, whole: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    def work() -> None:
        from vitft import cli

        at_call(validation, "until_failure", 1, interrupt)
        path = home / "interrupted.yaml"
        path.write_text(attack.recipe(home, "interrupted").dump())
        cli.main(["finetune", "--recipe", str(path)])

    outcome = tiny.in_child(work)
    run = home / "interrupted" / attack.NAME
    assert outcome.code == 130, outcome.text
    safe = f"the checkpoint of step {int(tiny.last_checkpoint(run).name.removeprefix('step-'))} is complete"
    assert outcome.text.endswith(f"interrupted\nresume with: vitft finetune --resume {run}; {safe}\n")
    attack.assert_resumes_to(run, whole)


def wait_until(is_so: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not is_so():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)


def has_loaded(process: subprocess.Popen[str], name: str) -> bool:
    return name in Path(f"/proc/{process.pid}/maps").read_text()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="what a process has loaded is read from /proc")
@pytest.mark.parametrize("library", ["libtorch", pytest.param("libarrow", marks=pytest.mark.slow)])
def test_stopped_while_python_imports_the_command_ends_with_75(home: Path, library: str) -> None:
    command = [sys.executable, "-m", "vitft", "finetune", "--dataset", str(home / "photos")]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen(command, cwd=home, env=environment, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: has_loaded(process, library), process)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 75, said
    assert said == f"{NOTHING}\n  try: the same command again\n"


def test_stopped_while_the_command_line_is_imported_a_run_ends_with_75() -> None:
    code = """
import os, signal, sys
class Stop:
    def find_spec(self, name, path=None, target=None):
        if name == "vitft.cli.finetune":
            os.kill(os.getpid(), signal.SIGTERM)
sys.meta_path.insert(0, Stop())
sys.argv = ["vitft", "finetune", "--recipe", "quickstart"]
from vitft.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 75, done.stderr
    assert done.stderr.startswith("stopped before the first step (SIGTERM): there is nothing to resume\n")


def test_an_import_of_others_that_fails_of_the_request_is_no_bug_of_ours() -> None:
    code = """
import os, signal, sys
class Stop:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            except BaseException:
                raise RecursionError
sys.meta_path.insert(0, Stop())
sys.argv = ["vitft", "finetune", "--recipe", "quickstart"]
from vitft.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.splitlines()[0]) == (75, "stopped (SIGTERM)"), done.stderr

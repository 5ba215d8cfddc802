"""Processes that are killed under a run, and a machine that runs out of something: explained, with the way back."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import attack
import psutil
import pytest
import tiny
import torch
from tiny import at_call

from vitft.data import staging
from vitft.errors import VitftError
from vitft.processes.worker import PeerLost
from vitft.tasks.ending import Session, explain
from vitft.train import fit, validation

ROOT = Path(__file__).parents[2]


# --- processes that read images ----------------------------------------------------------------------------


def test_a_killed_loader_worker_is_explained_and_the_run_goes_on_without_it(home: Path, whole: Path) -> None:
    def kill_reader() -> None:
        [reader] = multiprocessing.active_children()
        os.kill(reader.pid, signal.SIGKILL)

    run = home / "reader" / attack.NAME
    settings = {"data__workers": 1, "train__evaluate_every": "100%", "run__pictures": "off"}
    outcome = attack.start(home, "reader", lambda: at_call(fit, "take_step", 5, kill_reader), **settings)
    assert outcome.code == 1, outcome.text
    assert re.search(r"a process that reads images \(\d+\) is gone: it was killed, or crashed", outcome.text)
    assert "the checkpoint of step 3 is complete" in outcome.text
    assert f"try: vitft finetune --resume {run} --set data.workers=0" in outcome.text
    outcome = attack.resume(run, data__workers=0)
    assert outcome.code == 0, outcome.text
    assert tiny.losses(run) == tiny.losses(whole)


# --- training processes ------------------------------------------------------------------------------------


class Training:
    """A training in two processes, started from the command line."""

    def __init__(self, home: Path, name: str, launcher: list[str]) -> None:
        steps = {f"train__{key}": "100000 steps" for key in ("duration", "evaluate_every")}
        asked = attack.recipe(home, name, train__checkpoint_every="5 steps", **steps)
        (home / f"{name}.yaml").write_text(asked.dump())
        self.run = home / name / attack.NAME
        command = [sys.executable, "-m", *launcher, "finetune", "--recipe", f"{name}.yaml"]
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("ACCELERATE_", "VITFT_"))}
        self.process = subprocess.Popen(
            command + (["--num-processes", "2"] if launcher == ["vitft"] else []),
            cwd=home,
            env=clean | {"PYTHONPATH": str(ROOT), "HF_HOME": str(home / "hf")},
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def wait_for_a_checkpoint(self) -> None:
        deadline = time.monotonic() + 120
        while not list(self.run.glob("checkpoints/step-*/manifest.json")):
            assert self.process.poll() is None and time.monotonic() < deadline, self.process.communicate()
            time.sleep(0.02)

    def kill(self, rank: int) -> None:
        """Kill one of the two training processes."""
        for process in psutil.Process(self.process.pid).children(recursive=True):
            if process.environ().get("RANK") == str(rank) and "finetune" in process.cmdline():
                process.kill()
                return
        pytest.fail(f"there is no process {rank}")

    def end(self) -> str:
        """Return what it said once it has ended, and end what is left of it."""
        try:
            return self.process.communicate(timeout=90)[1]
        finally:
            left = [psutil.Process(self.process.pid)] if self.process.poll() is None else []
            for process in [each for one in left for each in (*one.children(recursive=True), one)]:
                process.kill()


@pytest.mark.parametrize("rank", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_killed_training_process_is_named_with_what_is_safe_and_how_to_go_on(
    home: Path, whole: Path, rank: int
) -> None:
    training = Training(home, f"rank-{rank}", ["vitft"])
    training.wait_for_a_checkpoint()
    training.kill(rank)
    said = training.end()
    assert training.process.returncode == 1, said
    error = said[said.rindex("error: ") :]
    assert re.match(rf"error: training process {rank} \(process id \d+\) ended unexpectedly", error), said
    assert re.search(r"the checkpoint of step \d+ is complete", error)
    assert f"try: vitft finetune --resume rank-{rank}/{attack.NAME}" in error.replace(f"{home}/", "")
    assert said.count("error: ") == 1 and "bug in vitft" not in said and "Traceback" not in said, said


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_under_a_foreign_launcher_the_other_process_explains_what_it_can(home: Path, whole: Path, rank: int) -> None:
    launcher = ["torch.distributed.run", "--nproc-per-node", "2", "--monitor-interval", "10", "-m", "vitft"]
    training = Training(home, f"foreign-{rank}", launcher)
    training.wait_for_a_checkpoint()
    training.kill(rank)
    said = training.end()
    assert training.process.returncode == 1, said
    assert "another training process is gone: it failed, crashed or was killed" in said
    assert f"vitft finetune --resume {training.run}" in said
    assert "bug in vitft" not in said


# --- a machine that runs out of something -------------------------------------------------------------------


@pytest.mark.parametrize("limit", [40, pytest.param(24, marks=pytest.mark.slow)])
def test_too_few_open_files_are_explained(home: Path, whole: Path, limit: int) -> None:
    asked = attack.recipe(home, f"files-{limit}", data__workers=1)
    (home / "files.yaml").write_text(asked.dump())
    command = f"ulimit -n {limit}; exec {sys.executable} -m vitft finetune --recipe files.yaml"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["/bin/sh", "-c", command], cwd=home, env=environment, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert f"too few open files: the limit here is {limit} (ulimit -n)" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and "bug in vitft" not in done.stderr


def test_want_of_memory_while_a_run_is_scored_keeps_it_resumable(home: Path, whole: Path) -> None:
    def no_memory() -> None:
        raise MemoryError

    run = home / "memory" / attack.NAME
    outcome = attack.start(home, "memory", lambda: at_call(validation, "until_failure", 2, lambda: starve(no_memory)))
    assert outcome.code == 1, outcome.text
    assert "out of memory" in outcome.text and "the checkpoint of step 11 is complete" in outcome.text
    assert f"try: vitft finetune --resume {run}" in outcome.text
    attack.assert_resumes_to(run, whole)


def starve(no_memory: object) -> None:
    at_call(staging, "_to_rgb", 2, no_memory)


SAYS = {
    RuntimeError(
        "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that"
    ): "shared memory is full",
    RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"): r"reads images \(7, 8\) is gone",
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"): "out of memory: CUDA out of memory",
    MemoryError(): "out of memory: none is left",
    OSError(28, "No space left on device", "/tmp/x"): "the disk is full: .* No space left",
    OSError(24, "Too many open files"): "too many open files",
}


@pytest.mark.parametrize("error", SAYS, ids=lambda error: str(error)[:30])
def test_what_a_machine_does_has_its_words(error: Exception) -> None:
    found = explain(error, Session())
    assert isinstance(found, VitftError) and re.search(SAYS[error], found.wrong) and found.hint


@pytest.mark.parametrize(
    "text",
    [
        "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:538] Connection closed by peer [127.0.0.1]:26317",
        "NCCL communicator was aborted on rank 1",
        "[1]: recvValue failed on SocketImpl, TCPStore",
    ],
)
def test_a_connection_that_broke_is_a_lost_process_only_where_there_are_several(text: str) -> None:
    assert isinstance(explain(RuntimeError(text), Session(num_processes=2)), PeerLost)
    assert explain(RuntimeError(text), Session()) is None


def test_a_bug_is_not_explained_away() -> None:
    assert explain(ZeroDivisionError("division by zero"), Session(num_processes=2)) is None

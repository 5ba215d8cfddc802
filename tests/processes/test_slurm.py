"""The job script for Slurm, with stand-ins for Slurm's commands; ``tests/train/test_resume.py`` has a whole job."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from slurm_job import ROOT, SCRIPT, Job

# Notes its arguments, and after a signal ends with the code of the test.
VITFT = """#!/bin/bash
trap 'exit "$CODE"' USR1
echo "$@" >> "called-$SLURM_NODEID"
for ((i = 0; i < 400; i++)); do sleep 0.05; done
"""

pytestmark = pytest.mark.skipif(
    shutil.which("bash") is None or sys.platform == "win32", reason="a job script needs bash"
)


@pytest.mark.parametrize("code", [75, 1])
def test_a_stopped_run_is_queued_again_and_a_failed_one_is_not(tmp_path: Path, code: int) -> None:
    job = Job(tmp_path, VITFT)
    assert job.run(SCRIPT.read_text(), "[ -e called-0 ]", CODE=str(code)) == code
    assert job.said("queued") == ["requeue 7"] * (code == 75)
    assert job.said("called-0") == ["finetune food101 --recipe default --output-dir runs --name food --num-processes 1"]


def test_every_machine_starts_its_part_and_gets_the_signal(tmp_path: Path) -> None:
    job = Job(tmp_path, VITFT)
    machines = {"SLURM_JOB_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "4", "SLURM_JOB_NODELIST": "n[1-2]"}
    (tmp_path / "runs" / "food").mkdir(parents=True)
    assert job.run(SCRIPT.read_text(), "[ -e called-0 ] && [ -e called-1 ]", CODE="75", **machines) == 75
    for node in (0, 1):
        assert job.said(f"called-{node}") == [
            "finetune --resume runs/food --num-processes 8 -- --num_machines 2 --main_process_ip first "
            f"--main_process_port 20007 --machine_rank {node}"
        ]


def test_a_finished_run_is_left_alone(tmp_path: Path) -> None:
    job = Job(tmp_path, VITFT)
    (tmp_path / "runs" / "food").mkdir(parents=True)
    (tmp_path / "runs" / "food" / "model").mkdir(exist_ok=True)
    (tmp_path / "runs" / "food" / "model" / "README.md").touch()
    assert job.run(SCRIPT.read_text()) == 0
    assert not job.said("srun") and not job.said("queued")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_preempted_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """A real run, stopped by SIGTERM and resumed by the same script."""
    job = Job(tmp_path, f'#!/bin/bash\nexec {sys.executable} -m vitft "$@"\n')
    settings = {"train.duration": "100000 steps", "train.checkpoint_every": "100000 steps", "run.pictures": "off"}
    settings |= {"data.workers": "0", "train.evaluate_every": "100000 steps"}
    said = " ".join(f"--set '{key}={value}'" for key, value in settings.items())
    new = f"builtin:digits --model builtin:vit-micro --batch-size 2 --device cpu {said}"
    script = SCRIPT.read_text().replace("food101 --recipe default", new)
    variables = {"PYTHONPATH": str(ROOT), "HF_HOME": str(tmp_path / "hf"), "VITFT_RUN": "runs/digits"}
    metrics = tmp_path / "runs" / "digits" / "metrics.jsonl"
    taken = 0
    for _ in range(2):
        later = f'[ "$(grep -c grad_norm {metrics} 2> /dev/null)" -gt {taken} ]'
        assert job.run(script, later, "TERM", **variables) == 75
        steps = [event["step"] for event in map(json.loads, job.said(str(metrics))) if event["event"] == "step"]
        assert steps == [*range(1, len(steps) + 1)] and len(steps) > taken
        taken = len(steps)
    assert job.said("queued") == ["requeue 7"] * 2
    assert ["--resume runs/digits" in line for line in job.said("srun")] == [False, True]


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_has_nothing_to_say() -> None:
    done = subprocess.run(["shellcheck", str(SCRIPT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout

"""A run that was killed, stopped or failed goes on as if nothing had happened.

What comes after the last step, and kills at random moments, stand in ``tests/faults``.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from slurm_job import SCRIPT, Job
from tiny import assert_killed, at_call, in_child, resume, send
from transformers import AutoModelForImageClassification, PreTrainedModel

from vitft import cli, disk, finetune
from vitft.errors import TrainError, UsageError
from vitft.run import Run
from vitft.scoring.scores import Tally
from vitft.train import averages, checkpoint, fit, step, stopping, validation

KILL = send(signal.SIGKILL)

_numbers = itertools.count()


@pytest.fixture
def name() -> str:
    return f"run-{next(_numbers)}"


def start(home: Path, name: str, prepare: Callable[[], object] = lambda: None, **changes: object) -> tiny.Outcome:
    """Start a run in a child after ``prepare`` has injected something into it."""

    def work() -> None:
        prepare()
        finetune(tiny.recipe(home, run__name=name, **changes))

    return in_child(work)


def assert_resumes_to(run: Path, expected: Path) -> None:
    outcome = resume(run)
    assert outcome.code == 0, outcome.text
    tiny.assert_same_run(run, expected)
    ours, theirs = (json.loads((each / "results.json").read_text()) for each in (run, expected))
    for split in ("validation", "test"):
        assert ours[split] == theirs[split]


# --- SIGKILL -----------------------------------------------------------------------------------------------


def is_partial(path: Path, *_: object, **__: object) -> bool:
    return path.name.startswith(".step") and path.name.endswith(".partial")


def is_removed(path: Path, *_: object, **__: object) -> bool:
    return path.name.endswith(".removed") and path.exists()


def is_results(run: Run, name: str, *_: object) -> bool:
    return name == "results.json"


# The calls are counted: a step has 2 micro-batches, an evaluation 2 batches, a save 4 files of tensors.
KILLS: dict[str, Callable[[], None]] = {
    "before the first step": lambda: at_call(fit, "take_step", 1, KILL),
    "in a step, before any checkpoint": lambda: at_call(step, "_loss", 5, KILL),
    "in a step, between micro-batches": lambda: at_call(step, "_loss", 14, KILL),
    "between a step and its average": lambda: at_call(averages.AveragedWeights, "update", 8, KILL),
    "in an evaluation": lambda: at_call(Tally, "add", 8, KILL),
    "between an evaluation and its save": lambda: at_call(checkpoint, "save", 4, KILL),
    "between the files of the first save": lambda: at_call(checkpoint, "save_file", 2, KILL),
    "between the files of a save": lambda: at_call(checkpoint, "save_file", 7, KILL),
    "before the manifest": lambda: at_call(checkpoint, "_write_json", 6, KILL),
    "before the rename": lambda: at_call(Path, "rename", 2, KILL, only=is_partial),
    "after the rename": lambda: at_call(Path, "rename", 2, KILL, only=is_partial, after=True),
    "while an old checkpoint is removed": lambda: at_call(shutil, "rmtree", 1, KILL, only=is_removed),
    "in the last step": lambda: at_call(step, "_loss", 22, KILL),
    "in the final scoring": lambda: at_call(validation, "evaluate_split", 7, KILL, after=True),
    "in the export": lambda: at_call(PreTrainedModel, "save_pretrained", 1, KILL, after=True),
    "before the results": lambda: at_call(Run, "write_json", 1, KILL, only=is_results),
}


# These differ little from the others: they run with VITFT_SLOW=1.
ALIKE = ("before the first step", "between the files of the first save", "before the manifest", "after the rename")

ALIKE += ("between an evaluation and its save", "in the last step", "in the final scoring", "before the results")


def phases(names: Iterable[str]) -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.slow if name in ALIKE else ()) for name in names]


@pytest.mark.parametrize("phase", phases(KILLS))
def test_killed_in_a_phase_a_run_resumes_to_the_same_bits(
    home: Path, uninterrupted: Path, name: str, phase: str
) -> None:
    run = home / "runs" / name
    assert_killed(start(home, name, KILLS[phase]), run)
    assert_resumes_to(run, uninterrupted)


def test_killed_again_and_again_a_run_ends_with_the_same_bits(home: Path, uninterrupted: Path, name: str) -> None:
    run = home / "runs" / name
    assert_killed(start(home, name, KILLS["in a step, between micro-batches"]), run)
    for phase in ("in a step, before any checkpoint", "between the files of a save", "in the export"):
        assert_killed(resume(run, KILLS[phase]), run)
    assert_resumes_to(run, uninterrupted)


def test_dropout_of_the_model_itself_resumes_to_the_same_bits(home: Path, name: str) -> None:
    tiny.make_checkpoint(home / "dropout", dropout=0.2)
    settings = {"model__checkpoint": str(home / "dropout"), "optim__name": "sgd", "augment__cutmix_alpha": 1.0}
    assert start(home, f"{name}-whole", **settings).code == 0
    assert_killed(start(home, name, KILLS["in the last step"], **settings), home / "runs" / name)
    assert_resumes_to(home / "runs" / name, home / "runs" / f"{name}-whole")


def test_a_convolutional_model_from_random_weights_resumes_to_the_same_bits(home: Path, name: str) -> None:
    folder = tiny.make_convolutions(home / "convolutions")
    settings = {"model__checkpoint": str(folder), "model__init": "random", "model__drop_path": 0}
    assert start(home, f"{name}-whole", **settings).code == 0
    assert_killed(start(home, name, KILLS["in a step, between micro-batches"], **settings), home / "runs" / name)
    assert_resumes_to(home / "runs" / name, home / "runs" / f"{name}-whole")
    state = tiny.tensors(home / "runs" / name)
    assert any("running_mean" in key and key.startswith("step-") and tensor.any() for key, tensor in state.items())


@pytest.mark.parametrize(
    "kind", ["relative", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("learned-2d", "sincos-2d"))]
)
def test_another_position_encoding_at_several_sizes_resumes_to_the_same_bits(home: Path, name: str, kind: str) -> None:
    settings = {"model__position": {"kind": kind}, "train__resolution_schedule": {16: "50%", 8: "50%"}}
    settings |= {"model__init": "random"} if kind == "relative" else {}
    assert start(home, f"{name}-whole", **settings).code == 0
    assert_killed(start(home, name, KILLS["in a step, between micro-batches"], **settings), home / "runs" / name)
    assert_resumes_to(home / "runs" / name, home / "runs" / f"{name}-whole")
    saved = AutoModelForImageClassification.from_pretrained(home / "runs" / name / "model")
    assert saved.config.model_type == ("beit" if kind == "relative" else "vit")
    assert (kind == "relative") != ("vit.embeddings.position_embeddings" in saved.state_dict())


def test_a_run_that_ran_out_of_memory_resumes_to_the_same_bits(home: Path, name: str) -> None:
    def no_memory() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")  # what a full GPU raises

    def full_gpu() -> None:
        at_call(step, "_loss", 4, no_memory)

    whole = start(home, f"{name}-whole", full_gpu)
    assert whole.code == 0
    assert "out of memory with 8 images at once; now 4, with the same steps" in whole.text

    def full_gpu_and_kill() -> None:
        full_gpu()
        at_call(fit, "take_step", 8, KILL)

    assert_killed(start(home, name, full_gpu_and_kill), home / "runs" / name)
    assert_resumes_to(home / "runs" / name, home / "runs" / f"{name}-whole")


# --- signals and the time limit ----------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_in_a_step_stops_after_it_with_a_checkpoint(
    home: Path, uninterrupted: Path, name: str, number: signal.Signals
) -> None:
    run = home / "runs" / name
    outcome = start(home, name, lambda: at_call(step, "_loss", 10, send(number)))
    assert outcome.code == 75
    assert f"stopped at step 5 of 11 ({number.name}); the checkpoint is complete" in outcome.text
    assert f"try: vitft finetune --resume {run}" in outcome.text
    assert [line["step"] for line in tiny.events(run, "step")] == [1, 2, 3, 4, 5]
    assert tiny.last_checkpoint(run).name == "step-00000005"
    if number == signal.SIGTERM:  # the way back is the same
        assert_resumes_to(run, uninterrupted)


@pytest.mark.parametrize(("batch", "step"), [(7, 8), (11, 11)])
def test_a_signal_in_an_evaluation_cuts_it_short_and_the_resumed_run_makes_up_for_it(
    home: Path, uninterrupted: Path, name: str, batch: int, step: int
) -> None:
    run = home / "runs" / name
    counted = run.with_suffix(".counted")

    def prepare() -> None:
        at_call(Tally, "add", batch, send(signal.SIGTERM))
        at_call(Tally, "add", batch + 1, counted.touch)

    outcome = start(home, name, prepare)
    assert outcome.code == 75, outcome.text
    assert f"stopped at step {step} of 11 (SIGTERM)" in outcome.text
    assert not counted.exists()
    assert [line["step"] for line in tiny.events(run, "validation")] == list(range(2, step, 2))
    assert_resumes_to(run, uninterrupted)


def test_a_signal_in_the_evaluation_that_a_resumed_run_begins_with_stops_it_again(
    home: Path, uninterrupted: Path, name: str
) -> None:
    run = home / "runs" / name
    stop = lambda number: lambda: at_call(Tally, "add", number, send(signal.SIGTERM))  # noqa: E731
    assert start(home, name, stop(7)).code == 75
    assert resume(run, stop(1)).code == 75
    assert tiny.last_checkpoint(run).name == "step-00000008"
    assert_resumes_to(run, uninterrupted)


def test_the_command_line_ends_with_75_on_sigterm(home: Path, name: str) -> None:
    settings = {f"train__{key}": "1000 steps" for key in ("duration", "evaluate_every", "checkpoint_every")}
    (home / f"{name}.yaml").write_text(tiny.recipe(home, run__name=name, **settings).dump())
    command = [sys.executable, "-m", "vitft", "finetune", "--recipe", str(home / f"{name}.yaml")]
    run = home / "runs" / name
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as process:
        steps = 0
        while steps < 2:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.01)
            log = run / "metrics.jsonl"
            steps = log.read_text().count('"event": "step"') if log.exists() else 0
        process.send_signal(signal.SIGTERM)
        told = process.communicate(timeout=60)[1]
    assert process.returncode == 75, told
    stopped = tiny.events(run, "step")[-1]["step"]
    assert f"stopped at step {stopped} of 1000 (SIGTERM)" in told
    assert f"try: vitft finetune --resume {run}" in told
    assert checkpoint.load(tiny.last_checkpoint(run))[0].step == stopped


def test_the_command_line_resumes(copied: Path, uninterrupted: Path) -> None:
    outcome = in_child(lambda: cli.main(["finetune", "--resume", str(copied)]))
    assert outcome.code == 0, outcome.text
    tiny.assert_same_run(copied, uninterrupted)


def test_the_time_limit_counts_each_session_anew(home: Path, uninterrupted: Path, name: str) -> None:
    def slow_clock() -> None:
        """Let every look at the clock take a second, so that a step takes a few."""
        seconds = itertools.count()
        fit.time = stopping.time = type("Clock", (), {"monotonic": lambda: next(seconds)})

    run = home / "runs" / name
    first = start(home, name, slow_clock, train__time_limit="10 s")
    assert first.code == 75
    assert "(the time limit of 10 seconds)" in first.text
    reached = tiny.events(run, "step")[-1]["step"]
    assert 1 < reached < 8
    second = resume(run, slow_clock)
    assert second.code == 75
    assert tiny.events(run, "step")[-1]["step"] >= reached + 2
    assert resume(run, train__time_limit=None).code == 0
    tiny.assert_same_run(run, uninterrupted)


# --- early stopping ----------------------------------------------------------------------------------------

PATIENCE = {"train__patience": "2 steps", "train__checkpoint_every": "100 steps", "train__weights": "last"}


def test_out_of_patience_a_run_stops_and_says_so(home: Path, name: str) -> None:
    run = home / "runs" / name
    outcome = start(home, name, **PATIENCE)
    scores = [(line["top1"], -line["nll"]) for line in tiny.events(run, "validation")]
    worse = next(i for i in range(1, len(scores)) if scores[i] <= max(scores[:i]))
    assert outcome.code == 0
    assert len(scores) == worse + 1 < 6
    assert tiny.events(run, "step")[-1]["step"] == 2 * len(scores)
    assert f"stopped at step {2 * len(scores)}: no better validation score for 2 steps" in outcome.text


def test_out_of_patience_and_killed_in_the_export_a_run_trains_no_further(home: Path, name: str) -> None:
    assert start(home, f"{name}-whole", **PATIENCE).code == 0
    assert_killed(start(home, name, KILLS["in the export"], **PATIENCE), home / "runs" / name)
    assert_resumes_to(home / "runs" / name, home / "runs" / f"{name}-whole")


# --- what cannot be resumed --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stopped(home: Path, uninterrupted: Path) -> Path:
    """Return a run that was stopped at step 5, with checkpoints of steps 3 and 5."""
    assert start(home, "stopped", lambda: at_call(step, "_loss", 10, send(signal.SIGTERM))).code == 75
    return home / "runs" / "stopped"


@pytest.fixture
def copied(stopped: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stopped, tmp_path / "stopped"))


def test_what_is_no_run_is_not_resumed(home: Path, uninterrupted: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is not a run directory: it has no recipe\.yaml"):
        finetune(resume=tmp_path)
    with pytest.raises(UsageError, match="does not exist") as error:
        finetune(resume=home / "runs" / "uninterrupte")
    assert str(uninterrupted) not in error.value.hint  # it is finished


def test_a_finished_run_is_not_resumed(uninterrupted: Path) -> None:
    before = tiny.events(uninterrupted)
    with pytest.raises(UsageError, match=r"is finished: its model, results\.json and model card are written"):
        finetune(resume=uninterrupted)
    assert tiny.events(uninterrupted) == before


def test_a_recipe_that_was_edited_is_refused_with_the_change(copied: Path) -> None:
    path = copied / "recipe.yaml"
    path.write_text(path.read_text().replace("mixup_alpha: 0.4", "mixup_alpha: 0.7"))
    outcome = resume(copied)
    assert outcome.code == 1
    assert "has changed since its checkpoint was written: augment.mixup_alpha: 0.4 -> 0.7" in outcome.text
    assert f"undo the change in {path}" in outcome.text


def test_a_change_that_computes_something_else_is_refused(copied: Path) -> None:
    outcome = resume(copied, optim__lr=0.1)
    assert outcome.code == 2
    assert "a resumed run keeps its recipe, but these keys would change: optim.lr: 0.01 -> 0.1" in outcome.text
    assert "train.time_limit" in outcome.text


def test_a_change_that_computes_the_same_is_taken(copied: Path, uninterrupted: Path) -> None:
    outcome = resume(copied, train__time_limit="5 h", train__keep_checkpoints=3, train__keep_after_end=3)
    assert outcome.code == 0, outcome.text
    assert len(list((copied / "checkpoints").iterdir())) == 3
    tiny.assert_same_run(copied, uninterrupted)


@pytest.mark.slow  # each evaluation starts its own workers
def test_another_number_of_workers_is_taken(copied: Path, uninterrupted: Path) -> None:
    outcome = resume(copied, timeout=280, data__workers=1)
    assert outcome.code == 0, outcome.text
    assert "workers                   1" in outcome.text
    tiny.assert_same_run(copied, uninterrupted)


def test_a_smaller_micro_batch_is_taken_and_said_to_be_inexact(copied: Path, uninterrupted: Path) -> None:
    outcome = resume(copied, train__micro_batch_size=4)
    assert outcome.code == 0, outcome.text
    assert "close but not bit for bit, because this changed: micro_batch_size: 8 -> 4" in outcome.text
    assert tiny.losses(copied) == pytest.approx(tiny.losses(uninterrupted), rel=1e-4)


def test_a_dataset_that_has_changed_is_refused(copied: Path, home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "photos", tmp_path / "photos")
    path = tmp_path / "photos" / "train" / "ash" / "000.png"
    path.rename(path.with_name("001.png"))
    for place in (copied / "recipe.yaml", *copied.glob("checkpoints/*/state.json")):
        place.write_text(place.read_text().replace(str(home / "photos"), str(tmp_path / "photos")))
    for state in copied.glob("checkpoints/*/state.json"):
        manifest = json.loads(state.with_name("manifest.json").read_text())
        manifest["state.json"] = checkpoint._fingerprint(state)
        state.with_name("manifest.json").write_text(json.dumps(manifest))
    outcome = resume(copied)
    assert outcome.code == 1
    assert f"the dataset {tmp_path / 'photos'} is not the one that this run was started with" in outcome.text
    assert not (copied / "results.json").exists()


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
def test_a_damaged_checkpoint_is_refused_by_name_and_the_one_before_it_goes_on(
    copied: Path, uninterrupted: Path, file: str
) -> None:
    path = tiny.last_checkpoint(copied) / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x80
    path.write_bytes(content)
    outcome = resume(copied)
    assert outcome.code == 1
    assert f"the checkpoint {path.parent} is damaged: {file} is not what was written" in outcome.text
    assert f"remove {path.parent} and resume from the one before it" in outcome.text
    shutil.rmtree(path.parent)
    if file == "model.safetensors":  # the way out is the same for all
        assert_resumes_to(copied, uninterrupted)


# --- failures ----------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_last_good_checkpoint(home: Path, name: str) -> None:
    settings = {"optim__lr": 1e30, "optim__warmup": "0 steps", "optim__max_grad_norm": None}
    outcome = start(home, name, optim__name="sgd", train__checkpoint_every="1 steps", **settings)
    run = home / "runs" / name
    last = tiny.events(run, "step")[-1]["step"]
    assert outcome.code == 1
    assert f"at step {last + 1}; the last good checkpoint is {tiny.last_checkpoint(run)}" in outcome.text
    assert tiny.last_checkpoint(run).name == f"step-{last:08d}"
    assert all(torch.isfinite(t).all() for t in checkpoint.load(tiny.last_checkpoint(run))[1]["model"].values())
    assert "a learning rate below 1e+30 (--lr)" in outcome.text
    assert not (run / "model").exists()


def is_of_a_checkpoint(path: Path) -> bool:
    return "step-" in str(path)


def no_space() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    "fill",
    [
        lambda: at_call(checkpoint, "save_file", 7, no_space),
        lambda: at_call(checkpoint, "_write_json", 3, no_space),
        lambda: at_call(disk, "flush", 9, no_space, only=is_of_a_checkpoint),
    ],
    ids=["tensors", "state", "flush"],
)
def test_a_full_disk_while_saving_keeps_the_checkpoint_before_and_says_how_to_go_on(
    home: Path, uninterrupted: Path, name: str, fill: Callable[[], None]
) -> None:
    run = home / "runs" / name
    outcome = start(home, name, fill)
    assert outcome.code == 1
    before = run / "checkpoints" / "step-00000003"
    assert f"cannot write the checkpoint {run / 'checkpoints' / 'step-00000006'}" in outcome.text
    assert f"No space left on device ({before} is complete)" in outcome.text
    assert f"make room, then: vitft finetune --resume {run}" in outcome.text
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000003"]


def test_a_write_that_the_system_refuses_to_safetensors_is_a_full_disk_too(
    home: Path, uninterrupted: Path, name: str
) -> None:
    def limit_files() -> None:
        """Let no file of this process grow beyond 20 kB, from the second save on."""
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        limits = (20_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
        at_call(checkpoint, "save", 2, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits))

    run = home / "runs" / name
    outcome = start(home, name, limit_files)
    assert outcome.code == 1
    assert f"({run / 'checkpoints' / 'step-00000003'} is complete)" in outcome.text
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000003"]
    assert_resumes_to(run, uninterrupted)


def test_a_full_disk_in_the_export_says_how_to_go_on(home: Path, uninterrupted: Path, name: str) -> None:
    def limit_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        limits = (20_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
        at_call(fit, "take_chosen_weights", 1, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits))

    run = home / "runs" / name
    outcome = start(home, name, limit_files)
    assert outcome.code == 1, outcome.text
    assert f"cannot write the model to {run / 'model'}" in outcome.text
    assert not (run / "model").exists()
    assert_resumes_to(run, uninterrupted)


def test_without_room_for_the_metrics_the_run_stops_and_resumes(home: Path, uninterrupted: Path, name: str) -> None:
    def is_step(*args: Any, **kwargs: Any) -> bool:
        return args[1] == "step"

    def fail() -> None:
        raise TrainError("cannot write metrics.jsonl: No space left on device")

    run = home / "runs" / name
    assert start(home, name, lambda: at_call(Run, "log", 8, fail, only=is_step)).code == 1
    assert_resumes_to(run, uninterrupted)


# --- a job on a cluster ------------------------------------------------------------------------------------

# Has the test do the command in a process that has imported torch already, and passes signals on to it.
VITFT_OF_THE_TEST = """#!/bin/bash
trap 'kill -USR1 "$(< pid)"' USR1
printf '%s\\n' "$@" > partial && mv partial asked
until [ -e code ]; do sleep 0.02; done
read -r code < code
rm code
exit "$code"
"""


@pytest.mark.usefixtures("uninterrupted")
def test_the_job_script_resumes_a_preempted_run_to_its_end(home: Path, tmp_path: Path) -> None:
    """Real runs of a tiny model: the script gets SIGTERM in the first job, and ends in the second."""
    job = Job(tmp_path, VITFT_OF_THE_TEST)
    rarely = {"train__evaluate_every": "30 steps", "train__checkpoint_every": "30 steps"}
    recipe = tiny.recipe(home, run__pictures="off", train__duration="30 steps", **rarely)
    (tmp_path / "tiny.yaml").write_text(recipe.dump())
    script = SCRIPT.read_text().replace("food101 --recipe default", "--recipe tiny.yaml")
    run = tmp_path / "runs" / "food"
    codes = []
    for stop_when in ("grep -qs grad_norm runs/food/metrics.jsonl", ""):
        started = job.start(script, stop_when, "TERM")
        while started.poll() is None:
            if (tmp_path / "asked").exists():
                arguments = (tmp_path / "asked").read_text().splitlines()
                (tmp_path / "asked").unlink()
                (tmp_path / "code").write_text(f"{do(arguments, tmp_path).code}\n")
            time.sleep(0.01)
        codes.append(started.returncode)
    assert codes == [75, 0]
    assert job.said("queued") == ["requeue 7"]
    assert ["--resume runs/food" in line for line in job.said("srun")] == [False, True]
    steps = [event["step"] for event in tiny.events(run, "step")]
    assert steps == [*range(1, 31)] and (run / "results.json").exists()


def do(arguments: list[str], folder: Path) -> tiny.Outcome:
    """Run vitft in a forked child."""

    def work() -> None:
        os.chdir(folder)
        (folder / "pid").write_text(str(os.getpid()))
        cli.main(arguments)

    return in_child(work)

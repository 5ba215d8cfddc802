"""One process, two or three: the same steps, and an end that all of them share.

The numbers of one process are made here, in the test's own. Those of several come from processes that are forked
from it, with what a launcher would tell them (``every_process.py``); that real launches do the same has its own tests.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import every_process
import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file
from tiny import events, in_child, last_checkpoint, make_photos
from torch import Tensor

from vitft import Recipe, cli
from vitft.data import order
from vitft.errors import UsageError
from vitft.processes.device import make_accelerator
from vitft.reading.source import open_source
from vitft.scoring.predictions import read_predictions

ROOT = Path(__file__).resolve().parents[2]
ACCELERATE = (sys.executable, "-m", "accelerate.commands.launch", "--num_machines", "1", "--mixed_precision", "no")
SILENT = ("--dynamo_backend", "no", "--main_process_port", "0")
VITFT = (sys.executable, "-m", "vitft")
FAMILIES = ("dinov2", "clip", "siglip")

pytestmark = pytest.mark.timeout(600)  # on a machine that others use too

# --- the jobs ----------------------------------------------------------------------------------------------

COMMON = {
    "data.dataset": "builtin:digits",
    "data.max_train_samples": 501,
    "data.workers": 0,
    "model.drop_path": 0.3,
    "augment.mixup_alpha": 0.4,
    "train.batch_size": 62,
    "train.precision": "fp32",
    "train.device": "cpu",
    "train.keep_after_end": 3,  # what runs are compared by
    "run.pictures": "off",  # what the main process draws at the end, alone: in the run that is launched
}
SGD = {
    # A buffer that forgets at once is the gradient itself. The second step's: the first has a head of zeros,
    # which lets none through.
    "optim.name": "sgd",
    "optim.momentum": 1e-30,
    "optim.lr": 0.1,
    "optim.layer_decay": 1,
    "optim.weight_decay": 0,
    "optim.warmup": "0 steps",
    "optim.schedule": "constant",
    "optim.max_grad_norm": None,
    "optim.ema_decay": 0,
    "train.duration": "2 steps",
}
ADAMW = {
    "optim.lr": 2e-3,
    "optim.ema_decay": 0.99,
    "optim.max_grad_norm": 0.2,
    "train.duration": "3 epochs",  # 24 steps, and one of 15 images
    "train.keep_checkpoints": 3,
}
LONELY = {  # 125 images: two steps, and one of a single image
    "train.duration": f"{125 / 501} epochs",
    "train.imbalance": "sqrt-sampling",
    "optim.lr": [5e-4, 2e-3],
}
HEAD = {  # two steps, and one of a single image
    "model.train": "head",
    "model.drop_path": 0,
    "augment.mixup_alpha": 0,
    "train.feature_views": 1,
    "train.duration": f"{125 / 501} epochs",
}
LAST = HEAD | {  # on features too
    "model.train": "last:1",
    "train.feature_views": 0,
    "augment.crop_scale": [1, 1],
    "augment.flip": 0,
    "augment.erase": 0,
}
ADAPTER = {  # whose dropout, and the head that is fitted first, are the same everywhere
    "model.train": "lora",
    "model.lora_dropout": 0.3,
    "train.head_first": True,
    "optim.head_lr_factor": 2,
    "train.duration": "4 steps",
}
SIZES = {"train.duration": "10 steps", "train.resolution_schedule": {8: "60%", 16: "40%"}}
FAMILY = {"model.drop_path": 0, "train.duration": "6 steps"}


def family(name: str, home: Path) -> dict[str, Any]:
    return COMMON | FAMILY | {"model.checkpoint": str(home / name)}


def jobs(home: Path) -> dict[str, dict[str, Any]]:
    vit = COMMON | {"model.checkpoint": str(home / "vit")}
    finetunes = {
        "sgd": vit | SGD,
        "adamw": vit | ADAMW,
        "lonely": vit | LONELY,
        "adapter": vit | ADAPTER,
        "head": COMMON | HEAD | {"model.checkpoint": "auto", "model.candidates": [str(home / "vit"), str(home / "no")]},
        "last": vit | LAST,
        "sizes": vit | SIZES,
    }
    finetunes |= {name: family(name, home) for name in FAMILIES}
    return {name: {"finetune": job} for name, job in finetunes.items()}


def save_family(name: str, folder: Path) -> None:
    """Save a random encoder of depth 2; all but a ViT have parameters that no image reaches."""
    from transformers import (
        BitImageProcessor,
        CLIPConfig,
        CLIPForImageClassification,
        CLIPImageProcessor,
        Dinov2Config,
        Dinov2ForImageClassification,
        SiglipConfig,
        SiglipForImageClassification,
        SiglipImageProcessor,
        ViTConfig,
        ViTForImageClassification,
        ViTImageProcessor,
    )

    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 8, "patch_size": 4}
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    if name == "vit":  # with tokens that differ enough for three epochs to find something
        config = ViTConfig(**size, intermediate_size=32, initializer_range=0.2)
        model, processor = ViTForImageClassification(config), ViTImageProcessor
    elif name == "dinov2":
        model, processor = Dinov2ForImageClassification(Dinov2Config(**size, mlp_ratio=2)), BitImageProcessor
    elif name == "clip":
        config = CLIPConfig(text_config=text, vision_config=size | {"intermediate_size": 32}, projection_dim=16)
        model, processor = CLIPForImageClassification(config), CLIPImageProcessor
    else:
        config = SiglipConfig(text_config=text, vision_config=size | {"intermediate_size": 32})
        model, processor = SiglipForImageClassification(config), SiglipImageProcessor
    model.save_pretrained(folder)
    side = {"height": 8, "width": 8}
    crop = {"crop_size": side} if name in ("dinov2", "clip") else {}
    processor(size=side, **crop).save_pretrained(folder)


# --- launching ---------------------------------------------------------------------------------------------


class Started:
    """A running command, and what it printed."""

    def __init__(self, command: Sequence[str | Path], home: Path, **variables: str) -> None:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("ACCELERATE_", "VITFT_"))}
        clean |= {
            "PYTHONPATH": str(ROOT),
            "HF_HOME": str(home / "hf"),
            "VITFT_CACHE": str(home / "cache"),
            "OMP_NUM_THREADS": "1",
        }
        self._process = subprocess.Popen(
            [str(word) for word in command],
            cwd=home,
            env=clean | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.out = self.err = ""

    def wait(self, timeout: float = 270) -> int:
        try:
            self.out, self.err = self._process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            for process in [*psutil.Process(self._process.pid).children(recursive=True), self._process]:
                process.kill()
            self.out, self.err = self._process.communicate()
            pytest.fail(f"it hung:\n{self.err[-4000:]}")
        return self._process.returncode

    def wait_for_steps(self, run: Path, count: int) -> None:
        """Return when ``count`` steps are logged."""
        deadline = time.monotonic() + 120
        while not (run / "metrics.jsonl").is_file() or len(events(run, "step")) < count:
            assert self._process.poll() is None and time.monotonic() < deadline, self._process.communicate()
            time.sleep(0.02)

    def send(self, number: int) -> None:
        self._process.send_signal(number)


def finished(command: Sequence[str | Path], home: Path, **variables: str) -> Started:
    """Run a command to its good end."""
    started = Started(command, home, **variables)
    assert started.wait() == 0, started.err
    return started


def flags(job: Mapping[str, object]) -> list[str]:
    return [word for key, value in job.items() for word in ("--set", f"{key}={json.dumps(value)}")]


def in_processes(count: int, chosen: Mapping[str, dict[str, Any]], home: Path) -> Path:
    """Do jobs in ``count`` processes; return the folder with their runs and with what each process saw."""
    folder = home / f"processes-{count}"
    folder.mkdir()
    placed = {name: placed_in(folder, name, job) for name, job in chosen.items()}
    every_process.launch(count, placed, folder)
    return folder


def placed_in(folder: Path, name: str, job: dict[str, Any]) -> dict[str, Any]:
    if "finetune" not in job:
        return job
    return job | {"finetune": job["finetune"] | {"run.output_dir": str(folder), "run.name": name}}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("processes")
    for name in ("vit", *FAMILIES):
        save_family(name, home / name)
    return home


@pytest.fixture(scope="module")
def one(home: Path) -> Iterator[Path]:
    """Runs of this process, in two micro-batches a step."""
    folder = home / "processes-1"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("ACCELERATE_")]:
            patch.delenv(name)
        patch.setattr("accelerate.commands.config.config_args.default_config_file", str(home / "none.yaml"))
        placed = {name: placed_in(folder, name, job) for name, job in jobs(home).items()}
        for job in placed.values():
            job["finetune"]["train.micro_batch_size"] = 32
        every_process.do_all(placed | {"evaluate": evaluation(folder)}, folder)
    return folder


def evaluation(one: Path) -> dict[str, Any]:
    return {"evaluate": [str(one / "adamw" / "model"), "builtin:digits"]}


@pytest.fixture(scope="module")
def two(home: Path, one: Path) -> Path:
    stop = jobs(home)["adamw"]["finetune"] | {"train.time_limit": "0.01 s"}
    return in_processes(
        2, jobs(home) | {"evaluate": evaluation(one), "stop": {"finetune": stop, "slow_save": 1.0}}, home
    )


@pytest.fixture(scope="module")
def three(home: Path, one: Path) -> Path:
    chosen = {name: job for name, job in jobs(home).items() if name not in FAMILIES}
    return in_processes(3, chosen | {"evaluate": evaluation(one)}, home)


@pytest.fixture(scope="module", params=[2, 3])
def several(request: pytest.FixtureRequest) -> tuple[int, Path]:
    return request.param, request.getfixturevalue({2: "two", 3: "three"}[request.param])


# --- the same steps ----------------------------------------------------------------------------------------


def logged(run: Path, key: str) -> Tensor:
    return torch.tensor([event[key] for event in events(run, "step")], dtype=torch.float64)


def assert_same_losses(run: Path, expected: Path, steps: int) -> None:
    for key in ("loss", "grad_norm"):
        ours, theirs = logged(run, key), logged(expected, key)
        assert len(ours) == steps
        print(f"{run.parent.name}/{run.name} {key}: {((ours - theirs) / theirs).abs().max():.1e}")
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)


def assert_close(file: Path, expected: Path, tolerance: float) -> None:
    """Assert that the difference of all tensors of a file is small against their norm."""
    ours, theirs = load_file(file), load_file(expected)
    assert ours.keys() == theirs.keys()
    difference = sum((ours[name] - theirs[name]).double().square().sum() for name in ours) ** 0.5
    norm = sum(tensor.double().square().sum() for tensor in theirs.values()) ** 0.5
    print(f"{file.parts[-4:]}: {difference / norm:.1e}")
    assert norm > 0 and difference <= tolerance * norm


def witnesses(folder: Path, job: str, count: int) -> list[dict[str, Any]]:
    return [json.loads((folder / f"{job}.{rank}.json").read_text()) for rank in range(count)]


def test_all_processes_are_synchronised_and_end_with_the_same_weights(several: tuple[int, Path]) -> None:
    count, folder = several
    for job in ("sgd", "adamw", "lonely"):
        seen = witnesses(folder, job, count)
        assert [each["processes"] for each in seen] == [count] * count
        assert len({each["weights"] for each in seen}) == 1, job
        layout = json.loads((last_checkpoint(folder / job) / "state.json").read_text())["conditions"]
        assert layout["processes"] == count
        assert layout["micro_batch_size"] == {2: 32, 3: 22}[count]  # all of its part: one micro-step


def test_the_gradients_are_those_of_one_process(several: tuple[int, Path], one: Path) -> None:
    _, folder = several
    assert_same_losses(folder / "sgd", one / "sgd", steps=2)
    gradients = [last_checkpoint(each / "sgd") / "optimizer.safetensors" for each in (folder, one)]
    assert_close(*gradients, tolerance=1e-5)
    norm = sum(each.double().square().sum() for each in load_file(gradients[1]).values()) ** 0.5
    torch.testing.assert_close(norm, logged(one / "sgd", "grad_norm")[1], rtol=1e-5, atol=0)


def test_a_checkpoint_is_chosen_by_the_same_numbers(several: tuple[int, Path], one: Path) -> None:
    notes = [[each["text"] for each in events(run / "head", "note")] for run in (several[1], one)]
    ours, theirs = (next(text for text in texts if "auto chose" in text) for texts in notes)
    assert "/vit, with " in ours and "/no could not be probed: the model" in ours
    assert ours == theirs


def test_predictions_are_in_the_order_of_the_dataset(several: tuple[int, Path], one: Path) -> None:
    classes = json.loads((one / "adamw" / "results.json").read_text())["classes"]
    for split in ("validation", "test"):
        (ours, sources), (theirs, expected) = (
            read_predictions(each / "adamw" / f"predictions-{split}.parquet", classes) for each in (several[1], one)
        )
        assert sources == expected and ours.row.tolist() == theirs.row.tolist()
        assert ours.label.tolist() == theirs.label.tolist()
        np.testing.assert_allclose(ours.p_label, theirs.p_label, atol=1e-3)


def test_three_epochs_take_the_same_course(several: tuple[int, Path], one: Path) -> None:
    _, folder = several
    assert_same_losses(folder / "adamw", one / "adamw", steps=25)
    assert logged(one / "adamw", "grad_norm").max() > 2 * ADAMW["optim.max_grad_norm"]  # it was clipped
    for name in ("model", "averaged", "best"):
        checkpoints = [last_checkpoint(each / "adamw") / f"{name}.safetensors" for each in (folder, one)]
        assert_close(*checkpoints, tolerance=1e-4)
    models = [each / "adamw" / "model" / "model.safetensors" for each in (folder, one)]
    assert_close(*models, tolerance=1e-4)


def test_a_last_step_may_leave_processes_without_samples(several: tuple[int, Path], one: Path) -> None:
    count, folder = several
    assert [stop - start for start, stop in order.step_slots(125 % 62, count)] == [0] * (count - 1) + [1]
    assert_same_losses(folder / "lonely", one / "lonely", steps=3)
    assert_close(*[each / "lonely" / "model" / "model.safetensors" for each in (folder, one)], tolerance=1e-4)
    rates = [json.loads((each / "lonely" / "results.json").read_text())["learning_rates"] for each in (folder, one)]
    assert rates[0]["chosen"] == rates[1]["chosen"]
    for ours, theirs in zip(*(each["tried"] for each in rates), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize(("name", "views"), [("head", "1 random view"), ("last", "the one view")])
def test_a_head_or_a_block_on_features_takes_the_same_course(
    several: tuple[int, Path], one: Path, name: str, views: str
) -> None:
    count, folder = several
    assert len({each["weights"] for each in witnesses(folder, name, count)}) == 1
    assert f"computed once from {views} of each image" in (folder / name / "plan.json").read_text()
    assert_same_losses(folder / name, one / name, steps=3)
    assert_close(*[each / name / "model" / "model.safetensors" for each in (folder, one)], tolerance=1e-4)
    scores = [[event["nll"] for event in events(each / name, "validation")] for each in (folder, one)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-5)


def test_adapters_after_a_fitted_head_take_the_same_course(several: tuple[int, Path], one: Path) -> None:
    count, folder = several
    assert len({each["weights"] for each in witnesses(folder, "adapter", count)}) == 1
    assert_same_losses(folder / "adapter", one / "adapter", steps=4)
    assert_close(*[each / "adapter" / "model" / "model.safetensors" for each in (folder, one)], tolerance=1e-4)


def test_a_run_at_several_sizes_takes_the_same_course(several: tuple[int, Path], one: Path) -> None:
    count, folder = several
    assert len({each["weights"] for each in witnesses(folder, "sizes", count)}) == 1
    sizes = [event["image_size"] for event in events(folder / "sizes", "step")]
    assert sizes == [[8, 8]] * 6 + [[16, 16]] * 4
    assert_same_losses(folder / "sizes", one / "sizes", steps=10)
    assert_close(*[each / "sizes" / "model" / "model.safetensors" for each in (folder, one)], tolerance=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_families_with_unused_parameters_train_on_two_processes(name: str, two: Path, one: Path) -> None:
    notes = [event["text"] for event in events(two / name, "note")]
    assert any(note.startswith("frozen, because the model does not use them") for note in notes), notes
    assert len({each["weights"] for each in witnesses(two, name, 2)}) == 1
    assert_same_losses(two / name, one / name, steps=6)
    assert_close(*[each / name / "model" / "model.safetensors" for each in (two, one)], tolerance=1e-4)


# --- the same scores ---------------------------------------------------------------------------------------


def test_every_image_is_scored_once(several: tuple[int, Path], one: Path) -> None:
    _, folder = several
    for run in (folder / "adamw", one / "adamw"):
        results = json.loads((run / "results.json").read_text())
        counts = {name: results[name]["count"] for name in ("validation", "test")}
        assert counts == {"validation": 144, "test": 360}
        assert all(sum(map(sum, results[name]["confusion"])) == counts[name] for name in counts)
        assert results["train"]["samples"] == 3 * 501


def test_the_same_weights_get_the_same_score(several: tuple[int, Path], one: Path) -> None:
    count, folder = several
    (expected,) = witnesses(one, "evaluate", 1)
    main = witnesses(folder, "evaluate", count)[0]
    ours, theirs = main["scores"], expected["scores"]
    assert 0.2 < theirs["top1"] < 1 and theirs["count"] == 360
    assert ours.pop("nll") == pytest.approx(theirs.pop("nll"), rel=1e-7)
    assert ours == theirs


# --- the same end ------------------------------------------------------------------------------------------


def test_nobody_ends_before_the_checkpoint_is_written(two: Path) -> None:
    seen = witnesses(two, "stop", 2)
    assert "saved" in seen[0] and "saved" not in seen[1]
    assert all(each["stopped"] >= seen[0]["saved"] for each in seen)
    assert (last_checkpoint(two / "stop") / "manifest.json").is_file()


def test_accelerate_launch_runs_the_command(home: Path, one: Path) -> None:
    job = placed_in(home / "launched", "adamw", jobs(home)["adamw"])["finetune"] | {"run.pictures": "on"}
    launch = (*ACCELERATE, *SILENT, "--multi_gpu", "--num_processes", "2", "-m", "vitft")
    done = finished((*launch, "finetune", *flags(job)), home)
    assert done.out.count("validation") == done.err.count("weights: best") == 1  # one speaks
    assert_same_losses(home / "launched" / "adamw", one / "adamw", steps=25)
    assert_close(*[f / "adamw" / "model" / "model.safetensors" for f in (home / "launched", one)], tolerance=1e-4)


def long_job(home: Path, folder: str, name: str) -> dict[str, Any]:
    """Return a job of 194 steps, long enough to be stopped on the way."""
    rarely = {"train.evaluate_every": "8 epochs", "train.checkpoint_every": "500 steps"}
    long = jobs(home)["adamw"]["finetune"] | {"train.duration": "24 epochs"} | rarely
    return placed_in(home / folder, name, {"finetune": long})["finetune"]


def test_sigterm_leaves_a_checkpoint_that_another_number_of_processes_resumes(home: Path, one: Path) -> None:
    run = home / "stopped" / "long"
    stopped = Started((*VITFT, "finetune", "--num-processes", "2", *flags(long_job(home, "stopped", "long"))), home)
    stopped.wait_for_steps(run, 12)
    stopped.send(signal.SIGTERM)
    start = time.monotonic()
    assert stopped.wait() == 75, stopped.err
    assert time.monotonic() - start < 20
    (command,) = re.findall(r"try: (vitft finetune --resume .*)", stopped.err)
    assert not list(run.rglob("*.partial"))
    step = json.loads((last_checkpoint(run) / "state.json").read_text())["step"]
    assert 12 <= step < 194 and len(events(run, "step")) == step

    resumed = in_child(lambda: (os.chdir(home), cli.main(command.split()[1:])))
    assert resumed.code == 0, resumed.text
    assert "close but not bit for bit, because this changed: processes: 2 -> 1" in resumed.text
    assert f"at step {step} of 194" in resumed.text
    assert [event["step"] for event in events(run, "step")] == list(range(1, 194 + 1))
    assert json.loads((run / "results.json").read_text())["test"]["count"] == 360


@pytest.mark.slow
def test_as_many_processes_resume_bit_for_bit(home: Path) -> None:
    ends = []
    for name in ("stopped", "whole"):
        run = home / "exact" / name
        started = Started((*VITFT, "finetune", "--num-processes", "2", *flags(long_job(home, "exact", name))), home)
        if name == "stopped":
            started.wait_for_steps(run, 12)
            started.send(signal.SIGUSR1)
            assert started.wait() == 75, started.err
            started = Started((*VITFT, "finetune", "--num-processes", "2", "--resume", run), home)
        assert started.wait() == 0, started.err
        assert "bit for bit" not in started.err
        ends.append(run)
    stopped, whole = ends
    for key in ("loss", "grad_norm"):
        assert torch.equal(logged(stopped, key), logged(whole, key))
    for file in [*last_checkpoint(whole).glob("*.safetensors"), whole / "model" / "model.safetensors"]:
        ours, theirs = load_file(stopped / file.relative_to(whole)), load_file(file)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs), file


@pytest.mark.slow
def test_sigterm_to_another_launcher_leaves_a_checkpoint_and_the_command(home: Path) -> None:
    run = home / "foreign" / "long"
    launch = (*ACCELERATE, *SILENT, "--multi_gpu", "--num_processes", "2", "-m", "vitft")
    stopped = Started((*launch, "finetune", *flags(long_job(home, "foreign", "long"))), home)
    stopped.wait_for_steps(run, 12)
    stopped.send(signal.SIGTERM)
    assert stopped.wait() != 0
    assert stopped.err.count(f"try: vitft finetune --resume {run}") == 1, stopped.err
    state = json.loads((last_checkpoint(run) / "state.json").read_text())
    assert state["step"] == len(events(run, "step")) and not list(run.rglob("*.partial"))


@pytest.mark.slow
def test_sigterm_while_the_result_is_scored_can_be_resumed(home: Path) -> None:
    run = home / "late" / "late"
    job = placed_in(home / "late", "late", jobs(home)["adamw"])["finetune"]
    late = Started((*VITFT, "finetune", "--num-processes", "2", *flags(job)), home)
    late.wait_for_steps(run, 25)
    late.send(signal.SIGTERM)
    assert late.wait() == 75, late.err
    assert not (run / "results.json").exists()
    finished((*VITFT, "finetune", "--resume", run), home)
    assert json.loads((run / "results.json").read_text())["test"]["count"] == 360


@pytest.mark.slow
def test_torchrun_runs_the_command(home: Path, one: Path) -> None:
    job = placed_in(home / "torchrun", "sgd", jobs(home)["sgd"])["finetune"]
    launch = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    finished((*launch, "-m", "vitft", "finetune", *flags(job)), home)
    assert_same_losses(home / "torchrun" / "sgd", one / "sgd", steps=2)
    gradients = [last_checkpoint(f / "sgd") / "optimizer.safetensors" for f in (home / "torchrun", one)]
    assert_close(*gradients, tolerance=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "vitft"])
def test_two_machines_with_folders_of_their_own_take_the_same_steps(home: Path, one: Path, launcher: str) -> None:
    """Two launches on this machine, in other working directories; only the main process writes."""
    port = str(free_port())
    job = jobs(home)["sgd"]["finetune"] | {"run.output_dir": "runs", "run.name": "sgd"}
    machines = []
    for rank in ("0", "1"):
        folder = home / f"{launcher}-{rank}"
        folder.mkdir()
        if launcher == "torchrun":
            where = ("--nnodes", "2", "--node-rank", rank, "--master-addr", "127.0.0.1", "--master-port", port)
            command = (sys.executable, "-m", "torch.distributed.run", *where, "-m", "vitft", "finetune", *flags(job))
        else:
            where = ("--num_machines", "2", "--machine_rank", rank, "--main_process_ip", "127.0.0.1")
            command = (
                *VITFT,
                "finetune",
                "--num-processes",
                "2",
                *flags(job),
                "--",
                *where,
                "--main_process_port",
                port,
            )
        machines.append(Started(command, folder, HF_HOME=str(folder / "hf")))
    assert [machine.wait() for machine in machines] == [0, 0], [machine.err for machine in machines]
    assert_same_losses(home / f"{launcher}-0" / "runs" / "sgd", one / "sgd", steps=2)
    assert not (home / f"{launcher}-1" / "runs").exists()
    assert "epoch" not in machines[1].err and machines[1].out == ""


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


# --- what cannot be done -----------------------------------------------------------------------------------


def write_config(path: Path, **values: object) -> Path:
    config = {"compute_environment": "LOCAL_MACHINE", "distributed_type": "MULTI_CPU", "num_machines": 1}
    path.write_text(json.dumps(config | {"mixed_precision": "no", "use_cpu": True} | values))
    return path


@pytest.mark.slow
def test_the_precision_of_the_config_is_taken_and_may_not_be_contradicted(home: Path) -> None:
    config = write_config(home / "bf16.json", num_processes=2, mixed_precision="bf16")
    for precision, code in {"auto": 0, "fp32": 2}.items():
        job = placed_in(home / "config", precision, jobs(home)["sgd"])["finetune"] | {"train.precision": precision}
        started = Started((*VITFT, "finetune", *flags(job), "--", "--config_file", config), home)
        assert started.wait() == code, started.err
        if precision == "auto":
            state = json.loads((last_checkpoint(home / "config" / "auto") / "state.json").read_text())
            assert (state["conditions"]["precision"], state["conditions"]["processes"]) == ("bf16", 2)
            assert "bf16  from accelerate launch (--mixed_precision or its config file)" in started.err
        else:
            assert started.err.count("the recipe says train.precision: fp32, but accelerate launch") == 1
            assert "says bf16" in started.err and "Traceback" not in started.err


@pytest.mark.slow
def test_a_batch_smaller_than_twice_the_processes_of_the_config_is_refused_once(home: Path) -> None:
    config = write_config(home / "two.json", num_processes=2)
    job = placed_in(home / "refused", "small", jobs(home)["adamw"])["finetune"] | {"train.batch_size": 2}
    refused = Started((*VITFT, "finetune", *flags(job), "--", "--config_file", config), home)
    assert refused.wait() == 2, refused.err
    assert refused.err.count("train.batch_size: 2 is less than two images for each of the 2 processes") == 1
    assert "--batch-size 4" in refused.err and "Traceback" not in refused.err
    assert not (home / "refused").exists()


def photos_with_a_bad_one(folder: Path) -> tuple[Path, str]:
    """Make photos of which one is none, that process 1 of 2 meets in the first step; return its row's name too."""
    photos = make_photos(folder)
    recipe = Recipe.load(None, {"data.dataset": str(photos)})
    train = open_source(recipe.data, seed=recipe.train.seed).train
    start, stop = order.step_slots(16, 2)[1]
    (row,) = order.sample_at(recipe.train.seed, torch.tensor([(start + stop) // 2]), len(train)).tolist()
    (bad,) = [path for path in photos.rglob("*.png") if f"({path.relative_to(photos)})" in train.where(row)]
    bad.write_bytes(b"no image")
    return photos, train.where(row)


def photo_job(home: Path, photos: Path, name: str) -> dict[str, Any]:
    job = jobs(home)["adamw"]["finetune"] | {"data.dataset": str(photos), "train.batch_size": 16}
    return placed_in(home / name, name, {"finetune": job | {"data.max_train_samples": None}})["finetune"]


@pytest.mark.slow
def test_a_bad_image_of_another_process_ends_all_and_is_named_once(home: Path) -> None:
    photos, where = photos_with_a_bad_one(home / "photos")
    ended = Started((*VITFT, "finetune", "--num-processes", "2", *flags(photo_job(home, photos, "bad"))), home)
    begin = time.monotonic()
    assert ended.wait() == 1, ended.err
    assert time.monotonic() - begin < 90  # not until a collective gives up, after hours
    assert ended.err.count(f"{where} cannot be used") == 1 and "--bad-images skip" in ended.err
    assert "Traceback" not in ended.err, ended.err


@pytest.mark.slow
def test_a_bad_image_of_another_process_is_passed_over_and_listed(home: Path) -> None:
    photos, where = photos_with_a_bad_one(home / "skipped-photos")
    job = photo_job(home, photos, "skipped") | {"data.bad_images": "skip"}
    finished((*VITFT, "finetune", "--num-processes", "2", *flags(job)), home)
    run = home / "skipped" / "skipped"
    assert list(json.loads((run / "results.json").read_text())["bad_images"]) == [where]
    told = [event["text"] for event in events(run, "note") if where in event["text"]]
    assert ["checked images" in text for text in told] == [True, False]  # when the data were read, and when it was met


@pytest.mark.slow
def test_a_dataset_that_is_not_there_ends_all_at_once_and_is_said_once(home: Path) -> None:
    job = photo_job(home, home / "nowhere", "nowhere")
    ended = Started((*VITFT, "finetune", "--num-processes", "2", *flags(job)), home)
    assert ended.wait() == 1, ended.err
    assert ended.err.count("error: ") == 1 and "Traceback" not in ended.err, ended.err


@pytest.fixture
def lone_accelerator(one: Path) -> Iterator[None]:  # after the module's runs, whose state it resets
    yield
    every_process.AcceleratorState._reset_state(reset_partial_state=True)


def test_processes_that_are_not_synchronised_are_refused(
    lone_accelerator: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    every_process.Accelerator(cpu=True)  # counts one process, as it would on a device that knows no others
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="started 2 processes, but accelerate counts 1"):
        make_accelerator(Recipe.load(None, {"train.device": "cpu"}))


def test_a_number_of_processes_without_a_launcher_is_refused(
    lone_accelerator: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="WORLD_SIZE"):
        make_accelerator(Recipe.load(None, {"train.device": "cpu"}))

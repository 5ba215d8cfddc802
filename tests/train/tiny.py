"""Runs of a second: a ViT of two blocks, sixty photos, and children that are forked, killed and asked how they ended.

A child is forked from the warmed test process, since importing torch and transformers takes longer than the run.
What is injected (a kill, a signal, a full disk) is patched into vitft from here, in the child alone.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from vitft.errors import VitftError
from vitft.recipe.recipe import Recipe

CLASSES = ("ash", "birch", "cedar")
COUNTS = {"train": 40, "validation": 16, "test": 6}
CRASHED = 99  # exit code of a child that raised what is no VitftError


# --- what is trained on what -------------------------------------------------------------------------------


def make_home(folder: Path) -> Path:
    """Fill a folder with a tiny checkpoint and tiny photos; runs will lie beside them."""
    make_checkpoint(folder / "checkpoint")
    make_photos(folder / "photos")
    return folder


def make_checkpoint(folder: Path, *, dropout: float = 0.0) -> Path:
    """Save a random ViT of width 16 and depth 2 for 8 x 8 pixels, with its processor."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=8,
        patch_size=4,
        hidden_dropout_prob=dropout,
    )
    torch.manual_seed(7)
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 8, "width": 8}).save_pretrained(folder)
    return folder


def make_convolutions(folder: Path) -> Path:
    """Write the architecture of a ResNet of three blocks for 16 x 16 pixels, without weights."""
    from transformers import ResNetConfig, ViTImageProcessor

    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8, 16], depths=[1, 1, 1], layer_type="basic")
    config.architectures = ["ResNetForImageClassification"]
    config.save_pretrained(folder)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


def make_photos(folder: Path, *, bad: Iterable[int] = (), seed: int = 0) -> Path:
    """Write class folders of 10 x 10 pixels, easy to learn; the training images of ``bad`` are no images.

    The validation images lie in the wrong folders: what is learned makes their score worse, so that the best weights
    are never the last ones.
    """
    generator = np.random.default_rng(seed)
    signs = generator.normal(size=(len(CLASSES), 10, 10, 3))
    for split, count in COUNTS.items():
        for number in range(count):
            label = number % len(CLASSES)
            pixels = 128 + 50 * signs[label] + 30 * generator.normal(size=(10, 10, 3))
            folder_of = CLASSES[(label + 1) % len(CLASSES) if split == "validation" else label]
            path = folder / split / folder_of / f"{number:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
            if split == "train" and number in set(bad):
                path.write_bytes(b"no image")
    return folder


def make_small_photos(folder: Path, counts: tuple[int, int, int]) -> Path:
    """Write photos that already have the model's size: so many training images of each class, and three to validate."""
    generator = np.random.default_rng(5)
    for split, numbers in (("train", counts), ("validation", (3, 3, 3))):
        for name, count in zip(CLASSES, numbers, strict=True):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{number:03d}.png")
    return folder


def recipe(home: Path, **changes: object) -> Recipe:
    """Return a recipe of 11 steps with everything on that a resume could get wrong; ``a__b`` stands for a.b."""
    settings: dict[str, object] = {
        "data.dataset": str(home / "photos"),
        "data.workers": 0,
        "model.checkpoint": str(home / "checkpoint"),
        "model.drop_path": 0.3,
        "augment.mixup_alpha": 0.4,
        "augment.erase": 0.3,
        "optim.lr": 0.01,
        "optim.ema_decay": 0.8,
        "train.duration": "4 epochs",  # 160 images: 11 steps, the last one short
        "train.batch_size": 15,
        "train.micro_batch_size": 8,
        "train.evaluate_every": "2 steps",
        "train.checkpoint_every": "3 steps",
        "train.keep_after_end": 1,  # what a resumed run is compared by
        "train.seed": 1,
        "train.device": "cpu",
        "train.precision": "fp32",
        "run.output_dir": str(home / "runs"),
    }
    return Recipe.load(None, settings | {key.replace("__", "."): value for key, value in changes.items()})


# --- what a run left ---------------------------------------------------------------------------------------


def events(run: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl, without what a clock says."""
    lines = raw_events(run)
    return [
        {key: value for key, value in line.items() if key not in ("images_per_second", "seconds")}
        for line in lines
        if kind in (None, line["event"])
    ]


def raw_events(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in events(run, "step")]


def last_checkpoint(run: Path) -> Path:
    return sorted((run / "checkpoints").glob("step-*"))[-1]


def tensors(run: Path) -> dict[str, Tensor]:
    """Return every tensor that a finished run left: its model, and all of its last checkpoint."""
    files = [run / "model" / "model.safetensors", *sorted(last_checkpoint(run).glob("*.safetensors"))]
    return {f"{path.parent.name}/{path.name}/{key}": t for path in files for key, t in load_file(path).items()}


def assert_same_run(run: Path, expected: Path) -> None:
    """Assert that two runs took the same steps to the same end, bit for bit, and left nothing else."""
    ours, theirs = tensors(run), tensors(expected)
    assert ours.keys() == theirs.keys()
    different = [name for name, tensor in ours.items() if not torch.equal(tensor, theirs[name])]
    assert not different, different
    assert events(run) == events(expected)
    left = [str(path) for path in run.rglob(".*")]
    assert not left, left


# --- children ----------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """How a child ended: its exit code, or minus the signal that killed it, and what it printed."""

    code: int
    text: str
    seconds: float


def in_child(work: Callable[[], object], *, kill_after: float | None = None, timeout: float = 90) -> Outcome:
    """Do ``work`` in a forked child; with ``kill_after`` it gets SIGKILL after so many seconds."""
    reading, writing = os.pipe()
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        _work_and_exit(work, writing)
    os.close(writing)
    deadline, is_late, status, text = started + (kill_after or timeout), False, None, b""
    os.set_blocking(reading, False)
    while status is None:
        text += _read(reading)
        done, ended = os.waitpid(child, os.WNOHANG)
        status = ended if done else None
        if status is None and time.monotonic() > deadline and not is_late:
            os.kill(child, signal.SIGKILL)
            is_late = True
        time.sleep(0.001)
    text += _read(reading)
    os.close(reading)
    assert kill_after or not is_late, f"the child hung:\n{text.decode()}"
    code = os.waitstatus_to_exitcode(status)
    assert code != CRASHED, text.decode()
    return Outcome(code, text.decode(), time.monotonic() - started)


def _work_and_exit(work: Callable[[], object], writing: int) -> None:
    code = CRASHED
    gc.freeze()  # a collection would look at, and so copy, all that the parent has
    forkserver._forkserver.__init__()  # the parent's server, if it has one, does not serve its children
    try:
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        sys.stdout = sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)  # pytest's are elsewhere
        work()
        code = 0
    except VitftError as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        code = error.exit_code
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else CRASHED
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 20)
    except BlockingIOError:
        return b""


def resume(run: Path, prepare: Callable[[], object] = lambda: None, timeout: float = 90, **changes: object) -> Outcome:
    def work() -> None:
        from vitft import finetune

        prepare()
        finetune(resume=run, changes={key.replace("__", "."): value for key, value in changes.items()})

    return in_child(work, timeout=timeout)


def assert_killed(outcome: Outcome, run: Path) -> None:
    """Assert that a child was killed before its end."""
    assert outcome.code == -signal.SIGKILL, outcome.text
    assert not (run / "results.json").exists()


# --- what is injected --------------------------------------------------------------------------------------


def at_call(
    owner: Any,
    name: str,
    number: int,
    act: Callable[[], object],
    *,
    only: Callable[..., bool] = lambda *_, **__: True,
    after: bool = False,
) -> None:
    """Replace a function so that its ``number``-th call (of those that ``only`` names) does ``act`` first, or after."""
    original, calls = getattr(owner, name), 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += bool(only(*args, **kwargs))
        is_it = calls == number and only(*args, **kwargs)
        if is_it and not after:
            act()
        result = original(*args, **kwargs)
        if is_it and after:
            act()
        return result

    setattr(owner, name, wrapped)


def send(number: signal.Signals) -> Callable[[], None]:
    """Return what sends a signal to the own process."""
    return lambda: os.kill(os.getpid(), number)

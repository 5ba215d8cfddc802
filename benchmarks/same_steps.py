"""Is a step of 64 images the same, taken at once, accumulated, or on two processes? By family, beside Trainer.

    python benchmarks/same_steps.py [--families vit,beit,...] [--out same_steps.json]

A tiny random model of each family (those of the tests, without dropout) takes one step over the same 64 images as
1 x 64, as 4 x 16 accumulated, and as 2 processes x 32 (gloo, on the CPU). The numbers are the norm of the gradient and
the loss, divided by those of 1 x 64: 1.00 is right. Families with batch normalisation compute their statistics over
each part, so that theirs may differ a little.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image

BATCH, CLASSES = 64, ("ash", "birch", "cedar", "fir", "oak")
WAYS = {"1 x 64": (64, 1), "4 x 16": (16, 1), "2 processes x 32": (32, 2)}
"""Images at once, and processes."""
Numbers = dict[str, float]
sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "model"))


def make_home(home: Path, families: list[str]) -> None:
    """Write 64 photos to train on, a few to validate, and a checkpoint of each family."""
    import zoo

    for split, count in (("train", BATCH), ("validation", len(CLASSES))):
        for number in range(count):
            folder = home / "photos" / split / CLASSES[number % len(CLASSES)]
            folder.mkdir(parents=True, exist_ok=True)
            zoo.photo(64, 64, seed=1000 * len(split) + number).save(folder / f"{number:02d}.png")
    for family in families:
        settings = without_dropout(zoo.config(family, id2label=dict(enumerate(CLASSES))))
        zoo.save(zoo.classifier(settings), home / family, family, size=side_of(settings))


def side_of(settings: Any) -> int:
    """Return the model's own size in pixels, 64 if it has none."""
    size = getattr(getattr(settings, "vision_config", settings), "image_size", 64)
    return int(size if isinstance(size, int) else size[0])


def without_dropout(settings: Any) -> Any:
    """Set every rate of dropout and stochastic depth to 0, as each way draws them otherwise."""
    for part in (settings, getattr(settings, "vision_config", None)):
        for name, value in vars(part).items() if part is not None else ():
            if "drop" in name and isinstance(value, float | list):
                setattr(part, name, 0.0 if isinstance(value, float) else [0.0] * len(value))
    return settings


def vitft_step(home: Path, family: str, at_once: int, name: str) -> Numbers:
    """Take one step with vitft."""
    from vitft import Recipe, finetune

    recipe = Recipe.load(
        None,
        {
            "data.dataset": str(home / "photos"), "data.workers": 0, "data.fit": "squash",
            "model.checkpoint": str(home / family), "model.head": "keep", "model.drop_path": 0,
            "train.duration": "1 steps", "train.batch_size": BATCH, "train.micro_batch_size": at_once,
            "train.precision": "fp32", "train.device": "cpu", "train.evaluate_every": "1 steps",
            "augment.crop_scale": [1, 1], "augment.crop_ratio": [1, 1], "augment.flip": 0, "augment.erase": 0,
            "augment.mixup_alpha": 0, "augment.cutmix_alpha": 0, "augment.label_smoothing": 0,
            "optim.max_grad_norm": None, "optim.ema_decay": 0, "run.output_dir": str(home / "runs"),
            "run.name": name, "run.pictures": "off",
        },
    )  # fmt: skip
    finetune(recipe)
    lines = (home / "runs" / name / "metrics.jsonl").read_text().splitlines()
    step = next(event for event in map(json.loads, lines) if event["event"] == "step")
    return {"norm": step["grad_norm"], "loss": step["loss"]}


def trainer_step(home: Path, family: str, at_once: int, processes: int) -> Numbers:
    """Take one step with Trainer as it is by default."""
    from transformers import AutoImageProcessor, AutoModelForImageClassification, Trainer, TrainingArguments

    processor = AutoImageProcessor.from_pretrained(home / family, use_fast=False)
    files = sorted((home / "photos" / "train").rglob("*.png"))
    rows = [
        {
            "pixel_values": torch.as_tensor(
                np.asarray(processor(Image.open(file), return_tensors="np")["pixel_values"][0])
            ),
            "labels": CLASSES.index(file.parent.name),
        }
        for file in files
    ]
    arguments = TrainingArguments(
        output_dir=str(home / "trainer"), max_steps=1, per_device_train_batch_size=at_once,
        gradient_accumulation_steps=BATCH // at_once // processes, logging_steps=1, max_grad_norm=1e9,
        save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True, learning_rate=1e-4,
        ddp_backend="gloo" if processes > 1 else None,
    )  # fmt: skip
    trainer = Trainer(AutoModelForImageClassification.from_pretrained(home / family), arguments, train_dataset=rows)
    trainer.train()
    first = trainer.state.log_history[0]
    return {"norm": float(first["grad_norm"]), "loss": float(first["loss"])}


def take_steps(home: Path, families: list[str], ways: Mapping[str, tuple[int, int]], out: Path) -> None:
    """Take every step of some ways; write the numbers, or why there are none."""
    found: dict[str, dict[str, dict[str, Numbers | str]]] = {}
    for family in families:
        for way, (at_once, processes) in ways.items():
            for who in ("vitft", "Trainer"):
                try:
                    if who == "vitft":
                        step: Numbers | str = vitft_step(home, family, at_once, f"{family}-{at_once}-{processes}")
                    else:
                        step = trainer_step(home, family, at_once, processes)
                except Exception as error:  # whatever it is stands in the table
                    step = f"{type(error).__name__}: {error}"[:200]
                found.setdefault(family, {}).setdefault(way, {})[who] = step
                _forget_processes(processes)
    if os.environ.get("RANK", "0") == "0":
        out.write_text(json.dumps(found))


def _forget_processes(processes: int) -> None:
    """Let the next run make its own accelerator."""
    from accelerate.state import AcceleratorState, GradientState

    if processes > 1:
        torch.distributed.barrier()
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def ratio(steps: Mapping[str, Any], way: str, who: str, number: str) -> str:
    """Return a number of a way divided by that of one pass."""
    here, whole = steps.get(way, {}).get(who), steps["1 x 64"][who]
    if not isinstance(here, dict) or not isinstance(whole, dict):
        return "-"
    return f"{here[number] / whole[number]:.2f}"


def main() -> None:
    """Take all steps and print a table of ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker", nargs=2, type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.families:
        families = given.families.split(",")
    else:
        import zoo

        families = list(zoo.CONFIGS)
    if given.worker:
        from accelerate import Accelerator

        # The next run meets the same processes: once parted, they could not under one launcher.
        Accelerator.end_training = lambda _: None
        take_steps(given.worker[0], families, {"2 processes x 32": WAYS["2 processes x 32"]}, given.worker[1])
        return
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        make_home(home, families)
        one, two = home / "one.json", home / "two.json"
        take_steps(home, families, {way: how for way, how in WAYS.items() if how[1] == 1}, one)
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=29611"]
        worker = [__file__, "--families", ",".join(families), "--worker", str(home), str(two)]
        subprocess.run([*launcher, *worker], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        found = json.loads(one.read_text())
        for family, ways in json.loads(two.read_text()).items():
            found[family] |= ways
    print(
        f"transformers {transformers.__version__}, torch {torch.__version__}; norm of the gradient (loss) over 1 x 64's"
    )
    print("| family | vitft 4 x 16 | vitft 2 processes | Trainer 4 x 16 | Trainer 2 processes |\n|---|---|---|---|---|")
    for family, steps in found.items():
        cells = [
            f"{ratio(steps, way, who, 'norm')} ({ratio(steps, way, who, 'loss')})"
            for who in ("vitft", "Trainer")
            for way in list(WAYS)[1:]
        ]
        print(f"| {family} | {' | '.join(cells)} |")
        for way, each in steps.items():
            for who, said in each.items():
                if isinstance(said, str):
                    print(f"{family}, {way}, {who}: {said}", file=sys.stderr)
    if given.out:
        given.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

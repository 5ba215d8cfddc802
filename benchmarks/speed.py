"""Training speed in turn with transformers' Trainer doing the same work, or with the bare step, in one run.

    python benchmarks/speed.py --case tiny --model PATH-OF-VIT-TINY --images FOLDER-OF-CLASS-FOLDERS
    python benchmarks/speed.py --case bare --model PATH-OF-VIT-TINY --images FOLDER-OF-CLASS-FOLDERS
    python benchmarks/speed.py --case head --model PATH-OF-VIT-TINY --images FOLDER-OF-CLASS-FOLDERS
    python benchmarks/speed.py --case micro --cifar100 FOLDER
        [--rounds 5] [--steps 12] [--epochs 10] [--photos N] [--out results.json]

tiny   all weights at 224 px, batch 16, AdamW, crop and flip, against Trainer with 0 and with 2 loader workers
bare   the same, against forward, backward and optimizer of the same model on one batch that is never read again
head   ``--train head`` for --epochs passes, against Trainer with a frozen backbone; features are counted as training
micro  builtin:vit-micro at 32 px, batch 64, on CIFAR-100 images, against Trainer with 0 and with 2 loader workers

Each measurement has a process of its own, so that none warms another's memory. vitft's figure is that of its training
loop from the second step on (for the head, of all that it does to train), Trainer's that of ``train()``. The figure to
quote is the median over the rounds of the ratio to the fastest of the others.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accuracy import subset
from datasets import Dataset, load_dataset
from peer import train_with_trainer

from vitft import Recipe, finetune
from vitft.builtin import checkpoint_path

LR = 1e-4


class Case(NamedTuple):
    """What is measured.

    Attributes:
        data: a folder that both read.
        model: the checkpoint.
        batch_size: images per step.
        length: steps or epochs, as a recipe says it.
        trains_head: whether the backbone is frozen.
        workers: those of the peer's loader; empty to compare with the bare step.
    """

    data: str
    model: str
    batch_size: int
    length: str
    trains_head: bool = False
    workers: tuple[int, ...] = (0, 2)


def vitft_speed(case: Case, seed: int) -> float:
    """Return the images per second of vitft."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = Recipe.load(
            None,
            {
                "data.dataset": case.data, "data.validation_fraction": 0.02, "model.checkpoint": case.model,
                "model.train": "head" if case.trains_head else "all", "train.duration": case.length, "train.seed": seed,
                "train.batch_size": case.batch_size, "train.evaluate_every": "100%", "train.checkpoint_every": "100%",
                "optim.lr": LR, "run.output_dir": folder, "run.pictures": "off",
            },
        )  # fmt: skip
        found = finetune(recipe).results["train"]
    if case.trains_head:
        return float(found["steps"] * case.batch_size / found["seconds"])
    return float(found["images_per_second"])


def trainer_speed(case: Case, seed: int, workers: int) -> float:
    """Return the images per second of Trainer."""
    number, unit = case.length.split()
    with tempfile.TemporaryDirectory() as folder:
        found = train_with_trainer(
            {"train": _rows(case.data)}, case.model, Path(folder), epochs=float(number), batch_size=case.batch_size,
            lr=LR, seed=seed, workers=workers, max_steps=int(number) if unit == "steps" else -1, score=False,
            frozen=case.trains_head,
        )  # fmt: skip
    return found["images_per_second"]


def bare_speed(case: Case, seed: int) -> float:
    """Return the images per second of forward, backward and optimizer of the model that vitft trains."""
    from transformers import AutoModelForImageClassification

    from vitft.architectures.last_block import shorten_last_block

    torch.manual_seed(seed)
    model = AutoModelForImageClassification.from_pretrained(case.model).train()
    shorten_last_block(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.05, fused=True)
    size = model.config.image_size
    pixel_values = torch.randn(case.batch_size, 3, size, size)
    labels = torch.randint(0, model.config.num_labels, (case.batch_size,))
    num_steps = int(case.length.split()[0])
    for step in range(num_steps):
        if step == 1:  # the first one warms up, as vitft's
            begun = time.perf_counter()
        torch.nn.functional.cross_entropy(model(pixel_values).logits, labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    return (num_steps - 1) * case.batch_size / (time.perf_counter() - begun)


def _rows(data: str) -> Dataset:
    if (Path(data) / "dataset_dict.json").exists():
        return Dataset.load_from_disk(str(Path(data) / "train"))
    return load_dataset("imagefolder", data_dir=data, split="train")


def in_a_process_of_its_own(measure: Callable[..., float], *arguments: Any) -> float:
    """Return the speed that a fresh process measures."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
        return fresh.submit(measure, *arguments).result()


def one_round(case: Case, seed: int) -> dict[str, float]:
    """Return the images per second of vitft and of the others, measured in turn."""
    others: dict[str, tuple[Callable[..., float], tuple[Any, ...]]] = {
        f"Trainer, {workers} workers": (trainer_speed, (case, seed, workers)) for workers in case.workers
    } or {"bare step": (bare_speed, (case, seed))}
    measured = {"vitft": in_a_process_of_its_own(vitft_speed, case, seed)}
    return measured | {name: in_a_process_of_its_own(measure, *given) for name, (measure, given) in others.items()}


def case_of(given: argparse.Namespace, folder: Path) -> Case:
    """Return the case of the command line; what it reads is prepared in ``folder``."""
    steps, epochs = f"{given.steps} steps", f"{given.epochs} epochs"
    if given.case == "micro":
        rows = subset(given.cifar100, per_class=10)
        rows.pop("test")
    elif given.photos:
        rows = load_dataset("imagefolder", data_dir=given.images)
        rows["train"] = rows["train"].shuffle(seed=0).select(range(given.photos))
    else:
        rows = None
    data = given.images if rows is None else str(folder / "data")
    if rows is not None:
        rows.save_to_disk(data)
    return {
        "tiny": Case(data, given.model, 16, steps),
        "bare": Case(data, given.model, 16, steps, workers=()),
        "head": Case(data, given.model, 16, epochs, trains_head=True),
        "micro": Case(data, str(checkpoint_path()), 64, steps),
    }[given.case]


def main() -> None:
    """Measure in turn and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=("tiny", "bare", "head", "micro"), default="tiny")
    parser.add_argument("--model")
    parser.add_argument("--images")
    parser.add_argument("--cifar100")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--photos", type=int, help="take so many of the images")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if not (given.cifar100 if given.case == "micro" else given.model and given.images):
        parser.error("--case micro needs --cifar100, the others --model and --images")
    rounds: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as temporary:
        case = case_of(given, Path(temporary))
        for number in range(given.rounds):
            measured = one_round(case, number)
            ratio = measured["vitft"] / max(speed for name, speed in measured.items() if name != "vitft")
            rounds.append(measured | {"ratio": ratio})
            told = ", ".join(f"{name} {speed:.2f} images/s" for name, speed in measured.items())
            print(f"round {number}: {told}; ratio {ratio:.3f}", flush=True)
            if given.out:
                given.out.write_text(json.dumps({"case": given.case, "rounds": rounds}, indent=1))
    median = statistics.median(each["ratio"] for each in rounds)
    print(f"{given.case}: median ratio {median:.3f} on {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()

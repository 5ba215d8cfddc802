"""Seconds until transformers' Trainer's own final test accuracy is reached: Trainer, and vitft by a recipe of its own.

    python benchmarks/time_to_accuracy.py --model PATH-OF-VIT-TINY (--flowers FOLDER | --cifar100 PATH --per-class 10)
        --recipe model.train=head --recipe train.duration='30 epochs' [--seeds 3] [--first-seed 0] [--epochs 3]
        [--zero-head]

Trainer runs with the defaults of transformers' example (AdamW, lr 5e-5, linear, batch 8, a random crop and a flip, its
random head or with --zero-head one of zeros); its clock stops while it is scored after each epoch. vitft's time is that
of the whole command, from opening the data to the written page, so it is counted against vitft.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from accuracy import subset
from datasets import load_dataset
from peer import trainer_curve

from vitft import Recipe, finetune


def vitft_run(data: str, model: str, folder: Path, seed: int, settings: dict[str, object]) -> dict[str, float]:
    """Fine-tune with vitft; return test top-1 and the seconds of everything."""
    begun = time.perf_counter()
    recipe = Recipe.load(
        None,
        {"data.dataset": data, "model.checkpoint": model, "train.seed": seed, "run.output_dir": str(folder),
         "data.cache": "memory", "run.pictures": "off", **settings},
    )  # fmt: skip
    top1 = finetune(recipe).results["test"]["top1"]
    return {"top1": top1, "seconds": time.perf_counter() - begun}


def main() -> None:
    """Run both for each seed and print the seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--flowers", help="a folder with train and test of class folders")
    parser.add_argument("--cifar100", help="a folder with data/*.parquet")
    parser.add_argument("--per-class", type=int, default=10)
    parser.add_argument("--recipe", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--zero-head", action="store_true")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    settings: dict[str, Any] = dict(each.split("=", 1) for each in given.recipe)
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if given.flowers:
            splits, data = load_dataset("imagefolder", data_dir=given.flowers), given.flowers
        else:
            splits, data = subset(given.cifar100, given.per_class), str(folder / "data")
            splits.save_to_disk(data)
        for seed in range(given.first_seed, given.first_seed + given.seeds):
            ours = vitft_run(data, given.model, folder / "runs", seed, settings)
            curve = trainer_curve(
                splits, given.model, folder / "trainer", epochs=given.epochs, seed=seed, zero_head=given.zero_head
            )
            found.append({"seed": seed, "vitft": ours, "trainer": curve})
            told = ", ".join(f"{100 * each['top1']:.2f} % after {each['seconds']:.0f} s" for each in curve)
            share = ours["seconds"] / curve[-1]["seconds"]
            print(
                f"seed {seed}: Trainer {told}; vitft {100 * ours['top1']:.2f} % after {ours['seconds']:.0f} s, "
                f"{share:.2f} of Trainer's time",
                flush=True,
            )
            if given.out:
                given.out.write_text(json.dumps({"settings": settings, "runs": found}, indent=1))
    shares = [each["vitft"]["seconds"] / each["trainer"][-1]["seconds"] for each in found]
    reached = sum(each["vitft"]["top1"] >= each["trainer"][-1]["top1"] for each in found)
    print(f"median share of Trainer's time {statistics.median(shares):.2f}; its accuracy reached in {reached} runs")


if __name__ == "__main__":
    main()

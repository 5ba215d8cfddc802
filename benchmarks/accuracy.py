"""Accuracy against transformers' Trainer: CIFAR-100, 10 images per class, 3 epochs, 3 seeds.

    python benchmarks/accuracy.py --cifar100 PATH --model PATH-OF-VIT-TINY [--seeds 3] [--out results.json]

Four rows: Trainer as it is, with the random head that transformers gives; Trainer with a zero head; vitft with the very
same settings as that (AdamW, cosine, crop and flip, steps); vitft's defaults at the same number of epochs. The test set
is 10 images per class of the test split.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import numpy as np
from datasets import DatasetDict, Image, load_dataset
from peer import train_with_trainer

from vitft import Recipe, finetune

PER_CLASS, EPOCHS, BATCH, LR = 10, 3, 32, 1e-4


def subset(path: str, per_class: int = PER_CLASS) -> DatasetDict:
    """Take the first images per class of train, one more of each as validation, and 10 per class of test."""
    source = load_dataset(
        "parquet", data_files={s: str(Path(path) / "data" / f"{s}-*.parquet") for s in ("train", "test")}
    )
    parts = {}
    for name, split, start, stop in (
        ("train", "train", 0, per_class),
        ("validation", "train", per_class, per_class + 1),
        ("test", "test", 0, PER_CLASS),
    ):
        labels = np.asarray(source[split]["fine_label"])
        rows = sorted(r for k in range(100) for r in np.flatnonzero(labels == k)[start:stop].tolist())
        chosen = source[split].select(rows).select_columns(["img", "fine_label"])
        parts[name] = chosen.rename_columns({"img": "image", "fine_label": "label"}).cast_column("image", Image())
    return DatasetDict(parts)


def vitft_run(data: Path, model: str, folder: Path, seed: int, **changes: object) -> float:
    """Fine-tune with vitft; return test top-1."""
    recipe = Recipe.load(
        None,
        {"data.dataset": str(data), "model.checkpoint": model, "train.duration": f"{EPOCHS} epochs", "train.seed": seed,
         "train.evaluate_every": "100%", "run.output_dir": str(folder), **changes},
    )  # fmt: skip
    return float(finetune(recipe).results["test"]["top1"])


def main() -> None:
    """Run all rows and print mean and standard deviation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar100", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--rows", default="trainer,trainer-zero,equal,default")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    equal = {
        "train.batch_size": BATCH, "optim.lr": LR, "optim.layer_decay": 1.0, "optim.ema_decay": 0.0,
        "augment.label_smoothing": 0.0, "train.weights": "last",
    }  # fmt: skip
    scores: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        splits = subset(given.cifar100)
        splits.save_to_disk(str(folder / "data"))
        for seed in range(given.first_seed, given.first_seed + given.seeds):
            for row in given.rows.split(","):
                if row.startswith("trainer"):
                    result = train_with_trainer(
                        splits,
                        given.model,
                        folder / "trainer",
                        epochs=EPOCHS,
                        batch_size=BATCH,
                        lr=LR,
                        seed=seed,
                        workers=1,
                        zero_head=row == "trainer-zero",
                    )["top1"]
                else:
                    changes = equal if row == "equal" else {}
                    result = vitft_run(folder / "data", given.model, folder / "runs", seed, **changes)
                scores.setdefault(row, []).append(result)
                print(f"seed {seed} {row}: {result:.4f}", flush=True)
                if given.out:
                    given.out.write_text(json.dumps(scores))
    for row, values in scores.items():
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"{row:<10} top-1 {100 * statistics.mean(values):.2f} +- {100 * spread:.2f} % over {len(values)} seeds")


if __name__ == "__main__":
    main()

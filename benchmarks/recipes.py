"""Which settings are the best all-round choice: test accuracy of each on several small datasets, several seeds.

    python benchmarks/recipes.py --model PATH-OF-VIT-TINY --out results.jsonl [--flowers FOLDER] [--cifar100 PATH]
        [--settings 'default;probe;...'] [--seeds 3] [--set KEY=VALUE]

Each run is a line of the file, so a run that is stopped goes on where it was. The table at the end has the mean and the
spread over seeds of the test accuracy, and the median of the seconds; seconds compare only within a quiet session.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from accuracy import subset

from vitft import Recipe, finetune

SHORT = {"train.duration": "10 epochs", "train.batch_size": "auto", "optim.warmup": "10%"}
"""For recipes that were published for large datasets."""

SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "lr 1.5e-4": {"optim.lr": 1.5e-4},
    "lr 5e-4": {"optim.lr": 5e-4},
    "lr 1.5e-3": {"optim.lr": 1.5e-3},
    "no layer decay": {"optim.layer_decay": 1.0, "optim.lr": 1e-4},
    "crop from 8 %": {"augment.crop_scale": [0.08, 1.0]},
    "crop from 80 %": {"augment.crop_scale": [0.8, 1.0]},
    "no smoothing": {"augment.label_smoothing": 0.0},
    "mixup and CutMix": {"augment.mixup_alpha": 0.8, "augment.cutmix_alpha": 1.0, "augment.mix_probability": 0.5},
    "no averages": {"optim.ema_decay": 0.0},
    "drop path 0.1": {"model.drop_path": 0.1},
    "sgd": {"optim.name": "sgd", "optim.lr": 0.01, "optim.layer_decay": 1.0, "optim.weight_decay": 0.0,
            "augment.label_smoothing": 0.0, "optim.ema_decay": 0.0},
    "last:4": {"model.train": "last:4"},
    "attention": {"model.train": "attention"},
    "norms and biases": {"model.train": "norms-and-biases", "optim.lr": 3e-3, "optim.layer_decay": 1.0},
    "lp-ft, lr 1e-4": {"train.head_first": True, "optim.lr": 1e-4},
    "3-augment": {"augment.policy": "3-augment", "augment.color_jitter": 0.3},
    "RandAugment": {"augment.policy": "randaugment"},
    "TrivialAugment": {"augment.policy": "trivialaugment"},
    "probe": {"model.train": "head", "train.duration": "100 epochs", "optim.lr": 3e-3},
    "recipe lp-ft": {"recipe": "lp-ft"},
    "recipe lora": {"recipe": "lora"},
    "recipe vit-paper": {"recipe": "vit-paper", **SHORT},
    "recipe augreg-ft": {"recipe": "augreg-ft", **SHORT, "optim.lr": 1e-2},
    "recipe deit3-ft": {"recipe": "deit3-ft", **SHORT},
    "recipe beit-ft": {"recipe": "beit-ft", **SHORT, "optim.lr": 2e-4},
    "recipe clip-ft": {"recipe": "clip-ft", **SHORT, "optim.ema_decay": 0.98},
    "recipe small-data": {"recipe": "small-data"},
    "recipe from-scratch-small": {"recipe": "from-scratch-small", "model.checkpoint": "builtin:vit-micro"},
    "default from scratch": {"model.checkpoint": "builtin:vit-micro", "model.init": "random"},
}  # fmt: skip


def datasets(given: argparse.Namespace, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name of each dataset with the keys that it needs; small ones first."""
    yield "500 digits", {
        "data.dataset": "builtin:digits", "data.max_train_samples": 500, "model.image_size": 64, "augment.flip": 0.0
    }  # fmt: skip
    if given.flowers:
        yield "12 flowers x 10 at 112 px", {
            "data.dataset": given.flowers, "data.max_train_samples": 120, "model.image_size": 112
        }  # fmt: skip
    for per_class, epochs in ((10, 10), (100, 3)) if given.cifar100 else ():
        place = folder / f"cifar{per_class}"
        subset(given.cifar100, per_class).save_to_disk(str(place))
        yield f"CIFAR-100 x {per_class} at 64 px", {
            "data.dataset": str(place), "model.image_size": 64, "train.duration": f"{epochs} epochs"
        }  # fmt: skip


def run(recipe: dict[str, Any], folder: Path) -> dict[str, float]:
    """Fine-tune; return test top-1, its mean over classes, and the seconds of everything."""
    begun = time.perf_counter()
    common = {"run.output_dir": str(folder), "run.pictures": "off", "data.cache": "memory", "train.weights": "last",
              "train.evaluate_every": "100%", "train.checkpoint_every": "100%"}  # fmt: skip
    changes = {**common, **recipe}
    result = finetune(Recipe.load(changes.pop("recipe", None), changes))
    return {"top1": result.results["test"]["top1"], "seconds": time.perf_counter() - begun}


def table(lines: list[dict[str, Any]]) -> str:
    """Return mean +- standard deviation of the accuracy, and median seconds, by setting and dataset."""
    names = list(dict.fromkeys(line["dataset"] for line in lines))
    rows = [f"| setting | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for setting in dict.fromkeys(line["setting"] for line in lines):
        cells = []
        for name in names:
            found = [line for line in lines if line["setting"] == setting and line["dataset"] == name]
            top1 = [100 * line["top1"] for line in found]
            spread = f" +- {statistics.stdev(top1):.2f}" if len(top1) > 1 else ""
            seconds = statistics.median(line["seconds"] for line in found) if found else 0
            cells.append(f"{statistics.mean(top1):.2f}{spread} ({seconds:.0f} s)" if found else "-")
        rows.append(f"| {setting} | {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    """Run what the file does not have yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--flowers", help="a folder with train and test of class folders")
    parser.add_argument("--cifar100", help="a folder with data/*.parquet")
    parser.add_argument("--settings", default=";".join(SETTINGS))
    parser.add_argument("--datasets", default="", help="parts of the names of datasets, joined by commas")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="for every run; can be repeated"
    )
    given = parser.parse_args()
    everywhere = {"model.checkpoint": given.model, **dict(each.split("=", 1) for each in given.set)}
    wanted = given.datasets.split(",")
    lines = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out.exists() else []
    done = {(line["setting"], line["dataset"], line["seed"]) for line in lines}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        chosen = [(name, keys) for name, keys in datasets(given, folder) if any(part in name for part in wanted)]
        for seed in range(given.seeds):
            for name, keys in chosen:
                for setting in given.settings.split(";"):
                    if (setting, name, seed) in done:
                        continue
                    changes = {**keys, **everywhere, **SETTINGS[setting], "train.seed": seed}
                    lines.append({"setting": setting, "dataset": name, "seed": seed, **run(changes, folder / "runs")})
                    with given.out.open("a") as file:
                        file.write(json.dumps(lines[-1]) + "\n")
    print(table(lines))


if __name__ == "__main__":
    main()

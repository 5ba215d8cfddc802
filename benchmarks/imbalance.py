"""Mean per-class test accuracy of each setting for skewed classes, on photos whose classes were made skewed.

    python benchmarks/imbalance.py --model PATH-OF-VIT-TINY --flowers FOLDER [--ratio 50] [--seeds 3] [--out FILE.json]
        [--train head | all] [--epochs N] [--settings none,weights,...] [--recipe KEY=VALUE]

The classes keep their first images by an exponential profile: from all of the largest to 1 / ratio of it for the
smallest, at least 2, as validation needs one. Which class is rare changes with the seed, so that no flower is
easy or hard in all runs; in a run all settings see the same images. Test images stay balanced. With `--train head` the
features come from the cache after the first run of a seed, which makes a run take seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, get_args

from vitft import Recipe, finetune
from vitft.recipe.choices import Imbalance

SCORES = ("mean_per_class_accuracy", "macro_f1", "nll")
COMMON: dict[str, object] = {
    "train.batch_size": 32, "train.weights": "last", "train.evaluate_every": "100%", "train.checkpoint_every": "100%",
    "run.pictures": "off",
}  # fmt: skip
DEFAULTS: dict[str, dict[str, object]] = {
    "head": {"model.train": "head", "train.duration": "30 epochs", "optim.lr": 5e-3},
    "all": {"model.train": "all", "train.duration": "6 epochs"},
}


def skewed(flowers: Path, folder: Path, ratio: float, seed: int) -> tuple[Path, list[int]]:
    """Link a skewed part of the training photos and all test photos; return the folder and the images per class."""
    names = sorted(path.name for path in (flowers / "train").iterdir())
    random.Random(seed).shuffle(names)
    data, counts = folder / f"skewed-{seed}", []
    for rank, name in enumerate(names):
        photos = sorted((flowers / "train" / name).iterdir())
        count = max(2, round(len(photos) * ratio ** (-rank / (len(names) - 1))))
        counts.append(count)
        for split, chosen in (("train", photos[:count]), ("test", sorted((flowers / "test" / name).iterdir()))):
            (data / split / name).mkdir(parents=True)
            for photo in chosen:
                (data / split / name / photo.name).symlink_to(photo.resolve())
    return data, counts


def score(data: Path, folder: Path, given: argparse.Namespace, setting: str, seed: int) -> dict[str, float]:
    """Train with one setting; return its test scores, the accuracy on the rarest third, and the seconds."""
    changes: dict[str, Any] = {
        "data.dataset": str(data), "model.checkpoint": given.model, "train.seed": seed, "run.output_dir": str(folder),
        "train.imbalance": setting, **COMMON, **DEFAULTS[given.train],
    }  # fmt: skip
    if given.epochs:
        changes["train.duration"] = f"{given.epochs} epochs"
    changes |= dict(each.split("=", 1) for each in given.recipe)
    begun = time.perf_counter()
    results = finetune(Recipe.load(None, changes)).results
    test = results["test"]
    train = {name: len(list((data / "train" / name).iterdir())) for name in results["classes"]}
    per_class = test["per_class"]
    correct = dict(zip(per_class["class"], zip(per_class["correct"], per_class["support"], strict=True), strict=True))
    rare = sorted(train, key=lambda name: train[name])[: len(train) // 3]
    found = {name: float(test[name]) for name in SCORES}
    found["rarest_third"] = statistics.fmean(correct[name][0] / correct[name][1] for name in rare)
    return {**found, "seconds": time.perf_counter() - begun}


def main() -> None:
    """Run every setting for each seed and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--flowers", type=Path, required=True, help="a folder with train and test of class folders")
    parser.add_argument("--ratio", type=float, default=50.0)
    parser.add_argument("--train", choices=[*DEFAULTS], default="head")
    parser.add_argument("--epochs", type=float)
    parser.add_argument("--settings", default=",".join(get_args(Imbalance)))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--recipe", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    settings = given.settings.split(",")
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["VITFT_CACHE"] = str(folder / "cache")
        for seed in range(given.seeds):
            data, counts = skewed(given.flowers, folder, given.ratio, seed)
            for setting in settings:
                scores = score(data, folder / "runs", given, setting, seed)
                found.append({"seed": seed, "setting": setting, "images": counts, **scores})
                print(f"seed {seed}  {setting:16}  {_told(scores)}  {scores['seconds']:.0f} s", flush=True)
                if given.out:
                    options = {key: str(value) for key, value in vars(given).items()}
                    given.out.write_text(json.dumps({"options": options, "runs": found}, indent=1))
    print(f"\n{'setting':16}  mean per-class accuracy  rarest third      macro F1          NLL")
    for setting in settings:
        runs = [run for run in found if run["setting"] == setting]
        cells = [_spread([run[key] for run in runs], 100) for key in ("mean_per_class_accuracy", "rarest_third")]
        cells += [_spread([run["macro_f1"] for run in runs], 100), _spread([run["nll"] for run in runs], 1)]
        print(f"{setting:16}  {cells[0]:23}  {cells[1]:16}  {cells[2]:16}  {cells[3]}")


def _told(scores: dict[str, float]) -> str:
    mean, rare = scores["mean_per_class_accuracy"], scores["rarest_third"]
    return f"mean per class {100 * mean:.2f} %, rarest third {100 * rare:.2f} %, NLL {scores['nll']:.3f}"


def _spread(values: list[float], factor: float) -> str:
    spread = f" +- {factor * statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{factor * statistics.fmean(values):.2f}{spread}{' %' if factor == 100 else ''}"


if __name__ == "__main__":
    main()

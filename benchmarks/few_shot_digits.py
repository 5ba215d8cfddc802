"""What the pretraining of builtin:vit-micro is worth: digits, 10 images per class, against random weights.

python benchmarks/few_shot_digits.py [--seeds 3]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile

from vitft import Recipe, finetune


def main() -> None:
    """Run the quickstart on 100 images from both starts and print test top-1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", action="append", help="only this start; repeatable")
    given = parser.parse_args()
    seeds = given.seeds
    means = {}
    with tempfile.TemporaryDirectory() as folder:
        for start, more in (("pretrained", {}), ("random", {}), ("random, lr 5e-4", {"optim.lr": 5e-4})):
            if given.rows and start not in given.rows:
                continue
            scores = []
            for seed in range(seeds):
                changes = {
                    "model.init": start.split(",")[0], "data.max_train_samples": 100, "train.seed": seed,
                    "train.batch_size": 20, "train.duration": "30 epochs", "train.evaluate_every": "100%",
                    "run.output_dir": folder,
                } | more  # fmt: skip
                scores.append(float(finetune(Recipe.load("quickstart", changes)).results["test"]["top1"]))
            means[start] = statistics.mean(scores)
            spread = statistics.stdev(scores) if seeds > 1 else 0.0
            print(
                f"{start:<16} test top-1 {100 * means[start]:.2f} +- {100 * spread:.2f} % over {seeds} seeds",
                flush=True,
            )
    for start in means.keys() - {"pretrained"} if "pretrained" in means else ():
        print(f"gain over {start}: {100 * (means['pretrained'] - means[start]):.2f} points")


if __name__ == "__main__":
    main()

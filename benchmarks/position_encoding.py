"""Position encodings compared by the recipe study-position-encoding: each kind from random weights, 3 seeds.

    python benchmarks/position_encoding.py --cifar100 PATH [--kinds none learned-1d ...] [--seeds 3] [--out FOLDER]

Prints top-1 on the test split for each kind: mean, standard deviation over seeds, and the distance to the mean of the
other kinds that encode positions, with its standard error, from the differences seed by seed. Runs that stand in FOLDER
already are not repeated.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from vitft import Recipe, finetune

KINDS = ("none", "learned-1d", "learned-2d", "sincos-2d", "relative")


def top1(given: argparse.Namespace, kind: str, seed: int) -> float:
    """Train one model, if it is not there yet; return its test top-1."""
    results = given.out / f"{kind}-{seed}/results.json"
    if not results.is_file():
        changes = {
            "data.dataset": given.cifar100, "model.position.kind": kind, "train.seed": seed,
            "run.name": f"{kind}-{seed}", "run.output_dir": str(given.out),
            **dict(each.split("=", 1) for each in given.set),
        }  # fmt: skip
        finetune(Recipe.load("study-position-encoding", changes))
    return float(json.loads(results.read_text())["test"]["top1"])


def main() -> None:
    """Run every kind for each seed in turn; print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar100", required=True, help="folder, or the dataset's name on the Hub")
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="over the recipe's values")
    parser.add_argument("--out", type=Path, default=Path("position-encoding"))
    given = parser.parse_args()
    found: dict[str, list[float]] = {kind: [] for kind in given.kinds}
    for seed in range(given.seeds):
        for kind, scores in found.items():
            scores.append(100 * top1(given, kind, seed))
            print(f"seed {seed} {kind}: {scores[-1]:.2f} %", flush=True)
    for kind, scores in found.items():
        others = [kept for other, kept in found.items() if other not in (kind, "none")]
        gaps = (
            [score - statistics.mean(rest) for score, *rest in zip(scores, *others, strict=True)] if others else [0.0]
        )
        line = f"{kind:<12} {statistics.mean(scores):6.2f} +- {_spread(scores):.2f} %"
        print(f"{line}   {statistics.mean(gaps):+.2f} +- {_spread(gaps) / len(gaps) ** 0.5:.2f} against the others")


def _spread(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


if __name__ == "__main__":
    main()

"""Does the probe rank checkpoints as full fine-tuning does? Spearman's rank correlation on small datasets.

    python benchmarks/probe_ranks.py --model FOLDER [--model builtin:vit-micro ...] --out results.jsonl
        [--flowers FOLDER] [--cifar100 PATH] [--set KEY=VALUE]

Each model is taken as it is, with the upper half of its blocks drawn anew, and with all weights drawn anew: checkpoints
that are good, spoilt and useless. ``probe`` ranks them by logistic regression on validation images; ``default``
fine-tunes them, and test accuracy ranks them. Each is a line of the file, so that a stopped measurement goes on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from scipy.stats import spearmanr
from transformers import AutoImageProcessor, AutoModelForImageClassification

from recipes import datasets, run
from vitft import Recipe, probe
from vitft.architectures.blocks import blocks
from vitft.builtin import checkpoint_path


def checkpoints(given: list[str], folder: Path) -> Iterator[tuple[str, str]]:
    """Yield name and folder of each checkpoint."""
    for path in given:
        here = str(checkpoint_path()) if path == "builtin:vit-micro" else path
        name = path.rpartition("/")[2]
        yield name, path
        for part in ("upper half", "all"):
            torch.manual_seed(0)
            model = AutoModelForImageClassification.from_pretrained(here)
            fresh = AutoModelForImageClassification.from_config(model.config)
            if part == "all":
                model = fresh
            else:
                layers = [each for each, _ in blocks(model)]
                for each in layers[len(layers) // 2 :]:
                    model.get_submodule(each).load_state_dict(fresh.get_submodule(each).state_dict())
            place = folder / f"{name} {part}"
            model.save_pretrained(place)
            AutoImageProcessor.from_pretrained(here).save_pretrained(place)
            yield f"{name}, {part} drawn anew", str(place)


def measure(path: str, keys: dict[str, Any], folder: Path) -> dict[str, float]:
    """Return the probe's validation accuracy of a checkpoint, and test accuracy after fine-tuning."""
    own = {key: value for key, value in keys.items() if key != "model.image_size"}  # each at its own size
    found = probe([path], Recipe.load(None, own).data, shots=[1])
    return {"probe": found.best.scores.validation.top1, "top1": run({**own, "model.checkpoint": path}, folder)["top1"]}


def table(lines: list[dict[str, Any]]) -> str:
    """Return both scores of each checkpoint by dataset, and the rank correlations."""
    names = list(dict.fromkeys(line["dataset"] for line in lines))
    rows = [f"| checkpoint | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for checkpoint in dict.fromkeys(line["checkpoint"] for line in lines):
        own = {line["dataset"]: line for line in lines if line["checkpoint"] == checkpoint}
        cells = [f"{100 * own[n]['probe']:.1f}, {100 * own[n]['top1']:.1f}" if n in own else "-" for n in names]
        rows.append(f"| {checkpoint} | {' | '.join(cells)} |")
    ranks = []
    for name in names:
        here = [line for line in lines if line["dataset"] == name]
        ranks.append(float(spearmanr([each["probe"] for each in here], [each["top1"] for each in here]).statistic))
    rows.append(f"| Spearman's correlation | {' | '.join(f'{rank:.2f}' for rank in ranks)} |")
    return "\n".join([*rows, f"mean {statistics.mean(ranks):.2f}"])


def main() -> None:
    """Measure what the file does not have yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--flowers", help="a folder with train and test of class folders")
    parser.add_argument("--cifar100", help="a folder with data/*.parquet")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for every run")
    given = parser.parse_args()
    everywhere = dict(each.split("=", 1) for each in given.set)
    lines = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out.exists() else []
    done = {(line["checkpoint"], line["dataset"]) for line in lines}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        ways = [(name, keys) for name, keys in datasets(given, folder) if "x 100 " not in name]
        for checkpoint, path in checkpoints(given.model, folder):
            for name, keys in ways:
                if (checkpoint, name) in done:
                    continue
                found = measure(path, {**keys, **everywhere}, folder / "runs")
                lines.append({"checkpoint": checkpoint, "dataset": name, **found})
                with given.out.open("a") as file:
                    file.write(json.dumps(lines[-1]) + "\n")
    print(table(lines))


if __name__ == "__main__":
    main()

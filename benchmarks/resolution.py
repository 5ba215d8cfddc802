"""What a resolution is worth: agreement after a resize, gain of a larger size, seconds saved by a schedule.

    python benchmarks/resolution.py agreement --model PATH-OF-VIT-TINY --photos FOLDER [--photos FOLDER ...]
    python benchmarks/resolution.py gain --model PATH|builtin:vit-micro --cifar100 PATH --sizes 96 160 [--per-class 10]
    python benchmarks/resolution.py schedule --model PATH --dataset FOLDER --size 224 --schedule '{160: 70%, 224: 30%}'

agreement: the checkpoint is resized, not fine-tuned, and run by plain transformers: its labels against its own.
gain: fine-tuned at each size on CIFAR-100 images (or --dataset), 3 seeds, scored on 10 test images per class.
schedule: at a fixed size and by the schedule, in turn, 3 seeds; accuracy, and seconds of the training steps.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from accuracy import subset

from vitft import Recipe, finetune, resize


def agreement(model: str, photos: Sequence[str], sizes: Sequence[int], methods: Sequence[str]) -> dict[str, float]:
    """Return the part of photos whose label is the same as at the checkpoint's own size, by size."""
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    paths = sorted(
        path for folder in photos for path in Path(folder).rglob("*") if path.suffix.lower() in (".jpg", ".png")
    )

    @torch.no_grad()
    def labels(folder: str) -> torch.Tensor:
        network = AutoModelForImageClassification.from_pretrained(folder).eval()
        processor = AutoImageProcessor.from_pretrained(folder)
        found = []
        for start in range(0, len(paths), 16):
            images = [Image.open(path).convert("RGB") for path in paths[start : start + 16]]
            found.append(network(**processor(images, return_tensors="pt")).logits.argmax(-1))
        return torch.cat(found)

    own = labels(model)
    result = {}
    with tempfile.TemporaryDirectory() as temporary:
        for size in sizes:
            for method in methods:
                out = Path(temporary) / f"{size}-{method}"
                resize(model, out, image_size=(size, size), method=method)
                result[f"{size} {method}"] = float((labels(str(out)) == own).double().mean())
                print(
                    f"{size} px, {method}: {100 * result[f'{size} {method}']:.2f} % of {len(paths)} photos", flush=True
                )
    return result


def runs(given: argparse.Namespace, variants: dict[str, dict[str, Any]]) -> dict[str, list[dict[str, float]]]:
    """Fine-tune by each variant in turn for each seed; print and return top-1 and seconds."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
    with tempfile.TemporaryDirectory() as temporary:
        data = given.dataset or f"{temporary}/data"
        if not given.dataset:
            subset(given.cifar100, given.per_class).save_to_disk(data)
        for seed in range(given.seeds):
            for name, changes in variants.items():
                settings = {
                    "data.dataset": data, "model.checkpoint": given.model, "train.seed": seed,
                    "train.duration": f"{given.epochs} epochs", "train.evaluate_every": "100%",
                    "train.checkpoint_every": "100%", "run.output_dir": f"{temporary}/runs",
                }  # fmt: skip
                results = finetune(Recipe.load(None, settings | changes)).results
                train = results["train"]
                seconds = sum(_phases(changes, train)) or train["samples"] / train["images_per_second"]
                found[name].append({"top1": results["test"]["top1"], "seconds": seconds})
                print(f"seed {seed} {name}: top-1 {100 * found[name][-1]['top1']:.2f} %, {seconds:.0f} s", flush=True)
    for name, rows in found.items():
        top1 = [100 * row["top1"] for row in rows]
        spread = statistics.stdev(top1) if len(top1) > 1 else 0.0
        seconds = statistics.median(row["seconds"] for row in rows)
        print(f"{name:<12} top-1 {statistics.mean(top1):.2f} +- {spread:.2f} %, {seconds:.0f} s", flush=True)
    return found


def _phases(changes: dict[str, Any], train: dict[str, Any]) -> list[float]:
    """Return the seconds of each phase: its images at the speed of its size."""
    schedule = changes.get("train.resolution_schedule")
    if not schedule:
        return []
    parts = {f"{size}x{size}": float(part.rstrip("%")) / 100 for size, part in schedule.items()}
    return [part * train["samples"] / train["speeds"][size]["images_per_second"] for size, part in parts.items()]


def main() -> None:
    """Run one of the three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("agreement", "gain", "schedule"))
    parser.add_argument("--model", required=True)
    parser.add_argument("--photos", action="append", default=[])
    parser.add_argument("--cifar100")
    parser.add_argument("--dataset", help="instead of the CIFAR-100 subset")
    parser.add_argument("--sizes", type=int, nargs="+", default=[160, 288, 384])
    parser.add_argument("--methods", nargs="+", default=["bicubic"])
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--schedule", default="{96: 60%, 160: 40%}")
    parser.add_argument("--per-class", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    result: dict[str, Any]
    if given.what == "agreement":
        result = agreement(given.model, given.photos, given.sizes, given.methods)
    elif given.what == "gain":
        result = runs(given, {f"{size} px": {"model.image_size": size} for size in given.sizes})
    else:
        schedule = yaml.safe_load(given.schedule)
        result = runs(
            given,
            {f"{given.size} px": {"model.image_size": given.size}, "schedule": {"train.resolution_schedule": schedule}},
        )
    if given.out:
        given.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

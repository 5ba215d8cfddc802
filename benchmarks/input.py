"""The input path alone, per core: images per second of the first and of later epochs, beside Pillow + torchvision.

    python benchmarks/input.py --images FOLDER-OF-CLASS-FOLDERS --model PATH-OF-VIT-TINY [--size 224] [--epochs 3]
        [--rounds 3] [--enlarge N]

For vitft it is the time that the steps of a run spend waiting for images and making views of them (``data``, ``copy``
and ``views`` in metrics.jsonl), with the cache in memory and no worker processes; the model itself is not counted.
For the peer: open, convert, RandomResizedCrop, flip, ToTensor, Normalize. Both on one thread, in turn.
``--enlarge`` first writes the photos anew with a short side of N pixels, as large photos are decoded differently.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image

from vitft import Recipe, finetune


def torchvision_transforms(size: int) -> object:
    """Return the usual transforms; two operators that a torchvision for another torch lacks are declared by name."""
    try:
        from torchvision import transforms
    except (ImportError, RuntimeError):
        for name in [each for each in sys.modules if each.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        from torchvision import transforms
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(size, scale=(0.5, 1.0)),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.5,) * 3, (0.5,) * 3),
        ]
    )


def peer_speed(files: list[Path], size: int) -> float:
    """Return the images per second of one epoch of Pillow and torchvision."""
    transform = torchvision_transforms(size)
    begun = time.perf_counter()
    for start in range(0, len(files), 16):
        torch.stack([transform(Image.open(file).convert("RGB")) for file in files[start : start + 16]])
    return len(files) / (time.perf_counter() - begun)


def our_speeds(images: Path, model: str, size: int, epochs: int, folder: Path) -> list[float]:
    """Return the images per second of each epoch of a run's input."""
    recipe = Recipe.load(
        None,
        {
            "data.dataset": str(images), "data.workers": 0, "data.cache": "memory", "data.validation_fraction": 0.02,
            "model.checkpoint": model, "model.image_size": size, "train.duration": f"{epochs} epochs",
            "train.batch_size": 16, "train.micro_batch_size": 16, "train.evaluate_every": "100%",
            "augment.crop_scale": [0.5, 1.0], "run.output_dir": str(folder), "run.pictures": "off",
        },
    )  # fmt: skip
    run = finetune(recipe).run_dir
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    seconds = [sum(line["seconds"][part] for part in ("data", "copy", "views")) for line in lines if "seconds" in line]
    per_epoch = len(seconds) // epochs
    return [16 * per_epoch / sum(seconds[e * per_epoch : (e + 1) * per_epoch]) for e in range(epochs)]


def enlarged(images: Path, side: int, folder: Path) -> Path:
    """Write the photos anew with a short side of ``side`` pixels."""
    for file in sorted(images.rglob("*.jpg")):
        with Image.open(file) as image:
            factor = side / min(image.size)
            large = image.convert("RGB").resize([round(factor * each) for each in image.size], Image.Resampling.LANCZOS)
        path = folder / file.relative_to(images)
        path.parent.mkdir(parents=True, exist_ok=True)
        large.save(path, quality=92)
    return folder


def main() -> None:
    """Time both in turn and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--enlarge", type=int)
    given = parser.parse_args()
    torch.set_num_threads(1)
    first, later = [], []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        images = enlarged(given.images, given.enlarge, folder / "large") if given.enlarge else given.images
        files = sorted(images.rglob("*.jpg"))
        for number in range(given.rounds):
            peer = peer_speed(files, given.size)
            ours = our_speeds(images, given.model, given.size, given.epochs, folder / "runs")
            first.append(ours[0] / peer)
            later.append(statistics.median(ours[1:]) / peer)
            told = ", ".join(f"{speed:.0f}" for speed in ours)
            print(f"round {number}: peer {peer:.1f} images/s; vitft by epoch {told}", flush=True)
    print(f"median ratio: first epoch {statistics.median(first):.2f}, later epochs {statistics.median(later):.2f}")


if __name__ == "__main__":
    main()

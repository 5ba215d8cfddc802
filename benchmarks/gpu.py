"""Training speed on a GPU: images per second end to end, and the share of the measured bf16 matrix product.

    python benchmarks/gpu.py [--sizes 224,384] [--models base,tiny] [--rounds 3] [--steps 60] [--out FILE]

ViT-B/16 and ViT-Ti/16 with random weights, on drawn photos (500 x 375 pixels, JPEG) and small images (32 pixels, PNG),
in turn with transformers' Trainer by default (float32, one process reads) and tuned (bf16, TF32, fused AdamW, eight
processes that read, compiled). Nothing is downloaded. The share counts three times the forward pass per image.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import load_dataset
from peer import train_with_trainer
from PIL import Image

from vitft import Recipe, finetune

MODELS = {"base": (768, 12, 3072), "tiny": (192, 3, 768)}
BATCH = {"base": 128, "tiny": 512}
CLASSES, PER_CLASS = 10, 200
GFLOP = {("base", 224): 35.2, ("base", 384): 111.0, ("tiny", 224): 2.5, ("tiny", 384): 8.6}


def make_images(folder: Path, kind: str) -> Path:
    """Draw smooth pictures into class folders."""
    generator = np.random.default_rng(0)
    size, suffix = ((500, 375), "jpg") if kind == "photos" else ((32, 32), "png")
    for label in range(CLASSES):
        place = folder / kind / f"class-{label}"
        place.mkdir(parents=True, exist_ok=True)
        for number in range(PER_CLASS):
            noise = generator.integers(0, 256, (12, 16, 3), dtype=np.uint8)
            Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(place / f"{number}.{suffix}")
    return folder / kind


def make_model(folder: Path, name: str, size: int) -> Path:
    """Write a ViT with random weights and its image processor."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

    width, heads, hidden = MODELS[name]
    config = ViTConfig(
        hidden_size=width, num_attention_heads=heads, intermediate_size=hidden, image_size=size, num_labels=CLASSES
    )
    path = folder / f"{name}-{size}"
    ViTForImageClassification(config).save_pretrained(path)
    ViTImageProcessorPil(size={"height": size, "width": size}).save_pretrained(path)
    return path


def matrix_product(device: str) -> float:
    """Return the GFLOP/s of a bf16 matrix product, the fastest of ten."""
    side = 8192 if device == "cuda" else 512
    one = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    best = float("inf")
    for _ in range(10):
        begun = time.perf_counter()
        one @ one
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - begun)
    return 2 * side**3 / best / 1e9


def vitft_speed(images: Path, model: Path, batch: int, steps: int, folder: Path, device: str) -> dict[str, Any]:
    """Return images per second of the training loop, and the seconds of its parts."""
    recipe = Recipe.load(
        None,
        {
            "data.dataset": str(images), "data.validation_fraction": 0.02, "model.checkpoint": str(model),
            "train.duration": f"{steps} steps", "train.batch_size": batch, "train.evaluate_every": "100%",
            "train.device": device, "run.output_dir": str(folder), "run.pictures": "off",
        },
    )  # fmt: skip
    return dict(finetune(recipe).results["train"])


def main() -> None:
    """Time all and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="base,tiny")
    parser.add_argument("--sizes", default="224,384")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, help="instead of 128 for base and 512 for tiny")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="cpu tries the script out")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    peak = matrix_product(given.device)
    device = torch.cuda.get_device_name() if given.device == "cuda" else "cpu"
    print(f"{device}: bf16 matrix product {peak / 1e3:.1f} TFLOP/s")
    print(
        "| model | size | images | vitft | of the product | Trainer | Trainer, tuned |\n|---|---|---|---|---|---|---|"
    )
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for kind in ("photos", "small"):
            images = make_images(folder, kind)
            train = load_dataset("imagefolder", data_dir=str(images), split="train")
            for name in given.models.split(","):
                for size in map(int, given.sizes.split(",")):
                    model, batch = make_model(folder, name, size), given.batch or BATCH[name]
                    found: dict[str, list[float]] = {"vitft": [], "default": [], "tuned": []}
                    for number in range(given.rounds):
                        ours = vitft_speed(images, model, batch, given.steps, folder / "runs", given.device)
                        found["vitft"].append(ours["images_per_second"])
                        for how in ("default", "tuned"):
                            is_tuned = how == "tuned" and given.device == "cuda"
                            peer = train_with_trainer(
                                {"train": train}, str(model), folder / "trainer", epochs=1, batch_size=batch, lr=1e-4,
                                seed=number, workers=8 if is_tuned else 0, max_steps=given.steps, score=False,
                                tuned=is_tuned,
                            )  # fmt: skip
                            found[how].append(peer["images_per_second"])
                    speeds = {how: statistics.median(each) for how, each in found.items()}
                    gflop = GFLOP.get((name, size), 0.0)
                    row = {"model": name, "size": size, "images": kind, **speeds, "parts": ours["seconds_by_part"]}
                    rows.append(row | {"share": 3 * gflop * speeds["vitft"] / peak})
                    print(
                        f"| {name} | {size} | {kind} | {speeds['vitft']:.0f} | {rows[-1]['share']:.0%} | "
                        f"{speeds['default']:.0f} | {speeds['tuned']:.0f} |",
                        flush=True,
                    )
                    if given.out:
                        given.out.write_text(json.dumps({"device": device, "peak": peak, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()

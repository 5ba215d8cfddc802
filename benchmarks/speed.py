"""Training speed against transformers' Trainer doing the same work, in turn, in one run.

    python benchmarks/speed.py --images FOLDER-OF-CLASS-FOLDERS --model PATH-OF-VIT-TINY [--rounds 3] [--steps 12]

Both fine-tune all weights at 224 px with batch 16, AdamW, crop and flip. What is timed is the training loop from its
second step on for vitft, and Trainer's own training for the peer, with the better of 0 and 2 loader workers. The
figure to quote is the median of the ratios of a round.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import torch
from datasets import load_dataset
from peer import train_with_trainer

from vitft import Recipe, finetune

BATCH = 16


def main() -> None:
    """Time both in turn and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12)
    given = parser.parse_args()
    train = load_dataset("imagefolder", data_dir=given.images, split="train")
    ratios = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for number in range(given.rounds):
            peers = {
                workers: train_with_trainer(
                    {"train": train}, given.model, folder / "trainer", epochs=1, batch_size=BATCH, lr=1e-4, seed=number,
                    workers=workers, max_steps=given.steps, score=False,
                )["images_per_second"]
                for workers in (0, 2)
            }  # fmt: skip
            recipe = Recipe.load(
                None,
                {"data.dataset": given.images, "model.checkpoint": given.model,
                 "train.duration": f"{given.steps} steps",
                 "train.batch_size": BATCH, "train.evaluate_every": "100%", "run.output_dir": str(folder / "runs"),
                 "data.validation_fraction": 0.02},
            )  # fmt: skip
            ours = finetune(recipe).results["train"]["images_per_second"]
            best = max(peers.values())
            ratios.append(ours / best)
            shown = ", ".join(f"{speed:.2f} with {workers} workers" for workers, speed in peers.items())
            print(f"round {number}: vitft {ours:.2f} images/s; Trainer {shown}; ratio {ours / best:.3f}", flush=True)
    print(f"median ratio {statistics.median(ratios):.3f} on {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()

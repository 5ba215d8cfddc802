"""Staging and evaluation do not grow with the dataset: peak memory over 1,000 and over 100,000 rows.

    python benchmarks/memory.py

Each size runs in a process of its own, after the dataset was imported once by another.
"""

from __future__ import annotations

import argparse
import io
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np


def make(folder: Path, num_rows: int) -> None:
    """Write a parquet dataset of 12 x 12 PNGs in ten classes."""
    from datasets import ClassLabel, Dataset, Features, Image
    from PIL import Image as Pillow

    rng = np.random.default_rng(0)
    encoded = []
    for _ in range(1000):
        buffer = io.BytesIO()
        Pillow.fromarray(rng.integers(0, 255, (12, 12, 3), dtype=np.uint8)).save(buffer, "PNG")
        encoded.append({"bytes": buffer.getvalue(), "path": None})
    for split, count in (("train", num_rows), ("test", num_rows)):
        rows = Dataset.from_dict(
            {"image": [encoded[i % 1000] for i in range(count)], "label": [i % 10 for i in range(count)]},
            features=Features({"image": Image(), "label": ClassLabel(names=[str(k) for k in range(10)])}),
        )
        rows.to_parquet(folder / f"{split}.parquet")


def stage(folder: str) -> None:
    """Stage every training row and put every test row through the image processor; print the peak in MB."""
    from vitft.data.evaluation_batches import evaluation_batches
    from vitft.data.train_batches import StepSlices, TrainBatches
    from vitft.model.load import load_for_training
    from vitft.reading.source import open_source
    from vitft.recipe.recipe import Recipe

    recipe = Recipe.load(
        None, {"data.dataset": folder, "model.checkpoint": "builtin:vit-micro", "model.init": "random"}
    )
    source = open_source(recipe.data, seed=0)
    classifier = load_for_training(recipe.model, source.classes, "squash")
    n = len(source.train)
    slices = StepSlices(num_samples=n, batch_size=500, micro_batch_size=500, total_samples=n)
    batches = TrainBatches(source.train, slices, seed=0, stage_size=37, skip_bad=False, workers=0, pin=False)
    staged = sum(len(batch) for step in batches.steps(0, -(-n // 500)) for batch in step)
    batches = evaluation_batches(source.test, classifier.process, batch_size=500, skip_bad=False, workers=0)
    scored = sum(len(batch) for batch in batches)
    print(staged, scored, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    """Measure both sizes and print the difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.stage:
        stage(given.stage)
        return
    peaks = {}
    with tempfile.TemporaryDirectory() as temporary:
        for num_rows in (1_000, 100_000):
            folder = Path(temporary) / str(num_rows)
            folder.mkdir()
            make(folder, num_rows)
            for _ in range(2):  # the first imports the files into the cache of `datasets`
                out = subprocess.run(
                    [sys.executable, __file__, "--stage", str(folder)], capture_output=True, text=True, check=True
                )
            staged, scored, peak = out.stdout.split()[-3:]
            peaks[num_rows] = float(peak)
            print(f"{num_rows:>7} rows: staged {staged}, scored {scored}, peak {float(peak):.0f} MB", flush=True)
    print(f"difference {peaks[100_000] - peaks[1_000]:.0f} MB")


if __name__ == "__main__":
    main()

"""Order, splits and labels of a hundred million rows: seconds and memory before the first step.

    python benchmarks/rows.py
    python benchmarks/rows.py --rows 1000000

Each number of rows runs in a process of its own. The labels are an array that is already there, and every image is the
same one: this measures what vitft does with the rows, not how a dataset is read or an image decoded. "memory" is the
peak of the process above what it held with its imports and the labels (8 bytes per row).
"""

from __future__ import annotations

import argparse
import io
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

NUM_CLASSES = 1000


class OneImage:
    """Rows that all hold the same image."""

    def __init__(self, num_rows: int) -> None:
        from PIL import Image

        buffer = io.BytesIO()
        Image.new("RGB", (12, 12)).save(buffer, "PNG")
        self._num_rows, self._row = num_rows, {"image": {"bytes": buffer.getvalue(), "path": None}}

    def __len__(self) -> int:
        return self._num_rows

    def __getitem__(self, row: int) -> dict[str, Any]:
        assert 0 <= row < self._num_rows
        return self._row


class Stages:
    """Seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage."""
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start


def measure(num_rows: int, limit_to: int) -> None:
    """Do everything from an array of labels to the first step; print the seconds of each stage and the memory."""
    import pyarrow as pa
    import torch

    from vitft.data.images import ImageSource, ImageSplit
    from vitft.data.row_numbers import RowNumbers
    from vitft.data.train_batches import StepSlices, TrainBatches
    from vitft.reading.checks import check_images
    from vitft.reading.encoded import EncodedImages
    from vitft.reading.fingerprint import fingerprint
    from vitft.reading.guard import guard_classes
    from vitft.reading.labels import Labels, require_classes, require_labels
    from vitft.reading.overview import overview_of
    from vitft.reading.splits import carve, limit

    torch.set_num_threads(1)
    classes = tuple(f"class {k}" for k in range(NUM_CLASSES))
    ids = np.random.default_rng(0).integers(0, NUM_CLASSES, num_rows)
    before, watched = resident(), Watched()
    stages, busy = Stages(), time.process_time()
    with stages.stage("labels"):
        labels = Labels(ids, classes, is_declared=False)
        require_labels(labels, "train")
        require_classes(labels, "train")
        guard_classes(labels, "labels", others=[], are_folders=False)
    whole = ImageSplit("train", OneImage(num_rows), ("image",), ids, source_name="train")
    with stages.stage("carve"):
        held_out = carve(whole.ids, 0.1, seed=0)
        train = whole.part("train", RowNumbers.all_but(num_rows, held_out))
        validation = whole.part("validation", RowNumbers.only(held_out))
    if limit_to:
        with stages.stage(f"max_train_samples={limit_to:,}"):
            kept = limit(train.labels, limit_to, seed=0)
            train = whole.part("train", RowNumbers.only(train.row_numbers.at(kept)))
    with stages.stage("check"):
        check_images([train, validation], classes, "sample")
    with stages.stage("fingerprint"):
        one = EncodedImages(pa.chunked_array([pa.array([b"image"])]), ())
        fingerprint({"train": one}, {"train": train, "validation": validation}, classes)
    source = ImageSource("rows", None, "", classes, train, validation, None, ())
    with stages.stage("overview"):
        str(overview_of(source))
    with stages.stage("class counts"):
        train.class_counts(NUM_CLASSES)
    with stages.stage("first step"):
        slices = StepSlices(len(train), 256, 256, len(train))
        batches = TrainBatches(train, slices, seed=0, stage_size=12, skip_bad=False, workers=0, pin=False)
        (step,) = batches.steps(0, 1)
        assert len(step[0]) == 256
    parts = ", ".join(f"{name} {seconds:.2f}" for name, seconds in stages.seconds.items())
    print(
        f"{num_rows:>11,} rows  {sum(stages.seconds.values()):6.2f} s, {time.process_time() - busy:.2f} s of CPU"
        f"  memory {(watched.peak() - before) / 1e6:7,.0f} MB  labels {ids.nbytes / 1e6:5,.0f} MB  ({parts})"
    )


class Watched:
    """The most memory that this process held since this object was made."""

    def __init__(self) -> None:
        self._most, self._is_over = resident(), False
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def peak(self) -> float:
        """Return it in bytes, and stop watching."""
        self._is_over = True
        self._thread.join()
        return self._most

    def _watch(self) -> None:
        while not self._is_over:
            self._most = max(self._most, resident())
            time.sleep(0.002)


def resident() -> float:
    """Return the memory that this process holds, in bytes."""
    import psutil

    return float(psutil.Process().memory_info().rss)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, help="measure only this many, in this process")
    parser.add_argument("--limit", type=int, default=0, help="also choose this many with data.max_train_samples")
    options = parser.parse_args()
    if options.rows:
        measure(options.rows, options.limit)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{'':>16}peak of the whole process, with its imports and labels: {peak:,.0f} MB")
    else:
        for size in (10**6, 10**7, 10**8):
            command = [sys.executable, __file__, "--rows", str(size), "--limit", str(options.limit)]
            subprocess.run(command, check=True)

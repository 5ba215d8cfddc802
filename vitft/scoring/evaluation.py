"""Evaluate a classifier on a labelled split."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from vitft.architectures.last_block import short_last_block
from vitft.data.batches import RowNote, StagedBatch
from vitft.data.evaluation_batches import evaluation_batches
from vitft.data.images import ImageSplit, StreamSplit
from vitft.data.staged_store import StagedStore
from vitft.data.staging import MAX_PIXELS
from vitft.model.classifier import Classifier
from vitft.scoring.collecting import Collector
from vitft.scoring.predictions import Predictions
from vitft.scoring.scores import Tally
from vitft.scoring.shifts import shifted

if TYPE_CHECKING:
    from accelerate import Accelerator


class Scored(Protocol):
    """What is scored: a classifier, or what stands for one."""

    @property
    def model(self) -> nn.Module:
        """From model input to an output with ``logits``."""

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes."""

    @property
    def pixel_values(self) -> Callable[[Tensor], Tensor]:
        """From a batch's images to model input."""


@dataclass
class Evaluation:
    """Results of one pass over a split, from all processes together.

    Attributes:
        tally: counts and sums.
        predictions: what was said of each row, in the order of the dataset; None unless collected.
        bad_rows: images that were skipped.
        notes: remarks on images that were used.
        images_per_second: speed of all forward passes but the first.
        shift_consistency: share of predictions that stay the same when the image is shifted; None without shifts.
    """

    tally: Tally
    predictions: Predictions | None = None
    bad_rows: list[RowNote] = field(default_factory=list)
    notes: list[RowNote] = field(default_factory=list)
    images_per_second: float = 0.0
    shift_consistency: float | None = None


def batches_of(
    split: ImageSplit | StreamSplit,
    classifier: Classifier,
    accelerator: Accelerator,
    *,
    batch_size: int,
    skip_bad: bool,
    workers: int,
    max_pixels: int = MAX_PIXELS,
    kept: StagedStore | None = None,
) -> Iterator[StagedBatch]:
    """Yield this process's part of a split, preprocessed for the classifier; each row is in exactly one part."""
    return evaluation_batches(
        split,
        classifier.process,
        batch_size=batch_size,
        skip_bad=skip_bad,
        workers=workers,
        pin=accelerator.device.type == "cuda",
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        max_pixels=max_pixels,
        kept=kept,
    )


def until_failure(batches: Iterable[StagedBatch], on_failure: Callable[[Exception], None]) -> Iterator[StagedBatch]:
    """Yield batches until one cannot be read, then pass the error to ``on_failure`` and stop.

    Every process then still reaches the reduction that follows, even if it alone met the error.
    """
    try:
        yield from batches
    except Exception as error:  # a dataset may raise anything: on_failure decides
        on_failure(error)


@torch.no_grad()
def evaluate_split(
    classifier: Scored,
    batches: Iterable[StagedBatch],
    accelerator: Accelerator,
    *,
    collect: bool = False,
    shift: int = 0,
    watch: Callable[[Tensor, Tensor, Tensor], None] | None = None,
) -> Evaluation:
    """Run a classifier over a split and sum the results of all processes.

    Runs the bare model without collectives, so the processes' parts may differ in length.

    Args:
        classifier: on the accelerator's device.
        batches: this process's part, from :func:`batches_of`.
        accelerator: gives the device, the precision and the processes.
        collect: also keep every prediction.
        shift: also move every image by this many pixels in four directions, and count predictions that stay the same.
        watch: gets the logits (B, K), the labels (B,) and the sample indices (B,) of each batch.
    """
    was_training = classifier.model.training
    classifier.model.eval()

    def logits_of(images: Tensor) -> Tensor:
        with accelerator.autocast(), short_last_block(classifier.model):
            logits: Tensor = classifier.model(classifier.pixel_values(images)).logits.float()
        return logits

    stayed = torch.zeros(2, dtype=torch.int64, device=accelerator.device)  # (unchanged predictions, all)
    found = Evaluation(Tally(len(classifier.classes), device=accelerator.device))
    collector = Collector(len(classifier.classes)) if collect else None
    passes: list[tuple[int, float]] = []
    for batch in batches:
        found.bad_rows += batch.skipped
        found.notes += batch.notes
        if len(batch):
            on_device = batch.to(accelerator.device)
            begun = time.perf_counter()
            logits = logits_of(on_device.images)
            found.tally.add(logits, on_device.labels)
            if accelerator.device.type != "cpu":
                torch.accelerator.synchronize()
            passes.append((len(batch), time.perf_counter() - begun))
            for moved in shifted(on_device.images, shift) if shift else ():
                stayed[0] += (logits_of(moved).argmax(-1) == logits.argmax(-1)).sum()
                stayed[1] += len(batch)
            if collector is not None:
                collector.add(logits, batch.labels, batch.sample_indices)
            if watch is not None:
                watch(logits, on_device.labels, batch.sample_indices)
    classifier.model.train(was_training)
    found.tally = found.tally.reduce(accelerator)
    found.images_per_second = _speed(passes, accelerator)
    if shift:
        kept, total = accelerator.reduce(stayed, "sum").tolist()
        found.shift_consistency = kept / max(total, 1)
    if accelerator.num_processes > 1:
        found.bad_rows = gather_object(found.bad_rows)
    if collector is not None:
        found.predictions = collector.gathered(accelerator)
    return found


def _speed(passes: list[tuple[int, float]], accelerator: Accelerator) -> float:
    """Return the images per second of all processes, without the first pass, which warms up, if there are others."""
    timed = passes[1:] or passes
    own = sum(count for count, _ in timed) / max(sum(seconds for _, seconds in timed), 1e-9)
    return float(accelerator.reduce(torch.tensor(own, device=accelerator.device), "sum"))

"""Sample indices -> the staged micro-batches of each training step."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vitft.data import order
from vitft.data.batches import Decoder, RowNote, StagedBatch, failed
from vitft.data.device_store import DeviceStore
from vitft.data.images import EncodedRow, ImageSplit, StreamSplit
from vitft.data.row_order import ClassSampling, RowOrder
from vitft.data.staged_store import StagedStore
from vitft.data.staging import MAX_PIXELS, BadImage, decode_to_stage, stage
from vitft.data.workers import loader

STAGE_MARGIN = 1.15  # a crop of 3/4 of the stage's area still has the model's resolution


@dataclass(frozen=True)
class StepSlices:
    """Which samples of a step this process takes, and in which micro-batches.

    Attributes:
        num_samples: samples per epoch.
        batch_size: samples per step over all processes.
        micro_batch_size: samples per forward pass, even.
        total_samples: samples in the whole training; the last step may be short.
        rank, world_size: this process's number, and how many processes there are.
    """

    num_samples: int
    batch_size: int
    micro_batch_size: int
    total_samples: int
    rank: int = 0
    world_size: int = 1

    def step_size(self, step: int) -> int:
        """Return the number of samples in a step over all processes."""
        return min(self.batch_size, self.total_samples - step * self.batch_size)

    def micro_batches(self, step: int) -> list[range]:
        """Return this process's sample indices in a step, one range per micro-batch; none if its part is empty."""
        start, stop = order.step_slots(self.step_size(step), self.world_size)[self.rank]
        first = step * self.batch_size
        cuts = range(start, stop, self.micro_batch_size)
        return [range(first + cut, first + min(cut + self.micro_batch_size, stop)) for cut in cuts]


class TrainBatches:
    """The micro-batches of each step, in order, starting at any step.

    With a ``held`` store, images are on its device, and only those that it lacks are read.
    """

    def __init__(
        self,
        split: ImageSplit,
        slices: StepSlices,
        *,
        seed: int,
        stage_size: int,
        skip_bad: bool,
        workers: int,
        pin: bool,
        max_pixels: int = MAX_PIXELS,
        kept: StagedStore | None = None,
        sampling: ClassSampling | None = None,
        held: DeviceStore | None = None,
    ) -> None:
        self.slices = slices
        decoder = Decoder(partial(stage, size=stage_size), skip_bad, max_pixels, stage_size, kept)
        self._staging = _Staging(split, RowOrder(seed, len(split), sampling), decoder)
        self._workers, self._pin, self._held = workers, pin, held
        self._read: set[int] = set()  # the first sample of each micro-batch that is being read

    def steps(self, first: int, last: int) -> Iterator[list[StagedBatch]]:
        """Yield the list of this process's micro-batches for each step in [first, last).

        The list is empty if this process has no part in a short last step.
        """
        parts = itertools.chain.from_iterable(map(self.slices.micro_batches, range(first, last)))
        unfilled = itertools.takewhile(lambda _: self._held is None or not self._held.is_full, parts)
        plan = (list(part) for part in unfilled if self._is_read(part))
        staged = iter(loader(self._staging, plan, self._workers, pin=self._pin))
        for step in range(first, last):
            yield [self._next(part, staged) for part in self.slices.micro_batches(step)]

    def _is_read(self, part: range) -> bool:
        """Whether a micro-batch is read; decided once, as readers are ahead of the training."""
        if self._held is None or part.start in self._read:
            return True
        if self._held.has(self._staging.rows(part)):
            return False
        self._read.add(part.start)
        return True

    def _next(self, part: range, staged: Iterator[StagedBatch]) -> StagedBatch:
        """Return a micro-batch, from the device if it is there."""
        if self._held is not None and not self._is_read(part):
            return self._held.batch(self._staging.rows(part), torch.tensor(part))
        batch = next(staged)
        batch.raise_failure()
        self._read.discard(part.start)
        return batch if self._held is None else self._held.keep(self._staging.rows(part), batch)

    def at(self, sample_indices: list[int]) -> StagedBatch:
        """Return the samples at any indices, staged by this process."""
        batch = self._staging.__getitems__(sample_indices)
        batch.raise_failure()
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Return {}, because the sample index is all the state there is."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do nothing, as there is no state."""


class _Staging(Dataset[StagedBatch]):
    """Worker side: sample indices -> one staged batch."""

    def __init__(self, split: ImageSplit, row_order: RowOrder, decoder: Decoder) -> None:
        self.split, self.order, self.decoder = split, row_order, decoder

    def rows(self, sample_indices: Sequence[int]) -> Tensor:
        """Return the row of each sample index."""
        return self.order.at(torch.tensor(sample_indices)).rows

    def __getitems__(self, sample_indices: list[int]) -> StagedBatch:
        rows = self.rows(sample_indices).tolist()
        batch = self.decoder.batch(
            (index, self._candidates(index, row)) for index, row in zip(sample_indices, rows, strict=True)
        )
        if batch.failure is None and len(batch) < len(sample_indices):
            return failed(RowNote(-1, "the training split", "none of its images can be decoded"))
        return batch

    def _candidates(self, sample_index: int, row: int) -> Iterator[EncodedRow]:
        """Yield the row of a sample index, then the rows after it in the same epoch; this depends only on the data."""
        yield self.split.row(row)
        yield from map(self.split.row, self.order.after(sample_index))


class StagingCost(NamedTuple):
    """What staging an image takes on average."""

    seconds: float
    num_bytes: float
    """Of its pixels."""


def staging_cost(
    split: ImageSplit | StreamSplit, stage_size: int, max_pixels: int = MAX_PIXELS, sample: int = 16
) -> StagingCost:
    """Measure the cost of staging on a few images spread over the split, which must not be a stream."""
    assert isinstance(split, ImageSplit), split
    rows = np.linspace(0, len(split) - 1, num=min(sample, len(split)), dtype=int).tolist()
    sizes = []
    start = time.perf_counter()
    for row in rows:
        try:
            image, *_ = decode_to_stage(split.encoded(row), stage_size, max_pixels, split.white_level)
            sizes.append(stage(image, stage_size).numel())
        except BadImage:
            continue  # the run will meet it again and report it
    seconds = (time.perf_counter() - start) / len(rows)
    return StagingCost(seconds, sum(sizes) / len(sizes) if sizes else 3.0 * stage_size**2)

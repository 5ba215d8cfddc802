"""Training batches from a stream: shards are read in order and shuffled in a buffer.

Here the images of a step depend on the number of processes, and a resumed run continues from the stream's own state,
close but not bit for bit. The random draws of views still depend only on the sample index.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from torch.utils.data import IterableDataset

from vitft.data.batches import Decoder, StagedBatch
from vitft.data.images import EncodedRow, StreamSplit
from vitft.data.staging import MAX_PIXELS, stage
from vitft.data.train_batches import StepSlices
from vitft.data.workers import loader
from vitft.errors import DataError


class StreamBatches:
    """The micro-batches of each step, like those of :class:`TrainBatches`, from this process's shards."""

    def __init__(
        self,
        split: StreamSplit,
        slices: StepSlices,
        *,
        seed: int,
        stage_size: int,
        skip_bad: bool,
        buffer: int,
        workers: int,
        pin: bool,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        from datasets.distributed import split_dataset_by_node

        shuffled = split.rows.shuffle(seed=seed, buffer_size=buffer)
        stream = split_dataset_by_node(shuffled, rank=slices.rank, world_size=slices.world_size)
        self.slices = slices
        decoder = Decoder(partial(stage, size=stage_size), skip_bad, max_pixels, stage_size)
        self._staging = _Staging(split, stream, slices, decoder)
        self._workers, self._pin = min(workers, 1), pin  # a stream's state describes a single reader
        self._state: dict[str, Any] = {}

    def steps(self, first: int, last: int) -> Iterator[list[StagedBatch]]:
        """Yield the micro-batches of each step in [first, last)."""
        self._staging.first, self._staging.last, self._staging.state = first, last, self._state
        staged = iter(loader(self._staging, None, self._workers, pin=self._pin))
        for step in range(first, last):
            batches = [next(staged) for _ in self.slices.micro_batches(step)]
            for batch in batches:
                batch.raise_failure()
                self._state = batch.stream_state or {}
            yield batches

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the stream after the steps taken so far."""
        return self._state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``."""
        self._state = state


class _Staging(IterableDataset[StagedBatch]):
    """Worker side: rows of a stream, epoch after epoch -> the micro-batches of this process."""

    def __init__(self, split: StreamSplit, stream: Any, slices: StepSlices, decoder: Decoder) -> None:
        self.split, self.stream, self.slices, self.decoder = split, stream, slices, decoder
        self.first, self.last = 0, 0
        self.state: dict[str, Any] = {}

    def __iter__(self) -> Iterator[StagedBatch]:
        if self.state:
            self.stream.load_state_dict(self.state["rows"])
        endless = _Endless(self.split, self.stream, self.state.get("epoch", 0))
        rows = endless.rows()
        for step in range(self.first, self.last):
            for part in self.slices.micro_batches(step):
                batch = self.decoder.batch((sample_index, rows) for sample_index in part)
                yield replace(batch, stream_state={"epoch": endless.epoch, "rows": self.stream.state_dict()})


class _Endless:
    """The rows of a stream, epoch after epoch."""

    def __init__(self, split: StreamSplit, stream: Any, epoch: int) -> None:
        self.epoch, self._split, self._stream = epoch, split, stream

    def rows(self) -> Iterator[EncodedRow]:
        while True:
            self._stream.set_epoch(self.epoch)
            is_empty = True
            for row in self._stream:
                is_empty = False
                yield self._split.row(row)
            if is_empty:
                raise DataError(
                    "the stream has no rows for this process", hint="use fewer processes, or leave out --streaming"
                )
            self.epoch += 1

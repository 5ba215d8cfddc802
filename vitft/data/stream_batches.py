"""Batches of sources without random access: shards read in order, shuffled in a buffer.

Which images a step sees depends here on the number of processes, and resuming continues the stream's own state,
close but not bit for bit; the draws of views stay functions of the position.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from torch.utils.data import IterableDataset

from vitft.data.batches import BadRow, ImageProcess, StagedBatch, StepLayout, collate, failed, loader
from vitft.data.images import StreamSplit
from vitft.data.staging import MAX_PIXELS, BadImage, StagedImage, decode, stage
from vitft.errors import DataError


class StreamBatches:
    """The micro-batches of each step from a source without random access.

    Rows come from this process's shards through a shuffle buffer, so which images a step sees depends on the
    number of processes; resuming continues the stream's own state, close but not bit for bit.
    """

    def __init__(
        self,
        split: StreamSplit,
        layout: StepLayout,
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
        stream = split_dataset_by_node(shuffled, rank=layout.rank, world_size=layout.world_size)
        self.layout = layout
        self._staging = _StreamStaging(split, stream, layout, stage_size, skip_bad, max_pixels)
        self._workers, self._pin = min(workers, 1), pin  # the state of a stream is that of one reader
        self._state: dict[str, Any] = {}

    def steps(self, first: int, last: int) -> Iterator[list[StagedBatch]]:
        """Yield the micro-batches of each step in [first, last), as :meth:`TrainBatches.steps` does."""
        self._staging.first, self._staging.last, self._staging.state = first, last, self._state
        staged = iter(loader(self._staging, None, self._workers, pin=self._pin))
        for step in range(first, last):
            batches = [next(staged) for _ in self.layout.micro_batches(step)]
            for batch in batches:
                batch.raise_failure()
                self._state = batch.stream_state or {}
            yield batches

    def state_dict(self) -> dict[str, Any]:
        """Return where the stream stands after the steps that were taken."""
        return self._state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state`` stood."""
        self._state = state


class _StreamStaging(IterableDataset[StagedBatch]):
    """Worker side: rows of a stream, epoch after epoch -> the micro-batches of this process."""

    def __init__(
        self, split: StreamSplit, stream: Any, layout: StepLayout, stage_size: int, skip_bad: bool, max_pixels: int
    ) -> None:
        self.split, self.stream, self.layout = split, stream, layout
        self.stage_size, self.skip_bad, self.max_pixels = stage_size, skip_bad, max_pixels
        self.first, self.last = 0, 0
        self.state: dict[str, Any] = {}

    def __iter__(self) -> Iterator[StagedBatch]:
        if self.state:
            self.stream.load_state_dict(self.state["rows"])
        rows = _Endless(self.stream, self.state.get("epoch", 0))
        for step in range(self.first, self.last):
            for part in self.layout.micro_batches(step):
                batch = self._batch(rows, part)
                yield replace(batch, stream_state={"epoch": rows.epoch, "rows": self.stream.state_dict()})

    def _batch(self, rows: Iterator[dict[str, Any]], positions: range) -> StagedBatch:
        staged: list[StagedImage] = []
        labels: list[int] = []
        skipped: list[BadRow] = []
        notes: list[str] = []
        while len(staged) < len(positions):
            row = next(rows)
            try:
                image, image_notes = decode(self.split.encoded(row), self.max_pixels, self.split.white_level)
            except BadImage as error:
                bad = BadRow(-1, "an image of the stream", error.wrong)
                if not self.skip_bad:
                    return failed(bad)
                skipped.append(bad)
                continue
            notes += image_notes
            staged.append(stage(image, self.stage_size))
            labels.append(self.split.label(row))
        return collate(staged, labels, positions, skipped, notes)


class _Endless:
    """The rows of a stream, epoch after epoch."""

    def __init__(self, stream: Any, epoch: int) -> None:
        self.epoch, self._stream = epoch, stream
        self._rows = self._forever()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        return next(self._rows)

    def _forever(self) -> Iterator[dict[str, Any]]:
        while True:
            self._stream.set_epoch(self.epoch)
            is_empty = True
            for row in self._stream:
                is_empty = False
                yield row
            if is_empty:
                raise DataError(
                    "the stream has no rows for this process", hint="use fewer processes, or no --streaming"
                )
            self.epoch += 1


class StreamEvaluationBatches(IterableDataset[StagedBatch]):
    """Every row of a stream exactly once over all processes: row i is read by process i mod their number."""

    def __init__(
        self,
        split: StreamSplit,
        process: ImageProcess,
        *,
        batch_size: int,
        skip_bad: bool,
        rank: int,
        world_size: int,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self._split, self._process, self._batch_size, self._skip_bad = split, process, batch_size, skip_bad
        self._rank, self._world_size, self._max_pixels = rank, world_size, max_pixels

    def __iter__(self) -> Iterator[StagedBatch]:
        mine = ((i, row) for i, row in enumerate(self._split.rows) if i % self._world_size == self._rank)
        while chunk := list(itertools.islice(mine, self._batch_size)):
            batch = self._batch(chunk)
            batch.raise_failure()
            yield batch

    def _batch(self, chunk: list[tuple[int, dict[str, Any]]]) -> StagedBatch:
        staged, labels, used, skipped = [], [], [], []
        for number, row in chunk:
            try:
                image, _ = decode(self._split.encoded(row), self._max_pixels, self._split.white_level)
                staged.append(StagedImage(self._process(image), image.height, image.width))
            except BadImage as error:
                bad = BadRow(number, f"row {number} of the stream's {self._split.name}", error.wrong)
                if not self._skip_bad:
                    return failed(bad)
                skipped.append(bad)
                continue
            used.append(number)
            labels.append(self._split.label(row))
        return collate(staged, labels, used, skipped)

"""Positions -> staged batches on the device.

Decoding and resizing happen in worker processes (forkserver, so that no CUDA context or lock is inherited; a
training worker never imports transformers); a batch crosses to the device as uint8 and becomes floats there.

Shapes: B images of a batch, S_h x S_w canvas: the smallest rectangle that holds every staged image of it.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vitft.data import order
from vitft.data.images import ImageSplit
from vitft.data.staging import MAX_PIXELS, BadImage, StagedImage, decode, stage
from vitft.errors import DataError


class ReaderLost(DataError):  # noqa: N818 - what happened
    """A process that reads images ended without a word.

    Attributes:
        process: its id.
        signal: that ended it; empty if none did.
    """

    def __init__(self, process: int, exit_code: int) -> None:
        self.process = process
        try:
            self.signal = signal.Signals(-exit_code).name
        except ValueError:
            self.signal = ""
        how = f"{self.signal} ended it" if self.signal else f"it ended with code {exit_code}"
        super().__init__(f"a process that reads images ({process}) is gone: {how}")

    def __reduce__(self) -> tuple[object, ...]:
        return (DataError, (self.wrong,))


STAGE_MARGIN = 1.15  # a crop of 3/4 of the stage's area still has the model's resolution


@dataclass(frozen=True)
class BadRow:
    """A row whose image could not be used."""

    index: int
    where: str
    reason: str


@dataclass(frozen=True)
class StagedBatch:
    """Images before anything random has happened to them.

    Attributes:
        images: uint8 (B, 3, S_h, S_w); image i fills the top left ``sizes[i]``, the rest is 0.
        sizes: int64 (B, 2), height and width within the canvas.
        originals: int64 (B, 2), height and width before staging.
        labels: int64 (B,).
        positions: int64 (B,), places in the order of samples, or row numbers in evaluation.
        skipped: bad rows that were passed over to make this batch.
        notes: what was noticed about images that are used all the same.
        failure: the bad row that must end the run, if one was met.
        stream_state: where the worker that made it stands in its stream.
    """

    images: Tensor
    sizes: Tensor
    originals: Tensor
    labels: Tensor
    positions: Tensor
    skipped: tuple[BadRow, ...] = ()
    notes: tuple[str, ...] = ()
    failure: BadRow | None = None
    stream_state: dict[str, Any] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> StagedBatch:
        """Return the batch on ``device``; the copy may still be under way when this returns.

        Positions stay on the CPU, where no draw waits for the device.
        """
        moved = self._map(lambda tensor: tensor.to(device, non_blocking=True))
        return replace(moved, positions=self.positions)

    def pin_memory(self) -> StagedBatch:
        """Return the batch in page-locked memory (called by the DataLoader)."""
        return self._map(lambda tensor: tensor.pin_memory())

    def split(self, size: int) -> list[StagedBatch]:
        """Cut the batch into parts of ``size`` images; ``size`` is even, so that mixing pairs stay together."""
        return [self._map(lambda tensor, s=start: tensor[s : s + size]) for start in range(0, len(self), size)]

    def _map(self, function: Callable[..., Tensor]) -> StagedBatch:
        images, sizes, originals = function(self.images), function(self.sizes), function(self.originals)
        labels, positions = function(self.labels), function(self.positions)
        return replace(self, images=images, sizes=sizes, originals=originals, labels=labels, positions=positions)

    def raise_failure(self) -> None:
        """Raise DataError if this batch met an image that must end the run."""
        if self.failure is not None:
            raise DataError(
                f"{self.failure.where} cannot be used: {self.failure.reason}",
                hint="mend or remove it, or pass over such images with --bad-images skip",
            )


# --- training ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StepLayout:
    """Which positions this process takes, and in what micro-batches.

    Attributes:
        num_samples: samples per epoch.
        batch_size: samples per step over all processes.
        micro_batch_size: samples per forward pass, even.
        total_samples: positions of the whole training; the last step is short if it must.
        rank, world_size: this process among all.
    """

    num_samples: int
    batch_size: int
    micro_batch_size: int
    total_samples: int
    rank: int = 0
    world_size: int = 1

    def step_size(self, step: int) -> int:
        """Return the number of samples of a step over all processes."""
        return min(self.batch_size, self.total_samples - step * self.batch_size)

    def micro_batches(self, step: int) -> list[range]:
        """Return this process's positions in a step, one range per micro-batch; none if its part is empty."""
        start, stop = order.step_slots(self.step_size(step), self.world_size)[self.rank]
        first = step * self.batch_size
        cuts = range(start, stop, self.micro_batch_size)
        return [range(first + cut, first + min(cut + self.micro_batch_size, stop)) for cut in cuts]


class TrainBatches:
    """The micro-batches of each step, in order, from any step on."""

    def __init__(
        self,
        split: ImageSplit,
        layout: StepLayout,
        *,
        seed: int,
        stage_size: int,
        skip_bad: bool,
        workers: int,
        pin: bool,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.layout = layout
        self._staging = _TrainStaging(split, seed, stage_size, skip_bad, max_pixels)
        self._workers, self._pin = workers, pin

    def steps(self, first: int, last: int) -> Iterator[list[StagedBatch]]:
        """Yield, for each step in [first, last), the list of this process's micro-batches.

        A process whose part of a (last, short) step is empty gets an empty list.
        """
        plan = (list(part) for step in range(first, last) for part in self.layout.micro_batches(step))
        staged = iter(loader(self._staging, plan, self._workers, pin=self._pin))
        for step in range(first, last):
            batches = [next(staged) for _ in self.layout.micro_batches(step)]
            for batch in batches:
                batch.raise_failure()
            yield batches

    def state_dict(self) -> dict[str, Any]:
        """Return {}: a position says everything."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Accept what :meth:`state_dict` gave."""


class _TrainStaging(Dataset[StagedBatch]):
    """Worker side: positions -> one staged batch."""

    def __init__(self, split: ImageSplit, seed: int, stage_size: int, skip_bad: bool, max_pixels: int) -> None:
        self.split, self.seed, self.stage_size = split, seed, stage_size
        self.skip_bad, self.max_pixels = skip_bad, max_pixels

    def __getitems__(self, positions: list[int]) -> StagedBatch:
        n = len(self.split)
        rows = order.sample_at(self.seed, torch.tensor(positions), n).tolist()
        staged, labels, skipped, notes = [], [], [], []
        for position, row in zip(positions, rows, strict=True):
            for attempt in range(n):
                if attempt:  # the next good image of this epoch's order: a function of the data alone
                    epoch_start, entry = position - position % n, (position + attempt) % n
                    row = int(order.sample_at(self.seed, torch.tensor([epoch_start + entry]), n))
                try:
                    image, image_notes = decode(self.split.encoded(row), self.max_pixels, self.split.white_level)
                except BadImage as error:
                    bad = BadRow(row, self.split.where(row), error.wrong)
                    if not self.skip_bad:
                        return failed(bad)
                    skipped.append(bad)
                    continue
                notes += [f"{self.split.where(row)}: {note}" for note in image_notes]
                staged.append(stage(image, self.stage_size))
                labels.append(int(self.split.labels[row]))
                break
            else:
                return failed(replace(skipped[-1], where="every training image", reason="not one can be decoded"))
        return collate(staged, labels, positions, skipped, notes)


# --- evaluation --------------------------------------------------------------------------------------------

ImageProcess = Callable[[Image.Image], Tensor]
"""What the model's own image processor does before normalisation: upright RGB -> uint8 (3, H, W)."""


class EvaluationBatches:
    """Every row of a split exactly once over all processes: no padding, no repetition.

    Iterating yields batches whose images already have the model's size.
    """

    def __init__(
        self,
        split: ImageSplit,
        process: ImageProcess,
        *,
        batch_size: int,
        skip_bad: bool,
        workers: int,
        pin: bool = False,
        rank: int = 0,
        world_size: int = 1,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        n = len(split)
        self.rows = range(n * rank // world_size, n * (rank + 1) // world_size)
        self._staging = _EvaluationStaging(split, process, skip_bad, max_pixels)
        self._batch_size, self._workers, self._pin = batch_size, workers, pin

    def __iter__(self) -> Iterator[StagedBatch]:
        starts = range(self.rows.start, self.rows.stop, self._batch_size)
        plan = (list(range(start, min(start + self._batch_size, self.rows.stop))) for start in starts)
        for batch in loader(self._staging, plan, self._workers, pin=self._pin):
            batch.raise_failure()
            yield batch


class _EvaluationStaging(Dataset[StagedBatch]):
    """Worker side: rows -> one batch of the images that the saved image processor makes."""

    def __init__(self, split: ImageSplit, process: ImageProcess, skip_bad: bool, max_pixels: int) -> None:
        self.split, self.process, self.skip_bad, self.max_pixels = split, process, skip_bad, max_pixels

    def __getitems__(self, rows: list[int]) -> StagedBatch:
        staged, used, skipped, notes = [], [], [], []
        for row in rows:
            try:
                image, image_notes = decode(self.split.encoded(row), self.max_pixels, self.split.white_level)
                staged.append(StagedImage(self.process(image), image.height, image.width))
            except BadImage as error:
                bad = BadRow(row, self.split.where(row), error.wrong)
                if not self.skip_bad:
                    return failed(bad)
                skipped.append(bad)
                continue
            notes += [f"{self.split.where(row)}: {note}" for note in image_notes]
            used.append(row)
        return collate(staged, self.split.labels[used].tolist(), used, skipped, notes)


# --- shared ------------------------------------------------------------------------------------------------


def collate(
    staged: Sequence[StagedImage],
    labels: Sequence[int],
    positions: Iterable[int],
    skipped: Sequence[BadRow] = (),
    notes: Sequence[str] = (),
) -> StagedBatch:
    """Lay staged images on one canvas."""
    sizes = torch.tensor([image.pixels.shape[-2:] for image in staged], dtype=torch.int64).reshape(-1, 2)
    height, width = sizes.amax(0).tolist() if len(staged) else (1, 1)
    if all(image.pixels.shape[-2:] == (height, width) for image in staged) and staged:
        images = torch.stack([image.pixels for image in staged])
    else:
        images = torch.zeros(len(staged), 3, height, width, dtype=torch.uint8)
        for canvas, image, (h, w) in zip(images, staged, sizes.tolist(), strict=True):
            canvas[:, :h, :w] = image.pixels
    originals = torch.tensor([(image.height, image.width) for image in staged], dtype=torch.int64).reshape(-1, 2)
    return StagedBatch(
        images,
        sizes,
        originals,
        torch.tensor(labels, dtype=torch.int64),
        torch.tensor(list(positions), dtype=torch.int64),
        tuple(skipped),
        tuple(notes),
    )


def staging_seconds(split: ImageSplit, stage_size: int, max_pixels: int = MAX_PIXELS, sample: int = 16) -> float:
    """Measure the seconds that staging one image takes here, over a few images spread over the split."""
    import time

    rows = np.linspace(0, len(split) - 1, num=min(sample, len(split)), dtype=int).tolist()
    start = time.perf_counter()
    for row in rows:
        try:
            stage(decode(split.encoded(row), max_pixels, split.white_level)[0], stage_size)
        except BadImage:
            continue  # the run meets it again and says so
    return (time.perf_counter() - start) / len(rows)


class _Batches:
    """A batch sampler whose batches are made when they are wanted."""

    def __init__(self, plan: Iterator[list[int]]) -> None:
        self._plan = plan

    def __iter__(self) -> Iterator[list[int]]:
        return self._plan


def loader(
    staging: Dataset[StagedBatch], batches: Iterator[list[int]] | None, workers: int, *, pin: bool
) -> Iterable[StagedBatch]:
    """Return what stages ``batches`` in worker processes, or what ``staging`` itself yields when there are none."""
    loaded = DataLoader(
        staging,
        batch_size=1 if batches else None,
        batch_sampler=_Batches(batches) if batches else None,
        collate_fn=_identity,
        num_workers=workers,
        multiprocessing_context=_start_method() if workers else None,
        prefetch_factor=4 if workers else None,
        pin_memory=pin,
        worker_init_fn=_leave_signals_to_the_training if workers else None,
    )
    return _as_long_as_workers_live(loaded) if workers else loaded


def _start_method() -> str:
    """Return how worker processes start: from a server that knows no CUDA; Windows has none, and starts them anew."""
    return "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


def _as_long_as_workers_live(loaded: DataLoader[StagedBatch]) -> Iterator[StagedBatch]:
    """Yield the batches of worker processes; raise ReaderLost if one ends, of which torch speaks in many tongues."""
    batches = iter(loaded)
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except (RuntimeError, OSError, EOFError) as error:
            workers = getattr(batches, "_workers", ())
            ended = [worker for worker in workers if worker.join(0.5) or worker.exitcode]
            if not ended:
                raise
            raise ReaderLost(int(ended[0].pid), int(ended[0].exitcode)) from error
        yield batch


def _leave_signals_to_the_training(_: int) -> None:
    """Go on in a worker when the whole group of processes is signalled: the training ends, and with it its workers."""

    def later(number: int, _: Any) -> None:
        signal.signal(number, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, later)  # the second one ends a worker that does not end by itself
    for name in ("SIGINT", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def _identity(batch: Any) -> Any:
    return batch


def failed(bad: BadRow) -> StagedBatch:
    """Return the empty batch that carries a bad row to the process that must stop."""
    return replace(collate([], [], []), failure=bad)

"""Worker processes that stage batches while the training computes.

They start by forkserver, so that no CUDA context or lock is inherited, and a training worker never imports
transformers; where that is not there, as on Windows, they are spawned.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterable, Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset

from vitft.data.batches import StagedBatch
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


class _Batches:
    """A batch sampler whose batches are made when they are wanted."""

    def __init__(self, plan: Iterator[list[int]]) -> None:
        self._plan = plan

    def __iter__(self) -> Iterator[list[int]]:
        return self._plan


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

"""Worker processes that stage batches while the model trains.

They start by forkserver, so that they inherit no CUDA context or lock, and training workers never import transformers.
Where there is no forkserver, as on Windows, they are spawned.
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
    """A process that reads images ended unexpectedly.

    Attributes:
        process: its id.
        signal: the signal that ended it; empty if none did.
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
    """Return the staged ``batches``, or what ``staging`` itself yields if ``batches`` is None."""
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
    """Return how worker processes start; Windows has no forkserver."""
    return "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


class _Batches:
    """A batch sampler that makes batches lazily."""

    def __init__(self, plan: Iterator[list[int]]) -> None:
        self._plan = plan

    def __iter__(self) -> Iterator[list[int]]:
        return self._plan


def _as_long_as_workers_live(loaded: DataLoader[StagedBatch]) -> Iterator[StagedBatch]:
    """Yield the batches of worker processes; raise ReaderLost if one ends, for which torch has many errors."""
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
    """Let a worker ignore signals to the whole process group: the main process handles them and ends its workers."""

    def later(number: int, _: Any) -> None:
        signal.signal(number, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, later)  # a second SIGTERM ends a worker that is stuck
    for name in ("SIGINT", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def _identity(batch: Any) -> Any:
    return batch

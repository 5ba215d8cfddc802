"""Stop a training at the end of a step, on all processes at once, after a signal or at the time limit."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from vitft.processes import signals
from vitft.recipe.lengths import Duration

if TYPE_CHECKING:
    from accelerate import Accelerator


def now() -> float:
    """Return the time on the clock of :class:`StopRequests`, in seconds."""
    return time.monotonic()


class StopRequests:
    """SIGTERM, SIGUSR1 and the time limit of this session; a resumed run gets the whole limit again."""

    def __init__(self, time_limit: Duration | None, accelerator: Accelerator, started: float) -> None:
        self._time_limit, self._accelerator, self._started = time_limit, accelerator, started
        # Agreeing through the CPU keeps every step from waiting for the GPU.
        several = accelerator.num_processes > 1
        self._group = torch.distributed.new_group(backend="gloo") if several and _is_gpu(accelerator) else None

    def request(self) -> str:
        """Return why this process should stop; empty to continue."""
        if name := signals.requested():
            return name
        limit = self._time_limit
        is_over = limit is not None and now() - self._started > limit.seconds
        return f"the time limit of {limit}" if is_over else ""

    def agreed(self) -> str:
        """Return why all processes stop after this step, empty to continue; every process must call this."""
        reason = self.request()
        if self._accelerator.num_processes == 1:
            return reason
        wanted = torch.tensor([bool(reason)], dtype=torch.int32)
        torch.distributed.all_reduce(wanted, group=self._group)
        if not wanted.item():
            return ""
        return reason or "another process was asked to stop"


def _is_gpu(accelerator: Accelerator) -> bool:
    return bool(accelerator.device.type == "cuda")


@contextmanager
def stop_requests(time_limit: Duration | None, accelerator: Accelerator, started: float) -> Iterator[StopRequests]:
    """Hold back requests to stop inside this block, which must ask for them itself.

    Args:
        time_limit: of this session.
        accelerator: knows the other processes.
        started: when the session's training began, as :func:`now` says.
    """
    with signals.postponed():
        yield StopRequests(time_limit, accelerator, started)

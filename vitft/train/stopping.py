"""Requests to stop wait for the end of a step, on all processes alike; the time limit is one too."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from vitft import signals
from vitft.durations import Duration


@contextmanager
def stop_requests(time_limit: Duration | None) -> Iterator[Callable[[], str]]:
    """Let SIGTERM, SIGUSR1 and the time limit wait for the end of a step.

    Yields:
        What returns why to stop, empty to go on.
    """
    started = time.monotonic()  # of this session: a resumed run has the whole limit again

    def request() -> str:
        if name := signals.requested():
            return name
        is_over = time_limit is not None and time.monotonic() - started > time_limit.seconds
        return f"the time limit of {time_limit}" if is_over else ""

    with signals.postponed():
        yield request


def agree(request: Callable[[], str], accelerator: Any) -> str:
    """Return why all processes stop after this step, empty if they go on."""
    reason = request()
    if accelerator.num_processes == 1:
        return reason
    wanted = torch.tensor([float(bool(reason))], device=accelerator.device)
    if float(accelerator.reduce(wanted, "sum")) == 0:
        return ""
    return reason or "another process was asked to stop"

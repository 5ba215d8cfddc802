"""Requests to stop: SIGTERM, SIGUSR1 and the time limit wait for the end of a step, on all processes alike."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from vitft.durations import Duration
from vitft.errors import StoppedEarly
from vitft.run import Run


@contextmanager
def stop_requests(time_limit: Duration | None) -> Iterator[Callable[[], str]]:
    """Let SIGTERM, SIGUSR1 and the time limit wait for the end of a step.

    Yields:
        What returns why to stop, empty to go on.
    """
    started = time.monotonic()  # of this session: a resumed run has the whole limit again
    received: list[str] = []

    def request() -> str:
        if received:
            return received[0]
        is_over = time_limit is not None and time.monotonic() - started > time_limit.seconds
        return f"the time limit of {time_limit}" if is_over else ""

    with on_stop_signals(received.append):
        yield request


@contextmanager
def stop_at_once(run: Run) -> Iterator[None]:
    """Let SIGTERM and SIGUSR1 end what follows the last step, whose checkpoint is complete."""

    def stop(name: str) -> None:
        raise StoppedEarly(
            f"stopped after the last step ({name}); the checkpoint is complete",
            hint=f"vitft finetune --resume {run.folder}",
        )

    with on_stop_signals(stop):
        yield


def agree(request: Callable[[], str], accelerator: Any) -> str:
    """Return why all processes stop after this step, empty if they go on."""
    reason = request()
    if accelerator.num_processes == 1:
        return reason
    wanted = torch.tensor([float(bool(reason))], device=accelerator.device)
    if float(accelerator.reduce(wanted, "sum")) == 0:
        return ""
    return reason or "another process was asked to stop"


@contextmanager
def on_stop_signals(act: Callable[[str], None]) -> Iterator[None]:
    """Let SIGTERM and SIGUSR1 call ``act`` with their name."""
    if threading.current_thread() is not threading.main_thread():
        yield  # a notebook's worker thread gets no signals
        return
    wanted = [signal.SIGTERM] + ([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else [])
    before = {number: signal.signal(number, lambda n, _: act(signal.Signals(n).name)) for number in wanted}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

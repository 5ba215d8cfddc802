"""Requests to stop: SIGTERM and SIGUSR1, at any moment.

A request is not an error. It is raised as a BaseException, so that no ``except Exception``, ours or another library's,
catches it, and becomes an outcome in one place, :func:`stoppable`. Inside :func:`postponed` it waits to be asked for.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

_ECHO = 5.0
"""Seconds in which a second signal repeats the first: scheduler, launcher and shell may each send one."""


class StopRequest(BaseException):
    """Somebody asked this process to stop; its text is the signal's name."""


@dataclass
class _Listening:
    """The signals received while this process listens; there is one such object per process."""

    process: int = 0
    received: list[str] = field(default_factory=list)
    is_postponed: bool = False
    raised_at: float = float("-inf")


_listening = _Listening()


@contextmanager
def stoppable(outcome: Callable[[str], Exception], *, is_last: bool = False) -> Iterator[None]:
    """Let SIGTERM and SIGUSR1 end this block at once with ``outcome``.

    Args:
        outcome: makes the exception to raise, from the name of the signal.
        is_last: whether the process ends after the block. Its exit code is then settled, so later signals are ignored.
    """
    with _heard(is_last=is_last):
        try:
            yield
        except StopRequest as request:
            raise outcome(str(request)) from None


@contextmanager
def postponed() -> Iterator[None]:
    """Hold back requests inside this block, for :func:`requested`; at its end a pending one is raised."""
    with _heard():
        before, _listening.is_postponed = _listening.is_postponed, True
        try:
            yield
        finally:
            _listening.is_postponed = before
        check()


def requested() -> str:
    """Return the name of the signal that asked this process to stop; empty if none did."""
    return _listening.received[0] if _listening.received else ""


def interrupted() -> str:
    """Return the name of the signal that has interrupted this process, even if the interruption was swallowed."""
    return requested() if _listening.raised_at > float("-inf") else ""


def check() -> None:
    """Raise a request that was postponed, or swallowed by another library's bare ``except``."""
    if _listening.received and not _listening.is_postponed:
        raise StopRequest(requested())


@contextmanager
def _heard(*, is_last: bool = False) -> Iterator[None]:
    """Listen for signals; the outermost of nested calls restores the previous handlers."""
    is_outermost = _listening.process != os.getpid()
    if not is_outermost or threading.current_thread() is not threading.main_thread():
        yield  # a notebook's worker thread gets no signals
        return
    _listening.__init__(os.getpid())  # type: ignore[misc]
    before = {number: signal.signal(number, _receive) for number in _numbers()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, _ignore if is_last else handler)
        _listening.__init__()  # type: ignore[misc]


def _ignore(number: int, _: Any) -> None:
    """Do nothing (child processes would inherit SIG_IGN)."""


def _numbers() -> list[signal.Signals]:
    return [signal.SIGTERM] + ([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else [])


def _receive(number: int, _: Any) -> None:
    if _listening.process != os.getpid():  # a forked child, which has nothing to finish
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        return
    name, now = signal.Signals(number).name, time.monotonic()
    _listening.received.append(name)
    if not _listening.is_postponed and now - _listening.raised_at > _ECHO:
        _listening.raised_at = now
        raise StopRequest(name)

"""Visits to the Hub, repeated while the failure may pass.

The Hub's client repeats some of its calls and not others: one answer of 503 to ``whoami`` or to a commit is final
there. Here every call is repeated, and ``Retry-After`` is honoured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

Answer = TypeVar("Answer")

WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each further try."""
LONGEST_WAIT = 300.0
"""The most seconds that a ``Retry-After`` is obeyed for."""

TIMEOUT = 300.0
"""Seconds without a byte after which an answer is not waited for any more."""

_CUT_OFF = {
    "TimeoutException", "RemoteProtocolError", "ReadError", "WriteError", "CloseError", "ChunkedEncodingError",
    "IncompleteRead", "ConnectionResetError", "BrokenPipeError", "TimeoutError",
}  # fmt: skip
_NEVER_REACHED = {"ConnectError", "ConnectTimeout", "ProxyError", "ConnectionRefusedError"}


def is_passing(error: BaseException) -> bool:
    """Return whether a failure may be gone in a second: the Hub is busy, or the line broke.

    A Hub that could not be reached at all will hardly be there in a second; who waits for it decides on that.
    """
    status = status_of(error)
    if status:
        return status in (408, 409, 412, 429) or status >= 500
    return bool(kinds_of(error) & _CUT_OFF) and not is_unreachable(error)


def patiently(
    call: Callable[[], Answer],
    waits: Sequence[float] = WAITS,
    *,
    passes: Callable[[BaseException], bool] = is_passing,
) -> Answer:
    """Return what ``call`` returns, trying again while it fails in a way that may pass.

    Args:
        call: a visit to the Hub that may be made twice without harm.
        waits: seconds before each further try; a longer ``Retry-After`` is obeyed.
        passes: which failures another try makes sense after.

    Raises:
        Exception: the last failure, or the first that will not pass.
    """
    from huggingface_hub import get_session

    for wait in (*waits, None):
        get_session().timeout = TIMEOUT  # the client waits for ever, and makes itself anew after some failures
        try:
            return call()
        except Exception as error:  # the Hub client's errors share no ancestor but Exception
            if wait is None or not passes(error):
                raise
            time.sleep(max(wait, _asked_to_wait(error)))
    raise AssertionError("the last try returns or raises")


def is_unreachable(error: BaseException) -> bool:
    """Return whether no connection to the Hub came about."""
    return bool(kinds_of(error) & _NEVER_REACHED) and status_of(error) == 0


def status_of(error: BaseException) -> int:
    """Return the HTTP status of the answer that a failure came from; 0 if there was none."""
    for link in chain(error):
        if (status := getattr(getattr(link, "response", None), "status_code", 0)) != 0:
            return int(status)
    return 0


def kinds_of(error: BaseException) -> set[str]:
    """Return the names of the classes of an error, of its causes and of all their ancestors.

    By name: the client's classes moved between modules and transports (requests, httpx, httpx2).
    """
    return {ancestor.__name__ for link in chain(error) for ancestor in type(link).__mro__}


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what caused it, back to the first."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__ or error.__context__


def _asked_to_wait(error: BaseException) -> float:
    """Return the seconds that the answer's ``Retry-After`` asks for, given as a number or as a date."""
    for link in chain(error):
        headers = getattr(getattr(link, "response", None), "headers", None) or {}
        text = str(headers.get("Retry-After", "")).strip()
        if not text:
            continue
        if text.isdigit():
            return min(float(text), LONGEST_WAIT)
        try:
            seconds = (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return 0.0
        return min(max(seconds, 0.0), LONGEST_WAIT)
    return 0.0

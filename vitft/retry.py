"""Retry requests to the Hub while the failure may be temporary.

The Hub's client retries some calls but not others: a single 503 for ``whoami`` or a commit is final there. Here every
call is retried, and ``Retry-After`` is honoured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

Answer = TypeVar("Answer")

WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each retry."""
LONGEST_WAIT = 300.0
"""The longest ``Retry-After`` that is honoured, in seconds."""

TIMEOUT = 300.0
"""Seconds without a byte after which a request is given up."""

_CUT_OFF = {
    "TimeoutException", "RemoteProtocolError", "ReadError", "WriteError", "CloseError", "ChunkedEncodingError",
    "IncompleteRead", "ConnectionResetError", "BrokenPipeError", "TimeoutError",
}  # fmt: skip
_NEVER_REACHED = {"ConnectError", "ConnectTimeout", "ProxyError", "ConnectionRefusedError"}


def is_passing(error: BaseException) -> bool:
    """Return whether a failure may be temporary: the Hub is busy, or the connection broke.

    A Hub that cannot be reached at all does not count; a caller that wants to wait for it checks that itself.
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
    """Return the result of ``call``, retrying temporary failures.

    Args:
        call: a request that is safe to repeat.
        waits: seconds before each retry; a longer ``Retry-After`` wins.
        passes: whether a failure is temporary.

    Raises:
        Exception: the last failure, or the first that is not temporary.
    """
    from huggingface_hub import get_session

    for wait in (*waits, None):
        get_session().timeout = TIMEOUT  # by default it waits for ever; some failures make a new session
        try:
            return call()
        except Exception as error:  # the Hub client's errors have no common base class
            if wait is None or not passes(error):
                raise
            time.sleep(max(wait, _asked_to_wait(error)))
    raise AssertionError("the last try returns or raises")


def is_unreachable(error: BaseException) -> bool:
    """Return whether no connection to the Hub was made."""
    return bool(kinds_of(error) & _NEVER_REACHED) and status_of(error) == 0


def status_of(error: BaseException) -> int:
    """Return the HTTP status behind a failure; 0 if there was no answer."""
    for link in chain(error):
        if (status := getattr(getattr(link, "response", None), "status_code", 0)) != 0:
            return int(status)
    return 0


def kinds_of(error: BaseException) -> set[str]:
    """Return the class names of an error and its causes, base classes included.

    Names, because the client's classes have moved between modules and transports (requests, httpx, httpx2).
    """
    return {ancestor.__name__ for link in chain(error) for ancestor in type(link).__mro__}


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes, back to the first."""
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

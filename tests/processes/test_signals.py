"""The edge at which a request to stop becomes an outcome, and nowhere else."""

from __future__ import annotations

import os
import signal
import time

import pytest

from vitft.errors import StoppedEarly
from vitft.processes import signals


def stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def outcome(signal: str) -> StoppedEarly:
    return StoppedEarly(signal)


def test_a_request_passes_every_except_exception_and_becomes_an_outcome_at_the_edge() -> None:
    with pytest.raises(StoppedEarly, match="SIGTERM"), signals.stoppable(outcome):
        try:
            stop()
            time.sleep(1)
        except Exception:
            pytest.fail("it was taken for an error")


def test_a_request_that_was_swallowed_is_raised_at_the_next_look() -> None:
    with pytest.raises(StoppedEarly), signals.stoppable(outcome):
        try:
            stop()
            time.sleep(1)
        except BaseException:
            pass
        signals.check()
        pytest.fail("it was forgotten")


def test_a_request_waits_where_it_is_postponed_and_is_seen_there() -> None:
    with pytest.raises(StoppedEarly), signals.stoppable(outcome):
        with signals.postponed():
            stop()
            time.sleep(0.01)
            assert signals.requested() == "SIGTERM"
        pytest.fail("nobody acted on it")


def test_an_echo_of_the_signal_does_not_disturb_the_way_out() -> None:
    with pytest.raises(StoppedEarly), signals.stoppable(outcome):
        try:
            stop()
            time.sleep(1)
        finally:
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.01)


def test_handlers_are_put_back_unless_the_process_is_about_to_end() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with signals.stoppable(outcome):
        pass
    assert signal.getsignal(signal.SIGTERM) == before
    try:
        with signals.stoppable(outcome, is_last=True):
            pass
        stop()
        time.sleep(0.01)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_forked_child_ends_by_the_signal_as_if_it_had_never_listened() -> None:
    with signals.stoppable(outcome):
        if (child := os.fork()) == 0:
            try:
                stop()
                time.sleep(5)
            except BaseException:
                os._exit(1)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM

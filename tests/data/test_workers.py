"""Processes that read images: their signals, and how their end is told."""

import os
import signal
import time

from vitft.data.workers import ReaderLost, _leave_signals_to_the_training


def test_a_worker_outlives_the_signal_that_its_whole_group_gets_but_not_a_second_one():
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        _leave_signals_to_the_training(0)
        for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM):
            os.kill(os.getpid(), number)
            time.sleep(0.01)
        os.write(writing, b"alive")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        os._exit(0)
    os.close(writing)
    assert os.read(reading, 5) == b"alive"
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    os.close(reading)


def test_a_lost_reader_says_how_it_ended():
    assert ReaderLost(7, -9).wrong == "a process that reads images (7) is gone: SIGKILL ended it"
    assert ReaderLost(7, 3).wrong == "a process that reads images (7) is gone: it ended with code 3"

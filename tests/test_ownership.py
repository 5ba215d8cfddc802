"""A lock that lets one owner in, names it, and dies with its process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vitft.errors import TrainError
from vitft.ownership import Ownership

HOLD = """
import sys, time
from pathlib import Path
from vitft.ownership import Ownership
held = Ownership.take(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
held.release()
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    """Return another process that owns a run."""
    root = Path(__file__).parents[1]
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_second_owner_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    with holder(tmp_path) as first:
        with pytest.raises(TrainError) as refused:
            Ownership.take(tmp_path)
        assert f"is in use by process {first.pid} on '{socket.gethostname()}', since 20" in refused.value.wrong
        first.communicate("")
    Ownership.take(tmp_path).release()
    assert list(tmp_path.iterdir()) == []


def test_the_lock_dies_with_its_process(tmp_path: Path) -> None:
    with holder(tmp_path) as first:
        first.kill()
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    Ownership.take(tmp_path).release()
    assert list(tmp_path.iterdir()) == []


def test_two_threads_of_a_process_are_two_owners(tmp_path: Path) -> None:
    first = Ownership.take(tmp_path)
    with pytest.raises(TrainError, match=f"by this process \\({os.getpid()}\\)"):
        Ownership.take(tmp_path)
    first.release()
    first.release()  # once more does nothing
    second = Ownership.take(tmp_path)
    first.release()
    assert (tmp_path / ".lock").is_file()
    second.release()


def test_a_lock_that_says_nonsense_is_still_a_lock(tmp_path: Path) -> None:
    with holder(tmp_path) as first:
        (tmp_path / ".lock").write_text("[]")
        with pytest.raises(TrainError, match="is in use by another process"):
            Ownership.take(tmp_path)
        first.communicate("")


def test_many_who_want_a_run_at_once_have_it_one_after_another(tmp_path: Path) -> None:
    """Each writes that it has the run, and that it has not: no two may have it together."""
    log = tmp_path.with_suffix(".log")

    def work() -> None:
        deadline = time.monotonic() + 20
        for _ in range(20):
            while True:
                try:
                    owner = Ownership.take(tmp_path)
                except TrainError:
                    assert time.monotonic() < deadline
                    time.sleep(0.0005)
                    continue
                break
            with log.open("a") as file:
                file.write(f"{os.getpid()}\n")
                file.flush()
                time.sleep(0.001)
                file.write(f"{os.getpid()}\n")
            owner.release()
        os._exit(0)

    children = []
    for _ in range(3):
        if (child := os.fork()) == 0:
            work()
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]
    lines = log.read_text().splitlines()
    assert len(lines) == 3 * 20 * 2
    assert lines[::2] == lines[1::2]
    assert list(tmp_path.iterdir()) == []

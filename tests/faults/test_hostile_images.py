"""Damaged images, in a process of its own that the system stops if it takes too much."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = Path(__file__).with_name("decode_mutants.py")


def decode_in_a_child(count, seed, timeout):
    """Return what the child saw; everything that is wrong about it is in ``wrong``."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, str(CHILD), str(count), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr == "", "a library wrote to the terminal"
    return json.loads(done.stdout)


def test_a_damaged_image_is_read_or_refused_in_little_time_and_memory():
    seen = decode_in_a_child(1500, seed=0, timeout=60)
    assert seen["wrong"] == []
    assert seen["read"] > 100 and seen["refused"] > 500


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_so_are_many_damaged_images(seed):
    seen = decode_in_a_child(5000, seed, timeout=250)
    assert seen["wrong"] == []

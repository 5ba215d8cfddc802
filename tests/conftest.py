"""What every test stands on: no network, one thread, caches of its own; markers whose means are missing skip."""

from __future__ import annotations

import atexit
import gc
import importlib.util
import ipaddress
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vitft import svg
from vitft.scoring import evidence

# Before torch and the Hub's client are imported, which read these once; children inherit them.
_CACHE = Path(tempfile.mkdtemp(prefix="vitft-tests-"))
atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)
os.environ |= {
    "VITFT_CACHE": str(_CACHE / "vitft"),
    "HF_HOME": str(_CACHE),
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
for _name in ("HF_DATASETS_CACHE", "HF_HUB_CACHE", "HF_MODULES_CACHE", "HF_TOKEN", "TRANSFORMERS_CACHE"):
    os.environ.pop(_name, None)


def _why_no_timm() -> str:
    """Return why timm cannot be loaded; empty if it can.

    A torchvision for another build of torch (a CUDA one beside torch for the CPU) fails for want of two compiled
    operators, which nothing here calls: declared by name, all that timm uses of it works. That must happen before
    transformers, which takes an installed torchvision for one that works.
    """
    for name in ("timm", "torchvision"):
        if importlib.util.find_spec(name) is None:
            return f"{name} is not installed: pip install 'vitft[timm]'"
    import torch

    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError, OSError):
        for name in [each for each in sys.modules if each.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    try:
        import timm  # noqa: F401
    except (ImportError, RuntimeError, OSError) as error:
        return f"timm cannot be loaded: {error}"
    return ""


_NO_TIMM = _why_no_timm()
_NOT_ON_PAGES = ("train", "faults", "hub", "processes", "data")
_DRAWN, _NUM_DRAWS = svg._drawn, evidence.NUM_DRAWS
_REAL_DATA = Path(__file__).parents[2] / "shared" / "data"

# Their subjects are signals, forks, several processes, the cache, and pipes and modes of files, which Windows has not.
_POSIX = ["faults/*", "train/test_processes.py", "train/test_resume.py", "train/test_sharding.py"]
_POSIX += ["train/test_caching.py", "data/test_store.py", "data/test_cache.py", "data/test_staged_store.py"]
_POSIX += ["test_disk.py", "test_files.py", "test_portability.py"]
_POSIX += ["processes/test_launch.py", "processes/test_signals.py"]
collect_ignore_glob = _POSIX if os.name == "nt" else []

# Run first: a file is one worker's, which would go on with a long one when the others have nothing left.
_LONG = ("train/test_processes.py", "train/test_resume.py", "hub/test_faults.py", "faults/test_kills.py")
_LONG += ("hub/test_whole_way.py", "test_portability.py", "processes/test_launch.py", "train/test_sharding.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.path.as_posix().endswith(_LONG))
    missing: dict[str, str] = {}
    if os.environ.get("VITFT_SLOW") != "1":
        missing["slow"] = "takes minutes; VITFT_SLOW=1 runs it"
    if not _REAL_DATA.is_dir():
        missing["real"] = f"there is no real data in {_REAL_DATA}"
    if any(item.get_closest_marker("gpu") for item in items) and not _has_accelerator():
        missing["gpu"] = "there is no accelerator"
    if _NO_TIMM:
        missing["timm"] = _NO_TIMM
    for item in items:
        for marker, reason in missing.items():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let the runs of tests on training, faults and the Hub end without drawing, a fifth of their time.

    Not a fixture, because those of a session would come before it.
    """
    is_quick = item.path.parent.name in _NOT_ON_PAGES
    svg._drawn = (lambda figure, salt: '<svg viewBox="0 0 1 1"></svg>') if is_quick else _DRAWN
    evidence.NUM_DRAWS = 20 if is_quick else _NUM_DRAWS


def pytest_collection_finish() -> None:
    """Keep what is imported by now out of garbage collections, of which every run ends with a whole one.

    It is a million objects; in a forked child, each look at one would also copy its page of memory.
    """
    gc.collect()
    gc.freeze()


def _has_accelerator() -> bool:
    import torch

    return torch.cuda.is_available() or torch.xpu.is_available() or torch.backends.mps.is_available()


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let connections go no further than this machine; a test that tried one fails, even if its error was caught."""
    attempts: list[object] = []
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def is_far(host: object) -> bool:
        try:
            return not ipaddress.ip_address(str(host)).is_loopback
        except ValueError:
            return host not in (None, "", "localhost", socket.gethostname())

    def refuse(host: object) -> None:
        attempts.append(host)
        raise ConnectionError(f"a test reached for the network: {host}")

    def guarded_connect(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and is_far(address[0]):
            refuse(address)
        connect(self, address)

    def guarded_look_up(host: Any, *args: Any, **kwargs: Any) -> Any:
        if is_far(host.decode() if isinstance(host, bytes) else host):
            refuse(host)
        return look_up(host, *args, **kwargs)

    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket, "getaddrinfo", guarded_look_up)
    yield
    assert not attempts, f"the test reached for the network: {attempts}"

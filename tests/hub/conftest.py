from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_client import Client
from hub_server import Hub, User, serve


@pytest.fixture(scope="session")
def _hub() -> Iterator[Hub]:
    with serve() as hub:
        yield hub


@pytest.fixture
def hub(_hub: Hub) -> Hub:
    """Return an empty Hub where ``me``, who is in ``lab``, has tokens that write and read."""
    url = _hub.url
    _hub.__init__()  # type: ignore[misc]
    _hub.url = url
    orgs = {"lab": "write", "club": "read"}
    _hub.users = {"hf_writer": User("me", orgs=orgs), "hf_reader": User("me", "read", orgs), "hf_other": User("other")}
    return _hub


@pytest.fixture(scope="session")
def client(_hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Return a warm process in which vitft runs against the Hub."""
    client = Client(_hub.url, tmp_path_factory.mktemp("user"))
    yield client
    client.close()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a finished run of a tiny ViT, made once and copied by ``run``."""
    import sys

    sys.path.insert(0, str(Path(__file__).parents[1] / "train"))
    import tiny

    from vitft import finetune

    home = tmp_path_factory.mktemp("home")
    tiny.make_checkpoint(home / "checkpoint")
    tiny.make_photos(home / "photos")
    folder = finetune(tiny.recipe(home, run__name="leaves")).run_dir
    assert folder is not None
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """Return a finished run of its own."""
    return Path(shutil.copytree(finished, tmp_path / "leaves"))

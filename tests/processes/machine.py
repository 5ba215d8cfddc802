"""A machine without launcher, GPU and accelerate config around the test, whatever the real one has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def make_plain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No launcher around us, no GPU, no accelerate config; returns where the default config would be."""
    for name in (*os.environ, "RANK"):
        if name.startswith("ACCELERATE_") or name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
            monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VITFT_SHARDING", "")  # as it is set by what is tested, it must be undone
    monkeypatch.delenv("VITFT_SHARDING")
    default = tmp_path / "default_config.yaml"
    for module in ("config.config_args", "launch"):
        monkeypatch.setattr(f"accelerate.commands.{module}.default_config_file", str(default))
    see_devices(monkeypatch, 0)
    return default


def see_devices(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    monkeypatch.setattr("torch.xpu.device_count", lambda: 0)


def write_config(path: Path, **values: object) -> str:
    """Write what ``accelerate config`` would, and return the path."""
    values = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "NO",
        "mixed_precision": "no",
    } | values
    path.write_text(
        "".join(f"{key}: '{value}'\n" if value == "no" else f"{key}: {value}\n" for key, value in values.items())
    )
    return str(path)

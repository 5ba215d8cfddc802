"""Record where a run was made: package versions, hardware, git commit."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib import metadata

_PACKAGES = (
    "vitft", "torch", "transformers", "datasets", "accelerate", "evaluate", "safetensors", "huggingface_hub", "numpy",
    "pillow",
)  # fmt: skip


def environment(**more: object) -> dict[str, object]:
    """Return versions, hardware and git state, with the facts in ``more`` added."""
    import torch

    def version(package: str) -> str | None:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return None

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        # The package's own version leaves out the build, such as +cu130.
        "versions": {package: version(package) for package in _PACKAGES} | {"torch": str(torch.__version__)},
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "git": _git_state(),
        **more,
    }


def _git_state() -> dict[str, object] | None:
    """Return the commit of the working directory and whether it is clean; None outside a repository."""
    git = shutil.which("git")
    if git is None:
        return None
    try:
        commit = subprocess.run([git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True)
        state = subprocess.run(
            [git, "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=5, check=True
        )
    except (subprocess.SubprocessError, OSError):
        return None
    return {"commit": commit.stdout.strip(), "clean": not state.stdout.strip()}

"""Choose a run's device and precision, and make accelerate's Accelerator for them."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import torch

from vitft.errors import UsageError
from vitft.processes.accelerate_config import (
    Said,
    accelerate_settings,
    is_worker,
    reconcile,
    take_over_engines,
)
from vitft.recipe.recipe import Recipe

_LONGEST_WAIT = timedelta(hours=6)  # for the main process, which may be downloading a dataset


def make_accelerator(recipe: Recipe) -> tuple[Any, dict[str, str]]:
    """Return accelerate's Accelerator for the recipe, and the reasons for its device and precision.

    Raises:
        UsageError: if the device is missing or cannot do the precision, or the processes are not connected.
    """
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs, GradientAccumulationPlugin, InitProcessGroupKwargs

    take_over_engines()
    expected = int(os.environ.get("WORLD_SIZE", "1"))
    if expected > 1 and not is_worker():
        raise UsageError(
            f"WORLD_SIZE={expected} is set, but no launcher started this process: RANK or LOCAL_RANK is missing",
            hint=f"unset WORLD_SIZE, or vitft finetune --num-processes {expected} ...",
        )
    said = reconcile(replace(accelerate_settings(), accumulation=None), recipe.flat(), batch_size=2, num_processes=1)
    device, device_reason = _device(recipe.train.device, said)
    precision, precision_reason = _precision(recipe.train.precision, device, said)
    if device not in ("auto", "cpu"):
        os.environ["ACCELERATE_TORCH_DEVICE"] = device
    if recipe.train.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    device_reason += _grow_segments(device)
    _forget_former_accelerator()
    accelerator = Accelerator(
        cpu=device == "cpu",
        mixed_precision={"fp32": "no"}.get(precision, precision),
        # We accumulate ourselves; accelerate would divide the loss by the steps in its environment variable.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        log_with=list(recipe.run.track) or None,
        project_dir=recipe.run.output_dir,  # trackers need one; the run's own folder replaces it once it exists
        kwargs_handlers=[
            DistributedDataParallelKwargs(gradient_as_bucket_view=True),
            InitProcessGroupKwargs(timeout=_LONGEST_WAIT),
        ],
    )
    if accelerator.num_processes != expected:
        raise UsageError(
            f"the launcher started {expected} processes, but accelerate counts {accelerator.num_processes}: "
            "each would train alone",
            hint=f"vitft finetune --num-processes {expected} ...",
        )
    return accelerator, {"device": device_reason, "precision": precision_reason}


def _grow_segments(device: str) -> str:
    """Let CUDA's allocator extend its segments, so that less is lost between them; return what to say of it.

    What the user has set stays. It takes effect if this process has not used the GPU yet.
    """
    own = {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"} & os.environ.keys()
    if device == "cpu" or own or sys.platform != "linux" or not torch.cuda.is_available() or not torch.version.cuda:
        return ""
    os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"
    return "; PYTORCH_ALLOC_CONF=expandable_segments:True"


def _forget_former_accelerator() -> None:
    """Let a second run in the same process, as in a notebook, use another device or precision.

    accelerate keeps both for the life of a process and has no public way to reset them. The process group of a launched
    run is kept.
    """
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state="WORLD_SIZE" not in os.environ)


def _device(wanted: str, said: Mapping[str, Said]) -> tuple[str, str]:
    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    available = {
        "cpu": True,
        "cuda": cuda > 0,
        "mps": torch.backends.mps.is_available(),
        "xpu": torch.xpu.is_available(),
    }
    present = [name for name, here in available.items() if here]
    kind, _, index = wanted.partition(":")
    if kind != "auto" and (not available[kind] or (index and int(index) >= cuda)):
        there = f"{cuda} CUDA device{'s' if cuda != 1 else ''}" if kind == "cuda" else f"no {kind} device"
        raise UsageError(
            f"train.device: {wanted} is not available: this machine has {there} (torch {torch.__version__})",
            allowed=", ".join(["auto", *present, *(f"cuda:{i}" for i in range(cuda))]),
            hint="--device auto",
        )
    if kind != "auto":
        return wanted, "as given"
    if "train.device" in said:
        return str(said["train.device"].value), f"from {said['train.device'].source}"
    if present == ["cpu"]:
        return "cpu", "no accelerator was found"
    return "auto", f"the best of {', '.join(present)}"


def _cpu_is_faster_in_bf16() -> bool:
    """Whether the CPU multiplies bf16 itself (AVX-512 BF16, AMX); False where torch does not say."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16"))


def _precision(wanted: str, device: str, said: Mapping[str, Said]) -> tuple[str, str]:
    reason = "as given"
    if "train.precision" in said:
        wanted, reason = str(said["train.precision"].value), f"from {said['train.precision'].source}"
    on_cuda = device != "cpu" and torch.cuda.is_available()
    if wanted == "auto":
        if on_cuda and torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16", "this GPU is fast in bf16; weights stay float32"
        if on_cuda:
            return "fp16", "this GPU has no bf16; weights stay float32, the loss is scaled"
        if device == "cpu" and _cpu_is_faster_in_bf16():
            return "fp32", "exact; --precision bf16 is faster on this CPU"
        return "fp32", "no accelerator with fast half precision"
    if wanted == "fp16" and not on_cuda:
        raise UsageError(
            "train.precision: fp16 needs a CUDA device",
            allowed="bf16, fp32 or auto on this machine",
            hint="--precision auto",
        )
    return wanted, reason

"""accelerate's settings for FSDP: version 2 becomes vitft's own sharding, the rest is refused."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from vitft.errors import UsageError

_USE_FSDP = "ACCELERATE_USE_FSDP"
ASK_FOR_FSDP = {_USE_FSDP: "true", "FSDP_VERSION": "2"}
"""Environment variables with which accelerate's launcher asks its processes for FSDP2."""
SHARDING = "VITFT_SHARDING"
"""Environment variable of a process that was asked for FSDP2."""


def take_over_fsdp(launcher: str) -> None:
    """Note that the environment asks for FSDP2, and hide that from accelerate and transformers.

    accelerate would shard by itself, but only on GPUs; transformers would load weights in the main process only.

    Args:
        launcher: what set the environment; empty if the user did.

    Raises:
        UsageError: if the environment asks for what vitft does not do.
    """
    if os.environ.get(_USE_FSDP, "").lower() not in ("1", "true", "t", "yes", "y", "on"):
        return
    names = ("FSDP_VERSION", *(name.upper() for name in _INSTEAD))
    said = {name.lower(): os.environ[name] for name in names if name in os.environ}
    if launcher:
        check_fsdp(said, launcher)
    else:
        check_fsdp(said, f"the environment ({_USE_FSDP})", hint=f"unset {_USE_FSDP}, and give vitft --fsdp")
    os.environ[SHARDING] = os.environ.pop(_USE_FSDP)


_INSTEAD = {
    "fsdp_offload_params": "more processes, or --set train.gradient_checkpointing=true",
    "fsdp_activation_checkpointing": "--set train.gradient_checkpointing=true",
}


def check_fsdp(settings: Mapping[str, Any], source: str, hint: str = "fsdp_version: 2 there, or --fsdp") -> None:
    """Raise UsageError for FSDP1, and for parts of FSDP2 that vitft does not do or does under another name.

    Args:
        settings: of FSDP, as in accelerate's config.
        source: where they come from, for messages.
        hint: what to do about version 1.
    """
    said = {name.removeprefix("fsdp_"): str(value).lower() for name, value in settings.items()}
    if said.get("version") != "2":
        raise UsageError(
            f"{source} asks for FSDP version 1, which vitft does not support", allowed="FSDP version 2", hint=hint
        )
    for name, instead in _INSTEAD.items():
        if str(settings.get(name)).lower() == "true":
            raise UsageError(
                f"{source} asks for {name}, which vitft does not support", hint=f"{name}: false; {instead}"
            )


def asks_for_fsdp(said: Any, config: Any) -> bool:
    """Whether arguments of accelerate's launcher or its config, None if there is none, ask for FSDP."""
    return bool(said.use_fsdp) or (config is not None and is_fsdp(config))


def is_fsdp(config: Any) -> bool:
    """Whether accelerate's config asks for FSDP."""
    return bool(getattr(config.distributed_type, "value", config.distributed_type) == "FSDP")


def without_fsdp(launcher_args: Sequence[str]) -> list[str]:
    """Return the launcher's arguments without those about FSDP, because it is told to start DDP."""
    kept: list[str] = []
    is_value = False
    for argument in launcher_args:
        name = argument.replace("-", "_")
        if name.startswith(("__fsdp_", "__use_fsdp")):
            is_value = name != "__use_fsdp" and "=" not in argument
        elif argument.startswith("--") or not is_value:
            is_value = False
            kept.append(argument)
        else:
            is_value = False
    return kept

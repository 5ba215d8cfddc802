"""Read accelerate's settings (config file, launcher, environment), and apply them to a recipe."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vitft.errors import UsageError
from vitft.processes.fsdp import SHARDING, check_fsdp, is_fsdp, take_over_fsdp


def is_worker() -> bool:
    """Whether a launcher started this process: torchrun, or accelerate's, even for a single process."""
    return {"WORLD_SIZE", "RANK", "LOCAL_RANK"} <= os.environ.keys() or "ACCELERATE_DYNAMO_MODE" in os.environ


def check_worker(num_processes: int | None, launcher_args: Sequence[str]) -> None:
    """Raise UsageError if a launched process got options that only its launcher could act on."""
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    if num_processes not in (None, world_size):
        raise UsageError(
            f"--num-processes {num_processes} was given inside a launcher that started {world_size}",
            hint=f"leave it out, or give the launcher --num_processes {num_processes}",
        )
    if launcher_args:
        raise UsageError(
            f"launcher arguments ({' '.join(launcher_args)}) were given inside a launcher",
            hint="give them to that launcher",
        )
    take_over_engines()


def take_over_engines() -> None:
    """Shard by ourselves if environment variables, which accelerate always obeys, ask for FSDP2.

    Raises:
        UsageError: if they ask for another engine.
    """
    for engine in ("DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG"):
        variable = f"ACCELERATE_USE_{engine}"
        if _is_true(os.environ.get(variable, "")):
            if is_worker():
                raise _other_engine(engine, "accelerate launch")
            raise _other_engine(engine, f"the environment ({variable})", hint=f"unset {variable}")
    take_over_fsdp("accelerate launch" if is_worker() else "")


# --- the config file and the launcher's arguments ----------------------------------------------------------


def read_config(path: str | None) -> tuple[Any, str]:
    """Return accelerate's config and its path; None and an empty path if there is none.

    Args:
        path: a config file; None for the default one.

    Raises:
        UsageError: if the file cannot be read or has an unknown key.
    """
    from accelerate.commands.config.config_args import default_config_file, load_config_from_file

    if path is None and not Path(default_config_file).is_file():
        return None, ""
    path = path or default_config_file
    try:
        return load_config_from_file(path), path
    except Exception as error:  # a file written by hand can fail in any way
        reason = " ".join(str(error).split())
        raise UsageError(
            f"accelerate's config {path} cannot be read: {reason}", hint="write a new one with: accelerate config"
        ) from error


def parse_launcher_args(launcher_args: Sequence[str]) -> Any:
    """Read the arguments of accelerate's launcher with its own parser.

    Raises:
        UsageError: for an unknown argument.
    """
    from accelerate.commands.launch import launch_command_parser

    def refuse(message: str) -> None:
        raise UsageError(f"accelerate's launcher: {message}", hint="list its arguments with: accelerate launch --help")

    parser = launch_command_parser()
    parser.error = refuse
    script = "-"  # the launcher needs a script: the first word that is not an option
    said = parser.parse_args([*launcher_args, script])
    if said.training_script != script or said.training_script_args:
        refuse(f"unexpected argument {said.training_script!r}")
    return said


def refuse_other_engines(said: Any, config: Any, path: str) -> None:
    """Raise UsageError if the launcher's arguments or its config ask for more than DDP and FSDP2."""
    asked = {"DEEPSPEED": said.use_deepspeed, "MEGATRON_LM": said.use_megatron_lm}
    asked |= {"TPU": said.tpu, "N-d parallelism": said.use_parallelism_config}
    for engine, is_on in asked.items():
        if is_on:
            raise _other_engine(engine, "the launcher's arguments")
    if said.use_fsdp:
        check_fsdp(vars(said), "the launcher's arguments")
    if config is None:
        return
    engine = str(getattr(config.distributed_type, "value", config.distributed_type))
    if str(getattr(config.compute_environment, "value", "")) == "AMAZON_SAGEMAKER":
        raise _other_engine("SageMaker", f"accelerate's config {path}")
    if engine not in ("NO", "FSDP") and not engine.startswith("MULTI_"):
        raise _other_engine(engine, f"accelerate's config {path}")
    if config.parallelism_config:
        raise _other_engine("N-d parallelism", f"accelerate's config {path}")
    if is_fsdp(config):
        check_fsdp(config.fsdp_config, f"accelerate's config {path}")


def _other_engine(engine: str, source: str, hint: str | None = None) -> UsageError:
    return UsageError(
        f"{source} asks for {engine}, which vitft does not support: it trains with DDP, or with FSDP2",
        allowed="distributed_type NO, MULTI_GPU, MULTI_CPU, MULTI_XPU, ..., or FSDP with fsdp_version 2",
        hint=hint or "accelerate config --config_file ddp.yaml, then vitft finetune ... -- --config_file ddp.yaml",
    )


# --- recipe keys -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Said:
    """A value and where it comes from, for messages."""

    value: Any
    source: str


@dataclass(frozen=True)
class AccelerateSettings:
    """Accelerate's settings for which there are recipe keys; None if not set."""

    precision: Said | None = None
    accumulation: Said | None = None
    use_cpu: Said | None = None
    sharding: Said | None = None


def accelerate_settings() -> AccelerateSettings:
    """Collect accelerate's settings; its defaults (no mixed precision, one micro-step) do not count."""
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    use_cpu = _is_true(os.environ.get("ACCELERATE_USE_CPU", ""))
    steps = os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "")
    several_steps = "the environment (ACCELERATE_GRADIENT_ACCUMULATION_STEPS)"
    said = AccelerateSettings(
        precision=Said(precision, _source("MIXED_PRECISION", "--mixed_precision")) if precision != "no" else None,
        accumulation=Said(int(steps), several_steps) if steps.isdigit() and int(steps) > 1 else None,
        use_cpu=Said(True, _source("USE_CPU", "--cpu")) if use_cpu else None,
        sharding=Said("fsdp", _source("USE_FSDP", "--use_fsdp")) if SHARDING in os.environ else None,
    )
    config, path = (None, "") if is_worker() else read_config(None)  # a launcher has read the file already
    if config is None:
        return said
    in_file = f"accelerate's config {path}"
    precision = str(config.mixed_precision or "no").lower()
    return replace(
        said,
        precision=said.precision or (Said(precision, in_file) if precision != "no" else None),
        use_cpu=said.use_cpu or (Said(True, in_file) if config.use_cpu else None),
        sharding=said.sharding or (Said("fsdp", in_file) if is_fsdp(config) else None),
    )


def _source(variable: str, argument: str) -> str:
    """Return where a variable comes from: a launcher sets it from its own argument."""
    if is_worker():
        return f"accelerate launch ({argument} or its config file)"
    return f"the environment (ACCELERATE_{variable})"


def reconcile(
    settings: AccelerateSettings, values: Mapping[str, object], *, batch_size: int, num_processes: int
) -> dict[str, Said]:
    """Replace ``auto`` in a recipe by accelerate's settings.

    Args:
        settings: of accelerate.
        values: the recipe's plain values by dotted key.
        batch_size: images per step over all processes.
        num_processes: training processes.

    Returns:
        The values to use instead, by dotted key, each with its source.

    Raises:
        UsageError: if accelerate contradicts an explicit value of the recipe.
    """
    filled: dict[str, Said] = {}
    if said := settings.precision:
        if said.value not in ("bf16", "fp16"):
            raise UsageError(
                f"{said.source} says mixed precision {said.value}, which vitft does not support",
                allowed="no, bf16, fp16",
            )
        filled |= _fill("train.precision", values["train.precision"], said)
    if said := settings.use_cpu:
        filled |= _fill("train.device", values["train.device"], Said("cpu", said.source))
    if said := settings.sharding:
        filled |= _fill("train.sharding", values["train.sharding"], said)
    if said := settings.accumulation:
        # A step is cut at even places, so that mixing pairs stay together (data/order.py).
        num_pairs = (batch_size + 1) // 2
        largest_part = 2 * -(-num_pairs // num_processes)
        micro = values["train.micro_batch_size"]
        if not isinstance(micro, int):
            micro = 2 * -(-largest_part // (2 * said.value))
            filled["train.micro_batch_size"] = Said(micro, f"{said.source}: {said.value} accumulation steps")
        elif -(-largest_part // micro) != said.value:
            raise _contradiction(
                "train.micro_batch_size",
                f"{micro}, which is {-(-largest_part // micro)} accumulation steps",
                Said(f"{said.value} accumulation steps", said.source),
            )
    return filled


def _fill(key: str, value: object, said: Said) -> dict[str, Said]:
    if value not in ("auto", said.value):
        raise _contradiction(key, str(value), said)
    return {key: said} if value == "auto" else {}


def _contradiction(key: str, value: str, said: Said) -> UsageError:
    return UsageError(
        f"the recipe says {key}: {value}, but {said.source} says {said.value}",
        allowed="one of the two",
        hint=f"use accelerate's with --set {key}=auto",
    )


def _is_true(text: str) -> bool:
    return text.lower() in ("1", "true", "t", "yes", "y", "on")

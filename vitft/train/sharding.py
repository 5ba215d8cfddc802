"""Divide a model over the processes: each holds a part of every parameter, gradient, average and moment (FSDP2).

torch's ``fully_shard`` gathers the weights of one block at a time, for the forward and again for the backward pass.
accelerate's plugin calls it too, but only on GPUs; this does the same on a CPU, where it can be tested.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from vitft.architectures.blocks import blocks
from vitft.data.batches import StagedBatch
from vitft.errors import ModelError, RecipeError, TrainError
from vitft.processes.accelerate_config import accelerate_settings
from vitft.recipe.choices import ADAPTERS
from vitft.recipe.recipe import Recipe

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedModel


def choose_sharding(recipe: Recipe, num_processes: int, settled: str | None, reasons: dict[str, str]) -> bool:
    """Return whether the model is divided over the processes.

    Args:
        recipe: what is wanted; ``auto`` leaves it to the checkpoint, then to accelerate.
        num_processes: training processes.
        settled: ``fsdp`` or ``none``, of a resumed run's checkpoint.
        reasons: gets the reason, if there is something to explain.
    """
    wanted: str = recipe.train.sharding
    why = "as given"
    if wanted == "auto":
        said = accelerate_settings().sharding
        if settled is not None:
            wanted, why = settled, "as in the checkpoint"
        elif said is not None:
            wanted, why = "fsdp", f"from {said.source}"
    if wanted != "fsdp":
        return False
    if num_processes == 1:
        reasons["sharding"] = f"fsdp ({why}) divides a model over several processes, and here is one"
        return False
    reasons["sharding"] = f"{why}: each process holds 1/{num_processes} of the model"
    return True


def check_sharding(recipe: Recipe, model: PreTrainedModel, precision: str, *, on_features: bool) -> None:
    """Raise for settings and models with which a model cannot be divided.

    Args:
        recipe, model: of the run.
        precision: as accelerate names it.
        on_features: whether a part of the model is trained on features of the other.
    """
    several_sizes = len({size for size, _ in recipe.train.resolution_schedule or ()}) > 1
    for is_set, what, hint in (
        (precision == "fp16", "train.precision: fp16, whose loss scale is of one process", "--precision bf16"),
        (recipe.train.compile == "on", "train.compile: on", "--set train.compile=off"),
        (several_sizes, "several image sizes in train.resolution_schedule", "--set train.resolution_schedule=null"),
        (on_features, "features that are computed once", "leave out --fsdp, or --set train.features=off"),
        (recipe.model.train in ADAPTERS, f"model.train: {recipe.model.train}", "--train last:4"),
        (recipe.train.head_first, "train.head_first", "--set train.head_first=false"),
        (isinstance(recipe.optim.lr, tuple), "several learning rates (optim.lr)", "--lr 5e-4"),
        (recipe.hub.push and recipe.hub.every == "best", "hub.every: best", "--hub-every end"),
    ):
        if is_set:
            raise RecipeError(f"train.sharding: fsdp does not go with {what}", hint=hint)
    why = ""
    if not blocks(model):
        why = "vitft does not know its blocks, which are gathered one at a time"
    elif any("BatchNorm" in type(module).__name__ for module in model.modules()):
        why = "the statistics of its BatchNorm would differ between processes"
    elif any(parameter.ndim == 0 for parameter in model.parameters()):
        why = "it has a parameter that is a single number"
    elif any(parametrize.is_parametrized(module) for module in model.modules()):
        why = "its position table is made of factors (model.position.kind)"
    if why:
        raise ModelError(
            f"train.sharding: fsdp is not supported for this {model.config.model_type} model: {why}",
            hint="--set train.sharding=none",
        )


def check_shared(folder: Path, accelerator: Accelerator) -> None:
    """Raise TrainError if a process does not see the run's folder, into which each writes its part."""
    from accelerate.utils import gather_object

    if not all(gather_object([folder.is_dir()])):
        raise TrainError(
            f"with train.sharding: fsdp every process writes into {folder}, but another machine does not see it",
            hint="--output-dir FOLDER, on a disk that all machines share",
        )


def shard(model: PreTrainedModel, groups: list[dict[str, Any]], accelerator: Accelerator) -> None:
    """Divide a model in place, and give the parameter groups its new parameters.

    Blocks and the rest of the model are units: moved to the device and divided one after the other.

    Args:
        model: complete in every process, on the CPU.
        groups: of :func:`vitft.train.optim.parameter_groups`.
        accelerator: the device and its precision. With bf16, weights are gathered in bf16, and gradients are still
            summed in float32.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    half = torch.bfloat16 if accelerator.mixed_precision == "bf16" else None
    # Also the rest of the model is divided again after a forward pass: an evaluation must not leave whole weights
    # behind, which the next step would take for the current ones.
    how: dict[str, Any] = {
        "mesh": mesh,
        "mp_policy": MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32),
        "reshard_after_forward": True,
    }
    for _, block in blocks(model):
        fully_shard(block, **how)
    fully_shard(model, **how)
    parameters = dict(model.named_parameters())
    for group in groups:
        group["params"] = [parameters[name] for name in group["names"]]


def is_divided(tensor: Tensor) -> bool:
    """Whether each process has only a part of a tensor."""
    return hasattr(tensor, "to_local")  # torch's DTensor, which a torch without processes does not have


def own_part(tensor: Tensor) -> Tensor:
    """Return this process's part of a divided tensor, in the same memory; another tensor is returned whole."""
    found: Any = tensor.detach()
    part: Tensor = found.to_local() if is_divided(found) else found
    return part


def whole(tensor: Tensor) -> Tensor:
    """Return a whole tensor; all processes take part if it is divided."""
    found: Any = tensor.detach()
    gathered: Tensor = found.full_tensor() if is_divided(found) else found
    return gathered


def divided_like(tensor: Any, part: Tensor) -> Tensor:
    """Return the tensor that is divided like another, of which each process has a part."""
    if not is_divided(tensor):
        return part
    from torch.distributed.tensor import DTensor

    like: dict[str, Any] = {"shape": tensor.shape, "stride": tensor.stride(), "run_check": False}
    made: Tensor = DTensor.from_local(part.to(tensor.device), tensor.device_mesh, tensor.placements, **like)
    return made


def whole_weights(model: nn.Module, accelerator: Accelerator) -> dict[str, Tensor]:
    """Gather a divided model's parameters and buffers on the CPU of the main process, one by one; elsewhere {}."""
    gathered: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        one = whole(tensor)
        if accelerator.is_main_process:
            gathered[name] = one.cpu()
    return gathered


def in_step(
    batches: Iterable[StagedBatch], model: nn.Module, image_size: tuple[int, int], accelerator: Accelerator
) -> Iterator[StagedBatch]:
    """Yield this process's batches, each of which goes through a divided model once, then help the others.

    Each pass gathers weights from all processes. One that has run out of batches runs blank images until all have.
    """

    def anyone(has_batch: bool) -> bool:
        count = torch.tensor([float(has_batch)], device=accelerator.device)
        return float(accelerator.reduce(count, "sum")) > 0

    for batch in batches:
        if len(batch):
            anyone(True)
        yield batch
    blank = torch.zeros(1, 3, *image_size, device=accelerator.device)
    while anyone(False):
        with torch.no_grad(), accelerator.autocast():
            model(blank)

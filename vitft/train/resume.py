"""Save a training to a checkpoint, and restore it."""

from __future__ import annotations

from pathlib import Path

import torch
from accelerate.utils import gather_object
from torch import Tensor

from vitft.errors import TrainError, one_line
from vitft.processes.turns import on_main_process
from vitft.recipe.recipe import RESUMABLE_CHANGES, Recipe
from vitft.train import checkpoint, sharded_checkpoint
from vitft.train.checkpoint import TrainState
from vitft.train.setup import Training
from vitft.train.sharding import divided_like, own_part


def save(training: Training) -> None:
    """Write a checkpoint; all processes take part and wait for it."""
    training.state.stream = gather_object([training.batches.state_dict()])
    for bad in gather_object([training.state.bad_rows]):
        training.note_bad(bad)  # bad rows that other processes found
    training.state.bad_rows = dict(sorted(training.state.bad_rows.items()))
    state, folder, keep = training.state, training.run.checkpoints, training.recipe.train.keep_checkpoints
    if training.accelerator.is_main_process:
        state.metrics_length = training.run.metrics_length()
        scaler = training.accelerator.scaler
        state.scaler = scaler.state_dict() if scaler is not None else {}
    failure: list[str] = []
    try:
        if training.plan.is_sharded:
            sharded_checkpoint.save_parts(folder, state, _tensors(training), keep, training.accelerator)
        elif training.accelerator.is_main_process:
            checkpoint.save(folder, state, _tensors(training), keep)
    except TrainError as error:
        failure = [error.wrong, f"make room, then: {training.run.resume_command}"]
    # Also the barrier: no process continues or ends before the main process has written the checkpoint or failed.
    failures = [each for each in gather_object([failure]) if each]
    if failures:
        raise TrainError(failures[0][0], hint=failures[0][1])


def _tensors(training: Training) -> dict[str, dict[str, Tensor]]:
    weights = training.model.state_dict()
    best = training.best_weights
    return {
        "model": weights,
        "optimizer": checkpoint.optimizer_tensors(training.optimizer.optimizer),
        "averaged": training.averaged.tensors if training.averaged is not None else {},
        "best": {name: divided_like(weights[name], part) for name, part in best.items()},
    }


def restore(training: Training) -> None:
    """Continue from the newest complete checkpoint, or from the start if there is none."""
    # The main process chooses: another machine may see the shared disk as it was a moment ago.
    path = on_main_process(lambda: checkpoint.newest(training.run.checkpoints), training.accelerator)
    if path is None:
        training.run.say("no checkpoint yet: starting from the first step")
        return
    state = checkpoint.load_state(path)
    _check_layout(training, path, state)
    if training.plan.is_sharded:
        on_main_process(lambda: checkpoint.verify(path), training.accelerator)
    else:
        state, tensors = checkpoint.load(path)
    _check_unchanged(training, state)
    try:
        if training.plan.is_sharded:
            _read_parts(training, path)
        else:
            _put_back(training, tensors)
        _put_back_state(training, state)
    except torch.OutOfMemoryError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise TrainError(
            f"the checkpoint {path} does not fit this model and optimizer: {one_line(error)}",
            hint=f"remove {path} and resume from the one before it, or start a new run",
        ) from error
    training.run.cut_metrics(state.metrics_length)
    for change in (
        f"{k}: {state.conditions.get(k)} -> {v}"
        for k, v in training.state.conditions.items()
        if state.conditions.get(k) != v
    ):
        training.run.say(f"  resuming is close but not bit for bit, because this changed: {change}")
    state.conditions = training.state.conditions
    state.micro_batch_size = min(state.micro_batch_size, training.state.micro_batch_size)
    training.run.say(f"resumed from {path} at step {state.step} of {training.plan.total_steps}")
    training.state = state


def _put_back(training: Training, tensors: dict[str, dict[str, Tensor]]) -> None:
    training.model.load_state_dict(tensors["model"])
    checkpoint.load_optimizer(training.optimizer.optimizer, tensors.get("optimizer", {}))  # plain SGD has no tensors
    if training.averaged is not None:
        training.averaged.load(tensors["averaged"])
    training.best_weights = tensors.get("best", {})


def _read_parts(training: Training, path: Path) -> None:
    """Read this process's parts of a divided model's checkpoint: weights and averages in place."""
    shapes = sharded_checkpoint.shapes(path)
    weights = training.model.state_dict()
    groups = training.optimizer.param_groups
    parameters = {name: p.detach() for group in groups for name, p in zip(group["names"], group["params"], strict=True)}
    moments = {
        key: torch.zeros_like(like)
        if (like := parameters[key.partition("/")[2]]).shape == shape
        else torch.zeros(shape)
        for key, shape in shapes.get("optimizer", {}).items()
    }
    best = {name: torch.zeros_like(weights[name]) for name in shapes.get("best", {})}
    averaged = training.averaged.tensors if training.averaged is not None else {}
    sharded_checkpoint.load_parts(path, {"model": weights, "optimizer": moments, "averaged": averaged, "best": best})
    checkpoint.load_optimizer(training.optimizer.optimizer, moments)
    training.best_weights = {name: own_part(tensor).cpu() for name, tensor in best.items()}


def _put_back_state(training: Training, state: TrainState) -> None:
    if training.accelerator.scaler is not None and state.scaler:
        training.accelerator.scaler.load_state_dict(state.scaler)
    if len(state.stream) == training.plan.world_size:
        training.batches.load_state_dict(state.stream[training.accelerator.process_index])


def _check_layout(training: Training, path: Path, state: TrainState) -> None:
    """Raise TrainError if the parts of a divided model are not those that were written."""
    there, here = (
        (conditions.get("sharding", "none"), conditions["processes"])
        for conditions in (state.conditions, training.state.conditions)
    )
    if there != here and "fsdp" in (there[0], here[0]):
        training.run.num_processes = there[1]
        raise TrainError(
            f"{path} is of {there[1]} process{'es' * (there[1] > 1)} with train.sharding: {there[0]}, but now it is "
            f"{here[0]} with {here[1]}",
            allowed="with a divided model, only as many processes as before",
            hint=training.run.resume_command,
        )


def _check_unchanged(training: Training, state: TrainState) -> None:
    if state.fingerprint != training.source.fingerprint:
        raise TrainError(
            f"the dataset {training.source.id} is not the one that this run was started with: "
            "its rows, labels or order have changed",
            hint="restore the old data, or start a new run",
        )
    try:
        changed = Recipe.model_validate(state.recipe).broken_by(training.recipe)
    except ValueError as error:  # pydantic's ValidationError is one
        raise TrainError(
            f"this vitft version cannot read the recipe in the checkpoint of {training.run.folder}: {one_line(error)}",
            hint="resume it with the vitft version named in its environment.json",
        ) from error
    if changed:
        raise TrainError(
            f"the recipe of {training.run.folder} has changed since its checkpoint was written: {'; '.join(changed)}",
            allowed=f"changes to {', '.join(sorted(RESUMABLE_CHANGES))}",
            hint=f"undo the change in {training.run.folder / 'recipe.yaml'}, or start a new run",
        )

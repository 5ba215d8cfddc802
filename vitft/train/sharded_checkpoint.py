"""Checkpoints of a divided model, through ``torch.distributed.checkpoint``: every process writes and reads its part.

    checkpoints/step-00000500/
      shard-00001-model-00001-of-00001.safetensors   the parts of the first process, as <group>/<name>
      shard-00002-...                                those of the second
      state.json, manifest.json                      as in every checkpoint

The groups are the files of an ordinary checkpoint: model, optimizer, averaged, best. torch's own format would have a
pickle among its files.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vitft.processes.turns import on_main_process
from vitft.train import checkpoint
from vitft.train.checkpoint import TrainState

if TYPE_CHECKING:
    from accelerate import Accelerator

Groups = Mapping[str, Mapping[str, Tensor]]


def save_parts(folder: Path, state: TrainState, tensors: Groups, keep: int, accelerator: Accelerator) -> None:
    """Write a checkpoint, as :func:`vitft.train.checkpoint.save`; all processes take part, and if one fails, all do.

    Raises:
        TrainError: if it cannot be written; earlier checkpoints are untouched.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    partial = on_main_process(lambda: checkpoint.begin(folder, state.step), accelerator)
    try:
        save(_flat(tensors), storage_writer=HuggingFaceStorageWriter(str(partial), save_distributed=True))
    except CheckpointException as error:
        raise checkpoint.not_written(folder, state.step, _first(error)) from error
    on_main_process(lambda: checkpoint.complete(folder, state, keep), accelerator)


def shapes(path: Path) -> dict[str, dict[str, torch.Size]]:
    """Return the shape of each whole tensor of a checkpoint, by group and name."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    found: dict[str, dict[str, torch.Size]] = {}
    for key, about in HuggingFaceStorageReader(str(path)).read_metadata().state_dict_metadata.items():
        assert isinstance(about, TensorStorageMetadata)  # safetensors files have nothing else
        group, _, name = key.partition("/")
        found.setdefault(group, {})[name] = about.size
    return found


def load_parts(path: Path, tensors: Groups) -> None:
    """Read a checkpoint into divided tensors; all processes take part.

    Raises:
        ValueError: if it has other tensors than these.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    flat = _flat(tensors)
    there = {f"{group}/{name}": shape for group, each in shapes(path).items() for name, shape in each.items()}
    if there != (here := {key: tensor.shape for key, tensor in flat.items()}):
        different = [key for key in there | here if there.get(key) != here.get(key)]
        raise ValueError(f"{len(different)} tensors differ, such as {different[0]}")
    try:
        load(dict(flat), storage_reader=HuggingFaceStorageReader(str(path)))
    except CheckpointException as error:
        raise ValueError(str(_first(error))) from error


def _flat(tensors: Groups) -> dict[str, Tensor]:
    return {f"{group}/{name}": tensor for group, each in tensors.items() for name, tensor in each.items()}


def _first(error: BaseException) -> BaseException:
    """Return the first process's failure, of those that torch has collected."""
    failures = getattr(error, "failures", {})
    return next((failure for failure, _ in failures.values()), error)

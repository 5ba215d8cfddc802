"""Checkpoints on disk: written completely or not at all, and verified before use.

    checkpoints/step-00000500/
      model.safetensors       parameters and buffers
      averaged.safetensors    averaged weights, if any
      best.safetensors        the weights with the best validation score, if kept
      optimizer.safetensors   its tensors, as <state>/<parameter>
      state.json              everything that is not a tensor
      manifest.json           size and SHA-256 of the others, written last

The folder is written under a temporary name, flushed to the disk and then renamed. A process killed at any moment
leaves the previous checkpoints intact, and at most a ``.partial`` folder behind.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from vitft.disk import flush, flush_folder, remove_whole, sweep
from vitft.errors import TrainError, one_line
from vitft.run import complete_checkpoints


@dataclass
class Best:
    """The best validation score so far: top-1, then nll, then the earliest."""

    top1: float
    nll: float
    step: int


@dataclass
class TrainState:
    """The progress of a run, except for tensors.

    Attributes:
        step: optimizer steps done.
        evaluated: the last step after which the validation split was scored.
        best: the best validation score, None before the first.
        is_out_of_patience: whether that score has not improved for ``train.patience``.
        elapsed_seconds: training time of all sessions so far.
        micro_batch_size: as chosen by ``auto``, and reduced when memory ran out.
        metrics_length: bytes of ``metrics.jsonl`` that belong to this state.
        scaler: fp16's gradient scaler.
        stream: how far a stream has been read, one entry per process.
        bad_rows: skipped images: name of the row to reason.
        conditions: what exact resuming depends on: processes, threads, versions.
        fingerprint, recipe: of the dataset, and of the run.
    """

    step: int = 0
    evaluated: int = 0
    best: Best | None = None
    is_out_of_patience: bool = False
    elapsed_seconds: float = 0.0
    micro_batch_size: int = 0
    metrics_length: int = 0
    scaler: dict[str, Any] = field(default_factory=dict)
    stream: list[dict[str, Any]] = field(default_factory=list)
    bad_rows: dict[str, str] = field(default_factory=dict)
    conditions: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    recipe: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TrainState:
        """Rebuild a state from what :func:`save` wrote.

        Raises:
            TypeError, ValueError, KeyError: if it is anything else.
        """
        best = values.pop("best")
        state = cls(best=Best(**best) if best else None, **values)
        for name, usual in vars(cls()).items():
            found = getattr(state, name)
            if name != "best" and not isinstance(found, (int, float) if isinstance(usual, float) else type(usual)):
                raise TypeError(f"{name} is a {type(found).__name__}")
        return state


def save(folder: Path, state: TrainState, tensors: Mapping[str, Mapping[str, Tensor]], keep: int) -> Path:
    """Write a checkpoint and remove all but the newest ``keep``. Called by the main process only.

    Args:
        folder: the run's ``checkpoints`` folder.
        state: everything but tensors.
        tensors: tensors by file (model, optimizer, averaged, best), then by name.
        keep: how many checkpoints to keep.

    Raises:
        TrainError: if it cannot be written; earlier checkpoints are untouched.
    """
    partial = begin(folder, state.step)
    with _or_nothing(folder, state.step):
        for name, group in tensors.items():
            if group:
                save_file(
                    {key: t.detach().cpu().contiguous() for key, t in group.items()},
                    partial / f"{name}.safetensors",
                )
    return complete(folder, state, keep)


def begin(folder: Path, step: int) -> Path:
    """Make the temporary folder of a checkpoint, for its tensors."""
    partial = _partial(folder, step)
    with _or_nothing(folder, step):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
    return partial


def complete(folder: Path, state: TrainState, keep: int) -> Path:
    """Add everything else to the temporary folder, and give it its name; remove all but the newest ``keep``."""
    final, partial = folder / _name(state.step), _partial(folder, state.step)
    with _or_nothing(folder, state.step):
        _write_json(partial / "state.json", asdict(state))
        manifest = {path.name: _fingerprint(path) for path in sorted(partial.iterdir())}
        _write_json(partial / "manifest.json", manifest)
        flush_folder(partial)
        if final.exists():  # a resumed run has reached this step again, with the same content
            remove_whole(final)
        partial.rename(final)
        flush(folder)
    for old in complete_checkpoints(folder)[:-keep]:
        remove_whole(old)
    sweep(folder)
    return final


def not_written(folder: Path, step: int, error: BaseException) -> TrainError:
    """Remove what there is of a checkpoint, and return the error that says so."""
    shutil.rmtree(_partial(folder, step), ignore_errors=True)
    earlier = newest(folder)
    where = f"{earlier} is complete" if earlier else "there is no earlier one"
    return TrainError(
        f"cannot write the checkpoint {folder / _name(step)}: {error} ({where})",
        hint=f"make room, then: vitft finetune --resume {folder.parent}",
    )


@contextmanager
def _or_nothing(folder: Path, step: int) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # safetensors reports a full disk as its own error
        raise not_written(folder, step, error) from error


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _partial(folder: Path, step: int) -> Path:
    return folder / f".{_name(step)}.partial"


def newest(folder: Path) -> Path | None:
    """Return the newest complete checkpoint, None if there is none."""
    complete = complete_checkpoints(folder)
    return complete[-1] if complete else None


def load_state(path: Path) -> TrainState:
    """Read the ``state.json`` of a checkpoint, after verifying it."""
    verify(path, ["state.json"])
    try:
        return TrainState.from_json(json.loads((path / "state.json").read_text(encoding="utf-8")))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _damaged(path, "state.json", error) from error


def load(path: Path) -> tuple[TrainState, dict[str, dict[str, Tensor]]]:
    """Read a checkpoint after verifying every byte of it.

    Returns:
        The state, and tensors on the CPU by file, then by name.

    Raises:
        TrainError: if a file is missing or damaged, naming it.
    """
    files = [name for name in verify(path) if name.endswith(".safetensors")]
    state, tensors = load_state(path), {}
    for name in files:
        try:
            tensors[name.removesuffix(".safetensors")] = load_file(path / name)
        except (SafetensorError, OSError) as error:
            raise _damaged(path, name, error) from error
    if "model" not in tensors:
        raise _damaged(path, "manifest.json", ValueError("it lists no model"))
    return state, tensors


def verify(path: Path, names: Iterable[str] | None = None) -> list[str]:
    """Check files of a checkpoint (all unless named) against its manifest; return their names."""
    damaged = "manifest.json"
    try:
        manifest = json.loads((path / damaged).read_text(encoding="utf-8"))
        if not isinstance(manifest, dict):
            raise ValueError(f"it holds a {type(manifest).__name__}, not checksums by file")
        for name in (names := list(manifest if names is None else names)):
            damaged = name
            if Path(name).name != name:
                raise ValueError("it is not a file of this folder")
            if _fingerprint(path / name) != manifest[name]:
                raise ValueError("its checksum differs")
    except (OSError, ValueError, KeyError, RecursionError) as error:
        raise _damaged(path, damaged, error) from error
    return names


def _damaged(path: Path, name: str, error: Exception) -> TrainError:
    return TrainError(
        f"the checkpoint {path} is damaged: {name} is not what was written ({one_line(error)})",
        hint=f"remove {path} and resume from the one before it",
    )


# --- optimizer tensors -------------------------------------------------------------------------------------


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's state as ``<state>/<parameter>``, so that no pickle is needed."""
    tensors: dict[str, Tensor] = {}
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            for key, value in optimizer.state.get(parameter, {}).items():
                if value is not None:
                    tensors[f"{key}/{name}"] = torch.as_tensor(value)
    return tensors


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Load the tensors of :func:`optimizer_tensors` into an optimizer."""
    by_name: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        kind, _, name = key.partition("/")
        by_name.setdefault(name, {})[kind] = tensor
    state: dict[int, dict[str, Tensor]] = {}
    plain = optimizer.state_dict()
    for group, saved in zip(optimizer.param_groups, plain["param_groups"], strict=True):
        for name, index in zip(group["names"], saved["params"], strict=True):
            if name in by_name:
                state[index] = by_name[name]
    optimizer.load_state_dict({"state": state, "param_groups": plain["param_groups"]})


# --- files -------------------------------------------------------------------------------------------------


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}

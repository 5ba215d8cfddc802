"""Read the tensors of a checkpoint folder without running code from it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vitft.errors import ModelError
from vitft.files import require_regular

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_FORMS = (("model", "safetensors"), ("pytorch_model", "bin"))  # the first one found is read


def weight_files(names: Iterable[str], named: str) -> list[str]:
    """Return the names of a checkpoint's weight files: one, all its shards, or none.

    Args:
        names: the files in its folder.
        named: the checkpoint as the user typed it.

    Raises:
        ModelError: if some of the shards are missing.
    """
    present = set(names)
    for stem, suffix in _FORMS:
        if f"{stem}.{suffix}" in present:
            return [f"{stem}.{suffix}"]
        shards = sorted(name for name in present if re.fullmatch(rf"{stem}-\d{{1,5}}-of-\d{{1,5}}\.{suffix}", name))
        if shards:
            total = shards[-1].removesuffix(f".{suffix}").rpartition("-")[2]
            expected = [f"{stem}-{number:0{len(total)}}-of-{total}.{suffix}" for number in range(1, int(total) + 1)]
            if missing := [name for name in expected if name not in present]:
                some = ", ".join(missing[:3])
                raise ModelError(
                    f"{named} lacks {len(missing)} of its {len(expected)} weight files: {some}",
                    hint="copy or download them too",
                )
            return expected
    return []


def read_weights(folder: Path, named: str) -> tuple[dict[str, Tensor], str | None]:
    """Read all tensors of a checkpoint.

    Args:
        folder: with ``model.safetensors`` or ``pytorch_model.bin``, whole or in shards.
        named: the checkpoint as the user typed it.

    Returns:
        The state dict as stored, on the CPU, and a note if it came from a pickle.

    Raises:
        ModelError: if there are no weights, or they cannot be read without running code.
    """
    files = weight_files((path.name for path in folder.iterdir()), named)
    if not files:
        raise ModelError(
            f"{named} has no weights",
            allowed="model.safetensors or pytorch_model.bin, whole or in shards",
            hint="vitft finetune --set model.init=random to train its architecture from random weights",
        )
    state: dict[str, Tensor] = {}
    for name in files:
        state.update(_read(folder / name, named))
    pickled = files[0].endswith(".bin")
    return state, f"weights were read from {', '.join(files)} (tensors only, no code was run)" if pickled else None


def _read(path: Path, named: str) -> dict[str, Tensor]:
    where = f"{path.name} of {named}"
    try:
        require_regular(path)
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise ModelError(f"{where} is damaged: {error}", hint="download or copy it again") from error
    except Exception as error:  # many kinds: torch's refusal of a pickle, a broken archive, a file cut short
        if re.search(r"unsupported (global|class)|unrecognized function", str(error), re.IGNORECASE):
            raise ModelError(
                f"{where} is a pickle that wants to run code, which vitft does not allow",
                allowed="safetensors, or a .bin that holds only tensors",
                hint="ask its author for model.safetensors",
            ) from error
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{where} cannot be read: {first_line[:200]}", hint="download or copy it again") from error
    return _checked(state, where)


def _checked(state: Any, where: str) -> dict[str, Tensor]:
    if isinstance(state, dict) and all(isinstance(value, Tensor) for value in state.values()):
        return state
    keys = f" with {', '.join(map(str, list(state)[:3]))}, ..." if isinstance(state, dict) else ""
    raise ModelError(
        f"{where} holds a {type(state).__name__}{keys}, not tensors by name",
        allowed="a state dict saved by transformers",
    )


def spelled_in_file(model: PreTrainedModel, name: str) -> str:
    """Return a parameter's name in saved files; transformers renames some parameters in memory."""
    from transformers.core_model_loading import revert_weight_conversion

    try:
        (in_file,) = revert_weight_conversion(model, {name: torch.empty(0)})
    except Exception:  # merged from several tensors of the file, so it has no single name there
        return name
    return str(in_file)


def find_key(model: PreTrainedModel, name: str, state: Mapping[str, Tensor]) -> str | None:
    """Return a parameter's key in a state dict, None if absent; an encoder saved alone lacks the model's prefix."""
    prefix = f"{model.base_model_prefix}."
    spellings = [name, spelled_in_file(model, name)]
    spellings += [each.removeprefix(prefix) for each in spellings]
    return next((each for each in spellings if each in state), None)

"""The tensors of a checkpoint folder, read without running code from it."""

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

_FORMS = (("model", "safetensors"), ("pytorch_model", "bin"))  # the first that is there is read


def weight_files(names: Iterable[str], named: str) -> list[str]:
    """Return which files of a checkpoint hold its weights: one, or all its shards; none if it has no weights.

    Args:
        names: of the files in its folder.
        named: how the user called the checkpoint.

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
                    f"{named} lacks {len(missing)} of the {len(expected)} files of its weights: {some}",
                    hint="copy or download them too",
                )
            return expected
    return []


def read_weights(folder: Path, named: str) -> tuple[dict[str, Tensor], str | None]:
    """Read all tensors of a checkpoint.

    Args:
        folder: with ``model.safetensors`` or ``pytorch_model.bin``, whole or in shards.
        named: how the user called the checkpoint.

    Returns:
        The state dict on the CPU as it was stored, and a note if it came from a pickle.

    Raises:
        ModelError: if there are no weights, or they cannot be read without running code.
    """
    files = weight_files((path.name for path in folder.iterdir()), named)
    if not files:
        raise ModelError(
            f"{named} has no weights",
            allowed="model.safetensors, pytorch_model.bin, or their sharded forms",
            hint="vitft finetune --set model.init=random trains its architecture from random weights",
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
    except Exception as error:  # a pickle can fail in any way: torch's refusal, a broken archive, the end of the file
        if re.search(r"unsupported (global|class)|unrecognized function", str(error), re.IGNORECASE):
            raise ModelError(
                f"{where} is a pickle that wants to run code; vitft does not let it",
                allowed="safetensors, or a .bin that holds tensors only",
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
        allowed="a state dict as transformers saves it",
    )


def spelled_in_file(model: PreTrainedModel, name: str) -> str:
    """Return how a saved file spells the name of a model's parameter; transformers renamed some in memory."""
    from transformers.core_model_loading import revert_weight_conversion

    try:
        (in_file,) = revert_weight_conversion(model, {name: torch.empty(0)})
    except Exception:  # a tensor that is merged from several of the file cannot be named alone
        return name
    return str(in_file)


def find_key(model: PreTrainedModel, name: str, state: Mapping[str, Tensor]) -> str | None:
    """Return the key of a state dict that holds a model's parameter: an encoder alone lacks the model's prefix."""
    prefix = f"{model.base_model_prefix}."
    spellings = [name, spelled_in_file(model, name)]
    spellings += [each.removeprefix(prefix) for each in spellings]
    return next((each for each in spellings if each in state), None)

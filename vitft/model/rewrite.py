"""A checkpoint at another size, as a folder of its own that plain transformers loads.

The file is rewritten, not the model: tensors that do not change keep their names and their number format, those
that a classifier does not use (a text tower, a decoder) stay.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from vitft.disk import flush, flush_folder
from vitft.errors import ModelError
from vitft.model.config import read_config
from vitft.model.families import TOWERS
from vitft.model.load import check_loads, with_prefix
from vitft.model.processor import load_processor, resize_processor
from vitft.model.retarget import Retargeting, Target, image_size_of, retarget_config, retarget_state
from vitft.model.weights import read_weights

_READ = ("config.json", "preprocessor_config.json", "processor_config.json")


def rewrite_checkpoint(folder: Path, named: str, out: Path, target: Target) -> tuple[Retargeting, list[str]]:
    """Write a checkpoint at another size; whole or not at all.

    Args:
        folder: of the checkpoint.
        named: how the user called it.
        out: folder to be made, with config.json, model.safetensors, the image processor, and ``resize.json``, the
            record of what was done.
        target: the size to have.

    Returns:
        What changed, and notes.

    Raises:
        ModelError: if it cannot have that size, does not fit its own config, or cannot be written.
    """
    if out.exists():
        raise ModelError(f"{out} exists; nothing is overwritten", hint=f"another name, such as {out}-2")
    own_config = read_config(folder, named)
    processor, note = load_processor(folder)
    notes = [note] if note else []
    own_size = image_size_of(own_config, None if note else processor)
    config, done = retarget_config(own_config, own_size, target, named)
    if not done:
        raise ModelError(
            f"{named} has this size already: {own_size[0]}x{own_size[1]}", hint="another --image-size or --patch-size"
        )
    state, note = read_weights(folder, named)
    notes += [note] if note else []
    renamed = with_prefix(state, config)
    rewritten = retarget_state(renamed, own_config, config, done, target.method, named)
    check_loads(config, rewritten, named, done.new)
    resized = resize_processor(processor, done.old, done.new)
    if type(resized) is not type(processor):
        notes.append(f"{type(processor).__name__} cannot make this size: {type(resized).__name__} squashes instead")
    left = sorted(p.name for p in folder.iterdir() if p.is_file() and p.name not in _READ and not _is_weights(p.name))
    if left:
        notes.append(f"files that were not copied: {', '.join(left)}")
    if renamed is not state:
        rewritten = {key.removeprefix("vision_model."): tensor for key, tensor in rewritten.items()}
    _write(out, _settings(folder, done), rewritten, resized, asdict(target) | done.record())
    return done, notes


def _is_weights(name: str) -> bool:
    return name.endswith((".safetensors", ".bin", ".index.json"))


def _settings(folder: Path, done: Retargeting) -> dict[str, Any]:
    """Return config.json with the changed keys, everything else as it was."""
    values: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    is_pair = done.family in TOWERS.values() and values["model_type"] not in TOWERS
    place = values.setdefault("vision_config", {}) if is_pair else values
    for key, (_, after) in done.settings.items():
        place[key] = after
    return values


def _write(
    out: Path, settings: dict[str, Any], state: dict[str, Tensor], processor: Any, record: dict[str, Any]
) -> None:
    from huggingface_hub import save_torch_state_dict

    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        save_torch_state_dict(state, partial)
        for name, values in (("config.json", settings), ("resize.json", record)):
            (partial / name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        processor.save_pretrained(partial)
        flush_folder(partial)
        partial.rename(out)
        flush(out.parent)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise ModelError(f"cannot write {out}: {error}", hint="make room, or another folder") from error

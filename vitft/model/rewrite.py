"""Rewrite a checkpoint at another size, into a new folder that plain transformers loads.

The file is rewritten, not the model: tensors that do not change keep their names and dtypes, and weights that a
classifier does not use (a text tower, a pooler) stay.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from vitft.architectures.dinov3 import MODEL_TYPE
from vitft.architectures.families import TOWERS
from vitft.architectures.settings import read_settings
from vitft.architectures.timm_models import PREFIX, WRAPPER, written
from vitft.disk import whole_folder
from vitft.errors import ModelError
from vitft.files import exists
from vitft.model.fitting import resize_processor
from vitft.model.load import check_loads, read_weights_for, with_prefix
from vitft.model.opening import open_checkpoint
from vitft.recipe.sizes import show_size
from vitft.resolution.retarget import Retargeting, Target, retarget_config, retarget_state

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_OF_MAE_ALONE = re.compile(r"decoder\.|mask_token|(vit\.)?embeddings\.mask_token")
_READ = ("config.json", "preprocessor_config.json", "processor_config.json")


def rewrite_checkpoint(folder: Path, named: str, out: Path, target: Target) -> tuple[Retargeting, list[str]]:
    """Write a checkpoint at another size, complete or not at all.

    Args:
        folder: the checkpoint's folder.
        named: the checkpoint as the user typed it.
        out: new folder for config.json, model.safetensors, the image processor, and ``resize.json``, which
            records the changes.
        target: the size wanted.

    Returns:
        What changed, and notes.

    Raises:
        ModelError: if it cannot have that size, does not fit its own config, or cannot be written.
    """
    if exists(out):
        raise ModelError(f"{out} already exists and will not be overwritten", hint="another folder name")
    try:
        with whole_folder(out) as partial:  # made first, so that a folder that cannot be written fails at once
            return _rewrite(folder, named, partial, target)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"cannot write {out}: {error}", hint="free some disk space, or use another folder") from error


def _rewrite(folder: Path, named: str, out: Path, target: Target) -> tuple[Retargeting, list[str]]:
    from huggingface_hub import save_torch_state_dict

    opened = open_checkpoint(folder, named)
    notes = opened.notes
    config, done = retarget_config(opened.config, opened.image_size, target, named)
    if not done:
        raise ModelError(
            f"{named} already has this size: {show_size(done.old)}", hint="another --image-size or --patch-size"
        )
    state, note = read_weights_for(opened.config, folder, named)
    notes += [note] if note else []
    renamed = with_prefix(state, config)
    rewritten = retarget_state(renamed, opened.config, config, done, target.method, named)
    check_loads(config, rewritten, named, done.new)
    resized, note = resize_processor(opened.processor, done.old, done.new)
    notes += [note] if note else []
    left = sorted(p.name for p in folder.iterdir() if p.is_file() and p.name not in _READ and not _is_weights(p.name))
    if left:
        notes.append(f"files not copied: {', '.join(left)}")
    if renamed is not state:
        prefix = PREFIX if config.model_type == WRAPPER else "vision_model."
        rewritten = {key.removeprefix(prefix): tensor for key, tensor in rewritten.items()}
    settings = _settings(folder, config, done)
    if settings["model_type"] == "vit" and _model_type(folder) == "vit_mae":
        notes.append("MAE's encoder is saved as a ViT, without the decoder, whose positions are for the old size")
        rewritten = {key: tensor for key, tensor in rewritten.items() if not _OF_MAE_ALONE.match(key)}
    save_torch_state_dict(rewritten, out)
    for name, values in (("config.json", settings), ("resize.json", asdict(target) | done.record())):
        (out / name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    resized.save_pretrained(out)
    return done, notes


def _is_weights(name: str) -> bool:
    return name.endswith((".safetensors", ".bin", ".index.json"))


def _model_type(folder: Path) -> str:
    return str(read_settings(folder / "config.json", str(folder), as_stored=True)[0].get("model_type"))


def _settings(folder: Path, config: PreTrainedConfig, done: Retargeting) -> dict[str, Any]:
    """Return config.json with only the changed keys replaced."""
    values, _ = read_settings(folder / "config.json", str(folder), as_stored=True)
    if config.model_type == WRAPPER:
        is_converted = values.get("model_type") == MODEL_TYPE
        return written({"architecture": config.architecture, "num_classes": 0} if is_converted else values, config)
    if values["model_type"] == "vit_mae":
        kept: dict[str, Any] = json.loads(config.to_json_string())
        return kept | {"architectures": ["ViTModel"]}
    place = values
    if done.family in TOWERS.values() and values["model_type"] not in TOWERS:
        # Old CLIP files have a second copy, vision_config_dict, which transformers prefers.
        place = (values.get("vision_config") or {}) | (values.pop("vision_config_dict", None) or {})
        values["vision_config"] = place
    for key, (_, after) in done.settings.items():
        place[key] = after
    return values

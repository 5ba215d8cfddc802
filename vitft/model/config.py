"""A checkpoint's config.json as the configuration of an image classifier."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vitft.errors import ModelError, one_line
from vitft.model import families
from vitft.model.families import vision_config
from vitft.model.wrapped import WRAPPER, is_wrapped, read_wrapped, set_label_names


def read_config(folder: Path, named: str) -> Any:
    """Read config.json and make sure that transformers has an image-classification class for it.

    Raises:
        ModelError: if it is missing, broken, or of a family that cannot classify images here.
    """
    from transformers import AutoConfig, AutoModelForImageClassification

    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(
            f"{named} has no config.json, so it is no transformers checkpoint",
            hint="a folder with config.json, a run directory, or a Hub id OWNER/NAME",
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        values.pop("auto_map", None)  # code of its own is not run, nor is the user asked whether it may
        if is_wrapped(values):
            return read_wrapped(values, named)
        family = values.pop("model_type", None)
        if not family:
            raise ValueError("it names no model_type")
        config = AutoConfig.for_model(family, **values)
    except ModelError:
        raise
    except Exception as error:  # what each family's configuration makes of wrong values is its own affair
        raise ModelError(f"the config.json of {named} cannot be used: {one_line(error)}") from error

    config = _as_classifier(config)
    if family in families.UNSUPPORTED or type(config) not in AutoModelForImageClassification._model_mapping:
        reason = families.UNSUPPORTED.get(family, "transformers has no image-classification class for it")
        raise ModelError(
            f"{named} is a {family!r} model: {reason}",
            allowed=f"a checkpoint of a vision encoder: {', '.join(sorted(families.FAMILIES))}, or of timm ({WRAPPER})",
        )
    return config


def _as_classifier(config: Any) -> Any:
    """Return the configuration of the classifier that computes what an encoder without one computes."""
    from transformers import AutoConfig

    if config.model_type == "vit_mae":
        # MAE's encoder is a ViT: same modules, same names; its fixed position table is a tensor of the file.
        shared = AutoConfig.for_model("vit").to_dict().keys() - {"model_type", "transformers_version"}
        kept = {key: value for key, value in config.to_dict().items() if key in shared}
        return AutoConfig.for_model("vit", **kept)
    if config.model_type in families.TOWERS:
        return AutoConfig.for_model(families.TOWERS[config.model_type], vision_config=config.to_dict())
    return config


def classifier_class(config: Any, *, as_saved: bool = False) -> Any:
    """Return the family's class. Where it has several (DeiT, LeViT), the plain one, or the one that was saved."""
    from transformers import AutoModelForImageClassification

    found = AutoModelForImageClassification._model_mapping[type(config)]
    several = found if isinstance(found, tuple) else (found,)
    saved = [each for each in several if each.__name__ in (config.architectures or ())]
    return saved[0] if saved and as_saved else several[0]


def set_classes(config: Any, classes: Sequence[str]) -> None:
    """Write the classes into a configuration."""
    config.num_labels = len(classes)
    config.id2label = dict(enumerate(classes))
    config.label2id = {name: number for number, name in enumerate(classes)}
    config.problem_type = "single_label_classification"
    if config.model_type == WRAPPER:
        set_label_names(config, classes)


def drop_path_off(config: Any, notes: list[str]) -> None:
    """Switch off the family's own drop path, which draws from a global generator; ours follows the recipe."""
    vision = vision_config(config)
    rate = getattr(vision, "drop_path_rate", None) or 0.0
    rates = list(rate) if isinstance(rate, list | tuple) else [rate]
    if any(rates):
        vision.drop_path_rate = [0.0] * len(rates) if isinstance(rate, list | tuple) else 0.0
        notes.append(f"drop path follows model.drop_path, not the checkpoint's drop_path_rate of {rate}")

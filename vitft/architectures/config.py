"""Read a checkpoint's config.json as the configuration of an image classifier."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vitft.architectures import dinov3, families
from vitft.architectures.families import family_of, vision_config
from vitft.architectures.family import Size
from vitft.architectures.settings import read_settings
from vitft.architectures.timm_models import WRAPPER, is_wrapped, read_wrapped, require_timm, set_label_names
from vitft.errors import ModelError, one_line
from vitft.files import is_file
from vitft.names import placeholder

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


def read_config(folder: Path, named: str) -> tuple[PreTrainedConfig, list[str]]:
    """Read config.json and check that transformers has an image-classification class for it.

    Returns:
        The configuration, and notes on keys that were left out.

    Raises:
        ModelError: if it is missing, broken, or of a family that cannot classify images here.
    """
    from transformers import AutoConfig, AutoModelForImageClassification

    path = folder / "config.json"
    if not is_file(path):
        raise ModelError(
            f"{named} has no config.json, so it is not a transformers checkpoint",
            hint="a folder with config.json, a run directory, or a Hub id OWNER/NAME",
        )
    values, notes = read_settings(path, named)
    if values.get("problem_type") not in (None, "single_label_classification", *_PROBLEMS):
        del values["problem_type"]  # transformers 5.17 refuses another one, later versions ignore it
        notes.append("config.json: ignored, because transformers knows no such problem: problem_type")
    try:
        if is_wrapped(values):
            return read_wrapped(values, named), notes
        family = values.pop("model_type", None)
        if not family:
            raise ValueError("it has no model_type")
        config = AutoConfig.for_model(family, **values)
    except ModelError:
        raise
    except Exception as error:  # each family's configuration fails on wrong values in its own way
        raise ModelError(f"the config.json of {named} cannot be used: {one_line(error)}") from error

    if family == dinov3.MODEL_TYPE:
        notes.append(
            "built as timm's DINOv3, because transformers has no classifier for it; the head reads the class token"
        )
        require_timm(named, "is a DINOv3 ViT, which vitft runs with timm")
        return read_wrapped(dinov3.as_timm(config, named), named), notes
    config = _as_classifier(config)
    if family in families.UNSUPPORTED or type(config) not in AutoModelForImageClassification._model_mapping:
        reason = families.UNSUPPORTED.get(family, "transformers has no image-classification class for it")
        raise ModelError(
            f"{named} is a {family!r} model: {reason}",
            allowed=f"a vision encoder: {', '.join(sorted(families.FAMILIES))}, or a timm model ({WRAPPER})",
        )
    return config, notes


def _as_classifier(config: PreTrainedConfig) -> PreTrainedConfig:
    """Return the configuration of a classifier with the same encoder, if the family itself has no classifier."""
    from transformers import AutoConfig

    if config.model_type == "vit_mae":
        # MAE's encoder is a ViT with the same module names; its fixed position table is stored in the file.
        shared = AutoConfig.for_model("vit").to_dict().keys() - {"model_type", "transformers_version"}
        kept = {key: value for key, value in config.to_dict().items() if key in shared}
        return AutoConfig.for_model("vit", **kept)
    if config.model_type in families.TOWERS:
        return AutoConfig.for_model(families.TOWERS[config.model_type], vision_config=config.to_dict())
    return config


def classifier_class(config: PreTrainedConfig, *, as_saved: bool = False) -> type[PreTrainedModel]:
    """Return the family's classifier class; of several (DeiT, LeViT), the plain one, or the saved one on request."""
    from transformers import AutoModelForImageClassification

    found = AutoModelForImageClassification._model_mapping[type(config)]
    several = found if isinstance(found, tuple) else (found,)
    saved = [each for each in several if each.__name__ in (config.architectures or ())]
    chosen: type[PreTrainedModel] = saved[0] if saved and as_saved else several[0]
    return chosen


def set_classes(config: PreTrainedConfig, classes: Sequence[str]) -> None:
    """Write class names into a configuration."""
    config.num_labels = len(classes)
    config.id2label = dict(enumerate(classes))
    config.label2id = {name: number for number, name in enumerate(classes)}
    config.problem_type = "single_label_classification"
    if config.model_type == WRAPPER:
        set_label_names(config, classes)


def class_names(config: PreTrainedConfig) -> list[str]:
    """Return a model's class names in order, with placeholders for missing ones."""
    names = config.id2label or {}  # PVT's configuration may have none
    return [names.get(number, placeholder(number)) for number in range(config.num_labels)]


_PROBLEMS = {
    "multi_label_classification": "several labels per image",
    "regression": "values",
}


def was_for(problem: str | None) -> str:
    """Return an addition to the note on a new head, if the checkpoint's head solved another kind of problem."""
    return f"; the checkpoint's head was for {_PROBLEMS[problem]} ({problem})" if problem in _PROBLEMS else ""


def require_one_label(config: PreTrainedConfig, named: str) -> None:
    """Reject a model that does not choose one of several classes, since it cannot be scored.

    Raises:
        ModelError: if it does something else, saying what.
    """
    kind = _PROBLEMS.get(config.problem_type or "", "one logit" if config.num_labels == 1 else "")
    if kind:
        raise ModelError(
            f"{named} is for {kind} (problem_type {config.problem_type}, {config.num_labels} outputs), but only models "
            "that choose one class per image can be evaluated",
            allowed="a model with at least two classes, exactly one per image",
            hint=f"vitft predict {named} IMAGES for its scores, or vitft finetune --model {named} for a new head",
        )


def drop_path_off(config: PreTrainedConfig, notes: list[str]) -> None:
    """Turn off the family's own drop path, which draws from a global generator; vitft's follows the recipe."""
    vision = vision_config(config)
    rate = getattr(vision, "drop_path_rate", None) or 0.0
    rates = list(rate) if isinstance(rate, list | tuple) else [rate]
    if any(rates):
        vision.drop_path_rate = [0.0] * len(rates) if isinstance(rate, list | tuple) else 0.0
        notes.append(f"drop path follows model.drop_path, not the checkpoint's drop_path_rate of {rate}")


# --- image size --------------------------------------------------------------------------------------------


def image_size_of(config: PreTrainedConfig, made: Size | None = None) -> Size:
    """Return the (height, width) of a model's input in pixels.

    Taken from the configuration, or from the image processor for families that run at other sizes too; 224 by default.

    Args:
        config: a classifier's configuration.
        made: size of the images that its processor makes, if known.
    """
    sizes = [table_size(config), made]
    family = family_of(config)
    if family is not None and (family.any_size or family.resamples_itself):
        sizes.reverse()
    return next((size for size in sizes if size), (224, 224))


def table_size(config: PreTrainedConfig) -> Size | None:
    """Return the image size in a configuration, which its position tables are made for."""
    return pair_of(getattr(vision_config(config), "image_size", None))


def pair_of(size: object) -> tuple[int, int] | None:
    """Return the (height, width) of a size as configurations write it, None if it is not a size."""
    if isinstance(size, list | tuple) and len(size) >= 2:
        return int(size[-2]), int(size[-1])
    return (int(size), int(size)) if isinstance(size, int) else None

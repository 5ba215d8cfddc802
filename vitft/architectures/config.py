"""A checkpoint's config.json as the configuration of an image classifier."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vitft.architectures import families
from vitft.architectures.families import family_of, vision_config
from vitft.architectures.family import Size
from vitft.architectures.settings import read_settings
from vitft.architectures.timm_models import WRAPPER, is_wrapped, read_wrapped, set_label_names
from vitft.errors import ModelError, one_line
from vitft.files import is_file
from vitft.names import placeholder

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


def read_config(folder: Path, named: str) -> tuple[PreTrainedConfig, list[str]]:
    """Read config.json and make sure that transformers has an image-classification class for it.

    Returns:
        The configuration, and notes on what of the file was left out.

    Raises:
        ModelError: if it is missing, broken, or of a family that cannot classify images here.
    """
    from transformers import AutoConfig, AutoModelForImageClassification

    path = folder / "config.json"
    if not is_file(path):
        raise ModelError(
            f"{named} has no config.json, so it is no transformers checkpoint",
            hint="a folder with config.json, a run directory, or a Hub id OWNER/NAME",
        )
    values, notes = read_settings(path, named)
    try:
        if is_wrapped(values):
            return read_wrapped(values, named), notes
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
    return config, notes


def _as_classifier(config: PreTrainedConfig) -> PreTrainedConfig:
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


def classifier_class(config: PreTrainedConfig, *, as_saved: bool = False) -> type[PreTrainedModel]:
    """Return the family's class. Where it has several (DeiT, LeViT), the plain one, or the one that was saved."""
    from transformers import AutoModelForImageClassification

    found = AutoModelForImageClassification._model_mapping[type(config)]
    several = found if isinstance(found, tuple) else (found,)
    saved = [each for each in several if each.__name__ in (config.architectures or ())]
    chosen: type[PreTrainedModel] = saved[0] if saved and as_saved else several[0]
    return chosen


def set_classes(config: PreTrainedConfig, classes: Sequence[str]) -> None:
    """Write the classes into a configuration."""
    config.num_labels = len(classes)
    config.id2label = dict(enumerate(classes))
    config.label2id = {name: number for number, name in enumerate(classes)}
    config.problem_type = "single_label_classification"
    if config.model_type == WRAPPER:
        set_label_names(config, classes)


def class_names(config: PreTrainedConfig) -> list[str]:
    """Return the names of a model's classes by number, a placeholder where it has none."""
    names = config.id2label or {}  # PVT's configuration may have none
    return [names.get(number, placeholder(number)) for number in range(config.num_labels)]


_PROBLEMS = {
    "multi_label_classification": "several labels per image",
    "regression": "values",
}


def was_for(problem: str | None) -> str:
    """Return what a sentence on a new head adds where the checkpoint's own was for another kind of problem."""
    return f"; the checkpoint's own was for {_PROBLEMS[problem]} ({problem})" if problem in _PROBLEMS else ""


def require_one_label(config: PreTrainedConfig, named: str) -> None:
    """Refuse to score a model that does not choose one of several classes.

    Raises:
        ModelError: saying what it is for.
    """
    kind = _PROBLEMS.get(config.problem_type or "", "one logit" if config.num_labels == 1 else "")
    if kind:
        raise ModelError(
            f"{named} is for {kind} (problem_type {config.problem_type}, {config.num_labels} outputs), and can only be "
            "scored as a choice of one class",
            allowed="a model with at least two classes, one of which each image has",
            hint=f"vitft predict {named} IMAGES gives its scores; vitft finetune --model {named} gives it a new head",
        )


def drop_path_off(config: PreTrainedConfig, notes: list[str]) -> None:
    """Switch off the family's own drop path, which draws from a global generator; ours follows the recipe."""
    vision = vision_config(config)
    rate = getattr(vision, "drop_path_rate", None) or 0.0
    rates = list(rate) if isinstance(rate, list | tuple) else [rate]
    if any(rates):
        vision.drop_path_rate = [0.0] * len(rates) if isinstance(rate, list | tuple) else 0.0
        notes.append(f"drop path follows model.drop_path, not the checkpoint's drop_path_rate of {rate}")


# --- image size --------------------------------------------------------------------------------------------


def image_size_of(config: PreTrainedConfig, made: Size | None = None) -> Size:
    """Return the (height, width) of a model's input in pixels.

    The configuration says it, or the image processor for families that run at other sizes too; 224 if neither does.

    Args:
        config: of a classifier.
        made: the size of the images that its processor makes, if that says one.
    """
    sizes = [table_size(config), made]
    family = family_of(config)
    if family is not None and (family.any_size or family.resamples_itself):
        sizes.reverse()
    return next((size for size in sizes if size), (224, 224))


def table_size(config: PreTrainedConfig) -> Size | None:
    """Return the image size that a configuration speaks of, which its tables are made for."""
    return pair_of(getattr(vision_config(config), "image_size", None))


def pair_of(size: object) -> tuple[int, int] | None:
    """Return (height, width) of a size as configurations write it, None if it is none."""
    if isinstance(size, list | tuple) and len(size) >= 2:
        return int(size[-2]), int(size[-1])
    return (int(size), int(size)) if isinstance(size, int) else None

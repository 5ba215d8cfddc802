"""Try a checkpoint's configuration and image processor before building the real model from them.

The model is built on the meta device, without memory for weights, and run on one meta image; the image processor makes
one small image. Both take a fraction of a second and find most mistakes in a configuration.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import psutil
import torch
from PIL import Image
from torch import Tensor, nn

from vitft.architectures.config import classifier_class
from vitft.architectures.families import family_of, vision_config
from vitft.architectures.weights import find_key
from vitft.errors import ModelError, one_line
from vitft.model.pixels import before_values_change, normalisation
from vitft.recipe.sizes import MOST_PIXELS, show_size

if TYPE_CHECKING:
    from transformers import PreTrainedConfig
    from transformers.image_processing_utils import BaseImageProcessor

_QUICKLY_RUN = 1_000_000_000  # parameters; one image on the CPU takes a second or two
_SMALL, _FEW = 20_000_000, 300  # missing parameters and tensors too few to check early
_WITHOUT_VALUES = re.compile(r"\bmeta (device|tensors?)\b|\bdevice meta\b|\bregister_meta\b", re.IGNORECASE)  # torch


def check_model(config: PreTrainedConfig, size: tuple[int, int], named: str) -> None:
    """Check that a model can be built on this machine, runs at its own size, and gives logits.

    Args:
        config: a classifier's configuration.
        size: (height, width) of its images.
        named: the checkpoint as the user typed it.

    Raises:
        ModelError: if it cannot, with the reason.
    """
    if not all(1 <= side <= MOST_PIXELS for side in size):
        raise _lies(named, f"an image size of {show_size(size)}", f"1 to {MOST_PIXELS} pixels a side")
    family = family_of(config)
    if family and family.most_places and math.prod(side // family.step(config) for side in size) > family.most_places:
        most = math.isqrt(family.most_places) * family.step(config)
        raise _lies(named, f"an image size of {show_size(size)} for a {config.model_type}", f"at most {most}x{most}")
    channels = int(getattr(vision_config(config), "num_channels", None) or 3)
    try:
        with torch.device("meta"):
            model = classifier_class(config)(config).eval()
        _check_memory(model, named)
        if family and family.keeps_offsets:
            return  # a run on meta would leave offsets without values for later models
        with torch.no_grad():  # not under torch.device("meta"): tensors that a module caches must have values
            logits = model(torch.zeros(1, channels, *size, device="meta")).logits
    except ImportError as error:
        raise needs_package(config, error) from error
    except ModelError:
        raise
    except Exception as error:  # each family fails on wrong values in its own way
        if _WITHOUT_VALUES.search(str(error)):
            return  # it needs real values, so the first real image will test it
        raise ModelError(
            f"the config.json of {named} describes a {config.model_type} model that cannot run: "
            f"{type(error).__name__}: {one_line(error)}",
            hint="fix its config.json, or use another checkpoint",
        ) from error
    if logits.ndim != 2 or (config.num_labels and logits.shape[1] != config.num_labels):
        raise _lies(named, f"{config.num_labels} classes, but gives {tuple(logits.shape)}", "one logit for each class")


def check_processor(processor: BaseImageProcessor, named: str) -> None:
    """Check that an image processor turns an image into an array a model can take, of any size.

    Raises:
        ModelError: if it does not, with the reason.
    """
    what = f"the image processor of {named}, a {type(processor).__name__},"
    hint = "fix its preprocessor_config.json, or remove it to use ViT's processor"
    try:
        normal = normalisation(processor)
        values = [*normal.mean, *normal.std]
        image = Image.fromarray(np.arange(24 * 40 * 3, dtype=np.uint8).reshape(24, 40, 3))
        made = before_values_change(processor, image).numpy()
    except Exception as error:  # each class fails in its own way
        raise ModelError(f"{what} fails: {type(error).__name__}: {one_line(error)}", hint=hint) from error
    if len(values) != 6 or not all(math.isfinite(value) for value in values) or min(values[3:]) <= 0:
        raise ModelError(f"{what} has an impossible mean or standard deviation: {values}", hint=hint)
    if made.ndim != 3 or made.shape[0] != 3 or made.size == 0 or not np.isfinite(made).all():
        raise ModelError(f"{what} makes an array of shape {made.shape}, or values that are not finite", hint=hint)


def check_amount(config: PreTrainedConfig, state: Mapping[str, Tensor], named: str) -> None:
    """Reject a config that describes a far larger model than the file holds, before memory is allocated for it.

    Args:
        config: the classifier's configuration.
        state: the tensors of the file.
        named: the checkpoint as the user typed it.

    Raises:
        ModelError: if it does, with both sizes.
    """
    with torch.device("meta"):
        model = classifier_class(config)(config)
    tensors = [each for each in model.parameters() if config.num_labels not in each.shape[:1]]
    wanted, held = sum(each.numel() for each in tensors), sum(each.numel() for each in state.values())
    if wanted > 2 * held + _SMALL or len(tensors) > 3 * len(state) + _FEW:
        raise ModelError(
            f"{named} does not fit its own config.json: without the head, the config describes {wanted / 1e6:,.2f} M "
            f"parameters in {len(tensors):,} tensors, but the file holds {held / 1e6:,.2f} M in {len(state):,}",
            hint="fix its config.json, or use a complete checkpoint",
        )


def misfits(config: PreTrainedConfig, state: Mapping[str, Tensor]) -> list[str]:
    """Describe the tensors whose shape differs from the configuration's."""
    with torch.device("meta"):
        model = classifier_class(config)(config)
    found = []
    for name, wanted in model.state_dict().items():
        key = find_key(model, name, state)
        if key is not None and state[key].shape != wanted.shape:
            found.append(f"{key} is {tuple(state[key].shape)} in the file, but the config says {tuple(wanted.shape)}")
    return found


def check_values(model: nn.Module, size: tuple[int, int], named: str) -> list[str]:
    """Check that a loaded model gives finite numbers; return a note if some weights are not finite.

    Args:
        model: on the CPU, in evaluation mode.
        size: (height, width) of its images.
        named: the checkpoint as the user typed it.

    Raises:
        ModelError: if its output is not finite, naming the weights that are not.
    """
    tensors = [*model.named_parameters(), *model.named_buffers()]
    wrong = [name for name, each in tensors if each.is_floating_point() and not torch.isfinite(each).all()]
    if not wrong and sum(each.numel() for _, each in tensors) > _QUICKLY_RUN:
        return []
    said = f"{', '.join(sorted(wrong)[:3])}{f' and {len(wrong) - 3} more' if len(wrong) > 3 else ''}"
    pixels = torch.linspace(-2, 2, size[0] * size[1]).reshape(1, 1, *size).expand(1, 3, *size)
    try:
        with torch.no_grad():
            logits = model(pixels).logits
    except Exception as error:  # each family fails on wrong values in its own way
        raise ModelError(f"{named} does not run: {type(error).__name__}: {one_line(error)}") from error
    if not torch.isfinite(logits).all():
        why = f"its weights are not finite (NaN or infinity): {said}" if wrong else "its weights are too large"
        raise ModelError(f"{named} gives no finite output: {why}", hint="use an undamaged checkpoint")
    return [f"some weights are not finite, but the output is: {said}"] if wrong else []


def require_colour(config: PreTrainedConfig, named: str) -> None:
    """Reject a model that does not take three channels, since every image is converted to RGB."""
    channels = getattr(vision_config(config), "num_channels", None) or 3
    if channels != 3:
        raise ModelError(
            f"{named} takes {channels} channels", allowed="3 (RGB, also for grey images)", hint="another --model"
        )


def needs_package(config: PreTrainedConfig, error: ImportError) -> ModelError:
    """Return the error for a model that needs a missing package."""
    return ModelError(f"a {config.model_type} model needs a package that is not installed: {one_line(error)}")


def _check_memory(model: nn.Module, named: str) -> None:
    tensors = [*model.parameters(), *model.buffers()]
    needed, free = sum(each.numel() * each.element_size() for each in tensors), psutil.virtual_memory().available
    if needed > free:
        raise ModelError(
            f"{named} describes a model of {needed / 1e9:,.0f} GB, but this machine has {free / 1e9:,.0f} GB free",
            hint="a smaller checkpoint; if this one is small, its config.json is wrong",
        )


def _lies(named: str, what: str, allowed: str) -> ModelError:
    return ModelError(
        f"the config.json of {named} says {what}",
        allowed=allowed,
        hint="fix its config.json, or use another checkpoint",
    )

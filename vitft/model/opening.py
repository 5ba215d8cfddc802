"""Open a checkpoint folder without its weights: read and test its configuration and image processor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vitft.architectures.config import image_size_of, read_config
from vitft.architectures.timm_models import WRAPPER, take_transforms
from vitft.errors import ModelError, one_line
from vitft.model import gate
from vitft.model.processor import load_processor, made_size, processor_of_timm

if TYPE_CHECKING:
    from transformers import PreTrainedConfig
    from transformers.image_processing_utils import BaseImageProcessor


@dataclass
class Opened:
    """A checkpoint folder before its weights are read.

    Attributes:
        config: configuration of a classifier.
        processor: its image processor, or ViT's if it has none.
        image_size: (height, width) that it runs at.
        notes: sentences for the user.
    """

    config: PreTrainedConfig
    processor: BaseImageProcessor
    image_size: tuple[int, int]
    notes: list[str]


def open_checkpoint(folder: Path, named: str) -> Opened:
    """Read a checkpoint's configuration and image processor and test both, as every command does first.

    Raises:
        ModelError: if either cannot be used.
    """
    try:
        opened = _read_folder(folder, named)
    except ModelError:
        raise
    except Exception as error:  # each configuration class fails on wrong values in its own way
        raise ModelError(
            f"the configuration of {named} cannot be used: {type(error).__name__}: {one_line(error)}",
            hint="fix its config.json and preprocessor_config.json, or use another checkpoint",
        ) from error
    gate.check_processor(opened.processor, named)
    gate.check_model(opened.config, opened.image_size, named)
    return opened


def _read_folder(folder: Path, named: str) -> Opened:
    config, notes = read_config(folder, named)
    if config.model_type == WRAPPER and (taken := take_transforms(config, folder)):
        processor, more = processor_of_timm(taken[0])
        return Opened(config, processor, image_size_of(config, made_size(processor)), [*notes, *more, taken[1]])
    processor, note = load_processor(folder, named, config)
    notes += [note] if note else []
    return Opened(config, processor, image_size_of(config, None if note else made_size(processor)), notes)

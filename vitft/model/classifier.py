"""A checkpoint as an image classifier: the one object from loading to saving."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError

from vitft.architectures.config import class_names
from vitft.architectures.family import Size
from vitft.disk import whole_folder
from vitft.errors import ModelError
from vitft.model.origin import Origin
from vitft.model.pixels import ImageProcess, normalisation
from vitft.resolution.encoding import with_written_positions
from vitft.resolution.retarget import Retargeting
from vitft.views.pixel_values import Normalisation

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel
    from transformers.image_processing_utils import BaseImageProcessor


@dataclass
class Classifier:
    """A model with what it takes to run it on images.

    Attributes:
        name: how the user called it.
        model: transformers' model, in float32.
        processor: its image processor, at its image size.
        retargeting: what another size made of the checkpoint.
        head: names of the parameters whose shape depends on the classes.
        has_head: whether these were trained; if not, they are zero.
        kept_classes: of the dataset, whose part of the head comes from the checkpoint.
        revision: commit of a Hub model.
        origin: its base model on the Hub, and its licence.
        notes: what is new, what was left, what was decided.
    """

    name: str
    model: PreTrainedModel
    processor: BaseImageProcessor
    retargeting: Retargeting
    head: tuple[str, ...]
    has_head: bool = True
    kept_classes: int = 0
    revision: str | None = None
    origin: Origin = field(default_factory=Origin)
    notes: list[str] = field(default_factory=list)

    @property
    def config(self) -> PreTrainedConfig:
        """The model's configuration."""
        return self.model.config

    @property
    def image_size(self) -> Size:
        """(height, width) of its input in pixels."""
        return self.retargeting.new

    @cached_property
    def classes(self) -> list[str]:
        """Names of its classes by number."""
        return class_names(self.config)

    @property
    def head_module(self) -> str:
        """Name of the module that makes logits of features; the first of several."""
        return self.head[0].split(".")[0]

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def process(self) -> ImageProcess:
        """What makes an image the pixels (3, H, W) that the model sees."""
        return ImageProcess(self.processor, self.image_size)

    @cached_property
    def pixel_values(self) -> Normalisation:
        """What makes uint8 images (B, 3, H, W) the model's input, in training, evaluation and pictures alike."""
        return normalisation(self.processor)

    def to(self, device: torch.device) -> Classifier:
        """Move the model to a device."""
        self.model.to(device)
        return self

    def save(self, folder: Path) -> None:
        """Write a plain transformers folder, whole or not at all.

        Raises:
            ModelError: if it cannot be written, as on a full disk.
        """
        model = with_written_positions(self.model)
        try:
            with whole_folder(folder) as partial:
                model.save_pretrained(partial)
                self.processor.save_pretrained(partial)
        except (OSError, SafetensorError) as error:
            raise ModelError(
                f"cannot write the model to {folder}: {error}", hint="make room, then resume the run"
            ) from error

"""An image classifier: one object from loading a checkpoint to saving it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from torch import Tensor

from vitft.architectures.config import class_names
from vitft.architectures.family import Size
from vitft.disk import whole_folder
from vitft.errors import ModelError
from vitft.model.adapter import Adapter
from vitft.model.origin import Origin
from vitft.model.pixels import ImageProcess, normalisation
from vitft.recipe.choices import ADAPTERS
from vitft.recipe.keys import ModelRecipe
from vitft.resolution.encoding import with_written_positions
from vitft.resolution.retarget import Retargeting
from vitft.views.pixel_values import Normalisation

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel
    from transformers.image_processing_utils import BaseImageProcessor


@dataclass
class Classifier:
    """A model with everything needed to run it on images.

    Attributes:
        name: the checkpoint as the user typed it.
        model: the transformers model, in float32.
        processor: its image processor, set to the model's image size.
        retargeting: what changed in the checkpoint for another size.
        head: names of the parameters whose shape depends on the number of classes.
        has_head: whether the head is trained; if not, it is all zeros.
        kept_classes: how many of the dataset's classes have their part of the head from the checkpoint.
        revision: commit of a Hub model.
        folder: its files on this machine, if it is a finished model.
        origin: its base model on the Hub, and its licence.
        notes: sentences for the user: what is new, what was left out, what was decided.
        adapter: low-rank adapters in the model, while they are trained.
    """

    name: str
    model: PreTrainedModel
    processor: BaseImageProcessor
    retargeting: Retargeting
    head: tuple[str, ...]
    has_head: bool = True
    kept_classes: int = 0
    revision: str | None = None
    folder: Path | None = None
    origin: Origin = field(default_factory=Origin)
    notes: list[str] = field(default_factory=list)
    adapter: Adapter | None = None

    @property
    def config(self) -> PreTrainedConfig:
        """The model's configuration."""
        return self.model.config

    @property
    def image_size(self) -> Size:
        """(height, width) of the input in pixels."""
        return self.retargeting.new

    @cached_property
    def classes(self) -> list[str]:
        """Class names, in the order of the logits."""
        return class_names(self.config)

    @property
    def head_module(self) -> str:
        """Name of the module that turns features into logits; the first one if there are several."""
        return self.head[0].split(".")[0]

    @property
    def device(self) -> torch.device:
        """Device that the weights are on."""
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def process(self) -> ImageProcess:
        """Function from an image to the uint8 pixels (3, H, W) that the model sees."""
        return ImageProcess(self.processor, self.image_size)

    @cached_property
    def pixel_values(self) -> Normalisation:
        """Function from uint8 images (B, 3, H, W) to model input, the same in training, evaluation and pictures."""
        return normalisation(self.processor)

    def to(self, device: torch.device) -> Classifier:
        """Move the model to a device."""
        self.model.to(device)
        return self

    def add_adapter(self, recipe: ModelRecipe, seed: int) -> None:
        """Add low-rank adapters to the model, if the recipe trains them.

        Raises:
            ModelError: if the model has no layers for them, or if they are to be kept for a checkpoint that nobody has.
        """
        if recipe.train not in ADAPTERS:
            return
        if recipe.adapter and (self.retargeting or recipe.position.kind):
            raise ModelError(
                f"model.adapter: the adapter would belong to {self.name} with another size or other positions, which "
                "is no checkpoint that peft could load",
                hint=f"vitft resize {self.name} -o RESIZED, then --model RESIZED; or leave out --adapter",
            )
        self.adapter = Adapter(self.model, recipe, seed)
        self.notes.append(str(self.adapter))

    def merge_adapter(self) -> None:
        """Merge the adapters into the weights, if there are any: the model is then what :meth:`save` writes."""
        if self.adapter is not None:
            self.adapter.merge(self.model)
            self.adapter = None

    def save_adapter(self, folder: Path) -> None:
        """Write the adapters and the head for peft, complete or not at all.

        Raises:
            ModelError: if the folder cannot be written.
        """
        assert self.adapter is not None
        try:
            with whole_folder(folder) as partial:
                self.adapter.save(self.model, partial, self.name, self.revision, self.head)
                self.processor.save_pretrained(partial)
        except (OSError, SafetensorError) as error:
            raise ModelError(
                f"cannot write the adapter to {folder}: {error}", hint="free some disk space, then resume the run"
            ) from error

    def save(self, folder: Path, weights: Mapping[str, Tensor] | None = None) -> None:
        """Write a plain transformers folder, complete or not at all; adapters are merged into the weights.

        Args:
            folder: where to.
            weights: instead of the model's own, which may be divided over several processes.

        Raises:
            ModelError: if the folder cannot be written, for example on a full disk.
        """
        plain = self.model if self.adapter is None else self.adapter.merged(self.model)
        model = with_written_positions(plain)
        try:
            with whole_folder(folder) as partial:
                model.save_pretrained(partial, state_dict=None if weights is None else dict(weights))
                self.processor.save_pretrained(partial)
        except (OSError, SafetensorError) as error:
            raise ModelError(
                f"cannot write the model to {folder}: {error}", hint="free some disk space, then resume the run"
            ) from error

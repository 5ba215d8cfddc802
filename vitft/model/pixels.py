"""What a model's image processor makes of an image: its pixels, and how those become pixel values.

Evaluation goes through the saved processor itself, so what is scored is what ``pipeline`` will see. It may come from
either backend of transformers: arrays without torchvision, tensors with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vitft.data.staging import MAX_PIXELS, WHITE_LEVEL, BadImage
from vitft.errors import ModelError
from vitft.views.pixel_values import Normalisation

if TYPE_CHECKING:
    from transformers.image_processing_utils import BaseImageProcessor

# Switches of a processor that wait for normalisation; include_top is EfficientNet's name for doing it twice.
_NOT_YET = ("do_pad", "include_top", "do_flip_channel_order")


@dataclass(frozen=True)
class ImageProcess:
    """Upright RGB image -> uint8 RGB (3, H, W) as the model's processor makes it, before it changes values or channels.

    transformers pads at the bottom and the right, after normalising, with 0: the mean colour is what becomes 0.
    """

    processor: BaseImageProcessor
    size: tuple[int, int]

    @property
    def white_level(self) -> int:
        """Value that is white in 16-bit grey images, as in training; written into the processor's settings."""
        return int(getattr(self.processor, "white_level", WHITE_LEVEL))

    def __call__(self, image: Image.Image) -> Tensor:
        """Return the image's pixels.

        Raises:
            BadImage: if the processor would make a far larger image of it first.
            ModelError: if the processor does not make its size of it.
        """
        _check_shape(image, self.processor)
        pixels = before_values_change(self.processor, image).to(torch.uint8)
        if getattr(self.processor, "do_pad", None):
            pixels = _with_border(pixels, self.size, normalisation(self.processor).mean)
        if tuple(pixels.shape) != (3, *self.size):
            raise ModelError(f"the image processor made {tuple(pixels.shape)} of an image, not {(3, *self.size)}")
        return pixels


def as_tensor(made: np.ndarray | Tensor) -> Tensor:
    """Return as a tensor what a processor of either backend made."""
    return made if isinstance(made, Tensor) else torch.as_tensor(np.ascontiguousarray(made))


def before_values_change(processor: BaseImageProcessor, image: Image.Image) -> Tensor:
    """Return what a processor makes of an image, (3, h, w), before it changes values or channels."""
    off = {name: False for name in _NOT_YET if getattr(processor, name, None)}
    return as_tensor(processor(image, do_rescale=False, do_normalize=False, **off)["pixel_values"][0])


def _check_shape(image: Image.Image, processor: BaseImageProcessor) -> None:
    """Refuse a strip that is enlarged until its short side has the model's size: 1 x 30,000 becomes 1.5 Gpixels."""
    size = getattr(processor, "size", None)
    edge = None if isinstance(size, int) else dict(size or {}).get("shortest_edge")
    if edge and getattr(processor, "do_resize", None):
        short, long = sorted(image.size)
        enlarged = edge * edge * long // max(short, 1)
        if enlarged > max(MAX_PIXELS, 4 * short * long):
            raise BadImage(
                f"it is {image.width:,} x {image.height:,}, of which the model's image processor would make "
                f"{enlarged:,} pixels before it cuts out the middle"
            )


def normalisation(processor: BaseImageProcessor) -> Normalisation:
    """Return what a processor does to the values and channels of an image that has its size."""
    scale, shift = 255.0, 0.0
    if getattr(processor, "do_rescale", None) is not False:
        scale *= float(processor.rescale_factor)
        shift = -1.0 if getattr(processor, "rescale_offset", None) else 0.0  # EfficientNet
    means, stds = [-shift / scale] * 3, [1 / scale] * 3
    if getattr(processor, "do_normalize", None):
        own_mean, own_std = _per_channel(processor.image_mean), _per_channel(processor.image_std)
        means = [(m - shift) / scale for m in own_mean]
        stds = [s / scale for s in own_std]
    if getattr(processor, "include_top", None):
        stds = [s * again for s, again in zip(stds, _per_channel(processor.image_std), strict=True)]
    return Normalisation(tuple(means), tuple(stds), is_bgr=bool(getattr(processor, "do_flip_channel_order", None)))


def _with_border(pixels: Tensor, size: tuple[int, int], mean: Sequence[float]) -> Tensor:
    """Pad (3, h, w) at the bottom and the right with the mean colour."""
    colour = torch.tensor([min(255, max(0, round(255 * m))) for m in mean], dtype=torch.uint8)
    canvas = colour[:, None, None].repeat(1, *size)
    height, width = pixels.shape[1:]
    if height > size[0] or width > size[1]:
        return pixels  # the shape tells what is wrong
    canvas[:, :height, :width] = pixels
    return canvas


def _per_channel(value: float | Sequence[float]) -> tuple[float, ...]:
    return (float(value),) * 3 if isinstance(value, int | float) else tuple(float(each) for each in value)

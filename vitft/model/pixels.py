"""Turn an image into pixels, and pixels into model input, exactly as the model's image processor does.

Evaluation uses the saved processor itself, so scores match those of ``pipeline``. transformers has two kinds of image
processor: without torchvision they return arrays, with it tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vitft.data.staging import MAX_PIXELS, WHITE_LEVEL, BadImage
from vitft.errors import ModelError
from vitft.views.pixel_values import Normalisation

if TYPE_CHECKING:
    from transformers.image_processing_utils import BaseImageProcessor

# Steps that follow normalisation or are part of it; include_top makes EfficientNet normalise twice.
_NOT_YET = ("do_pad", "include_top", "do_flip_channel_order")


@dataclass(frozen=True)
class ImageProcess:
    """Turns an upright RGB image into uint8 RGB (3, H, W) as the processor does, before it normalises.

    transformers pads with 0 at the bottom and right after normalising, so here the padding is the mean colour.
    """

    processor: BaseImageProcessor
    size: tuple[int, int]

    @property
    def white_level(self) -> int:
        """Value of white in 16-bit grey images, saved by training in the processor's settings."""
        return int(getattr(self.processor, "white_level", WHITE_LEVEL))

    def settings(self) -> dict[str, Any]:
        """Return what decides how an image becomes pixels: the processor's settings, its class among them."""
        return {"processor": type(self.processor).__name__, **self.processor.to_dict(), "to": self.size}

    def __call__(self, image: Image.Image) -> Tensor:
        """Return the image's pixels.

        Raises:
            BadImage: if the processor would first enlarge it to far too many pixels.
            ModelError: if the result does not have the model's size.
        """
        _check_shape(image, self.processor)
        pixels = before_values_change(self.processor, image).to(torch.uint8)
        if getattr(self.processor, "do_pad", None):
            pixels = _with_border(pixels, self.size, normalisation(self.processor).mean)
        if tuple(pixels.shape) != (3, *self.size):
            raise ModelError(f"the image processor made {tuple(pixels.shape)} from an image, not {(3, *self.size)}")
        return pixels


def as_tensor(made: np.ndarray | Tensor) -> Tensor:
    """Return a processor's array or tensor as a tensor."""
    return made if isinstance(made, Tensor) else torch.as_tensor(np.ascontiguousarray(made))


def before_values_change(processor: BaseImageProcessor, image: Image.Image) -> Tensor:
    """Return the image (3, h, w) that a processor makes, before it rescales, normalises or swaps channels."""
    off = {name: False for name in _NOT_YET if getattr(processor, name, None)}
    return as_tensor(processor(image, do_rescale=False, do_normalize=False, **off)["pixel_values"][0])


def _check_shape(image: Image.Image, processor: BaseImageProcessor) -> None:
    """Reject a narrow strip that resizing by the short side would blow up: 1 x 30,000 becomes 1.5 Gpixels."""
    size = getattr(processor, "size", None)
    edge = None if isinstance(size, int) else dict(size or {}).get("shortest_edge")
    if edge and getattr(processor, "do_resize", None):
        short, long = sorted(image.size)
        enlarged = edge * edge * long // max(short, 1)
        if enlarged > max(MAX_PIXELS, 4 * short * long):
            raise BadImage(
                f"it is {image.width:,} x {image.height:,}, which the model's image processor would enlarge to "
                f"{enlarged:,} pixels before cropping"
            )


def normalisation(processor: BaseImageProcessor) -> Normalisation:
    """Return how a processor rescales and normalises values and orders channels."""
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
    """Pad (3, h, w) at the bottom and right with the mean colour."""
    colour = torch.tensor([min(255, max(0, round(255 * m))) for m in mean], dtype=torch.uint8)
    canvas = colour[:, None, None].repeat(1, *size)
    height, width = pixels.shape[1:]
    if height > size[0] or width > size[1]:
        return pixels  # the caller reports the wrong shape
    canvas[:, :height, :width] = pixels
    return canvas


def _per_channel(value: float | Sequence[float]) -> tuple[float, ...]:
    return (float(value),) * 3 if isinstance(value, int | float) else tuple(float(each) for each in value)

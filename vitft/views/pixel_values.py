"""Normalise uint8 images into the pixel values that a model takes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Normalisation:
    """How a model wants RGB images normalised.

    Attributes:
        mean, std: of values in [0, 1], per channel in the order red, green, blue.
        is_bgr: whether the model takes blue, green, red (MobileViT does).
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    is_bgr: bool = False

    def __call__(self, images: Tensor) -> Tensor:
        """Return (images / 255 - mean) / std in float32, with channels in the model's order.

        Args:
            images: RGB of any dtype, in [0, 255], shape (B, 3, H, W).
        """
        statistics = torch.tensor([self.mean, self.std])
        means, stds = statistics.to(images.device, non_blocking=True)[:, :, None, None]  # blocking stalls the GPU
        centred: Tensor = images.to(torch.float32) - 255 * means
        pixel_values = centred.div_(255 * stds)
        return pixel_values.flip(1) if self.is_bgr else pixel_values

    def levels(self, pixel_values: Tensor) -> Tensor:
        """Return the images that pixel values were made of: whole levels in [0, 255], float32, red, green and blue.

        Args:
            pixel_values: in the model's order of channels, shape (B, 3, H, W).
        """
        statistics = torch.tensor([self.mean, self.std])
        means, stds = statistics.to(pixel_values.device, non_blocking=True)[:, :, None, None]
        rgb = pixel_values.flip(1) if self.is_bgr else pixel_values
        levels: Tensor = rgb * (255 * stds) + 255 * means
        return levels.round_().clamp_(0, 255)

    @property
    def fill(self) -> Tensor:
        """The mean colour as whole levels, shape (3,): what pixel values of 0 show."""
        return (255 * torch.tensor(self.mean)).round().clamp(0, 255)

    def scale_and_mean(self) -> tuple[Tensor, Tensor]:
        """Return what makes the same of an image as scale * (image - mean), both of shape (3,) in the order of RGB."""
        mean, std = 255 * torch.tensor([self.mean, self.std])
        return 1 / std, mean

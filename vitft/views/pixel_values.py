"""The one place where the uint8 pixels of an image become what a model takes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Normalisation:
    """What a model wants done to the values and channels of RGB images.

    Attributes:
        mean, std: per channel in the order red, green, blue, of values in [0, 1].
        is_bgr: whether the model takes blue, green, red (MobileViT does).
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    is_bgr: bool = False

    def __call__(self, images: Tensor) -> Tensor:
        """Return (images / 255 - mean) / std in float32, then in the model's order of channels.

        Args:
            images: RGB of any dtype, in [0, 255], shape (B, 3, H, W).
        """
        statistics = torch.tensor([self.mean, self.std])
        means, stds = statistics.to(images.device, non_blocking=True)[:, :, None, None]  # blocking would stall a GPU
        centred: Tensor = images.to(torch.float32) - 255 * means
        pixel_values = centred.div_(255 * stds)
        return pixel_values.flip(1) if self.is_bgr else pixel_values

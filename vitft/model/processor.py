"""The image processor that is saved beside the model: its size, and how an image is fitted into it.

Evaluation goes through this very object, so what is scored is what ``pipeline`` will see.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vitft.errors import ModelError

Fit = Literal["squash", "crop", "pad"]


@dataclass(frozen=True)
class ImageProcess:
    """Upright RGB image -> uint8 (3, H, W) as the model's processor makes it, before normalisation."""

    processor: Any
    size: tuple[int, int]

    def __call__(self, image: Image.Image) -> Tensor:
        made = self.processor(image, do_rescale=False, do_normalize=False)["pixel_values"][0]
        pixels = torch.from_numpy(np.ascontiguousarray(made)) if isinstance(made, np.ndarray) else torch.as_tensor(made)
        if tuple(pixels.shape) != (3, *self.size):
            raise ModelError(f"the image processor made {tuple(pixels.shape)} of an image, not {(3, *self.size)}")
        return pixels.to(torch.uint8)


def load_processor(folder: Path) -> tuple[Any, str | None]:
    """Return the image processor of a checkpoint and a note if it has none and ViT's took its place."""
    from transformers import AutoImageProcessor, ViTImageProcessor

    if (folder / "preprocessor_config.json").is_file() or (folder / "processor_config.json").is_file():
        return AutoImageProcessor.from_pretrained(folder), None
    note = "the checkpoint has no preprocessor_config.json: ViT's processor is used (mean and std 0.5, bilinear)"
    return ViTImageProcessor(), note


def fit_processor(processor: Any, size: tuple[int, int], fit: Fit) -> Any:
    """Return a copy of ``processor`` that makes images of ``size`` (height, width).

    Raises:
        ModelError: if this family's processor cannot express ``fit``, found by trying it.
    """
    height, width = size
    rectangle = {"height": height, "width": width}
    off: dict[str, Any] = {
        "do_resize": True,
        "do_center_crop": False,
        "crop_size": None,
        "do_pad": False,
        "pad_size": None,
    }
    if "crop_pct" in type(processor)().to_dict():
        off["crop_pct"] = 1.0  # ConvNeXt's processor enlarges by this before it crops
    match fit:
        case "squash":
            settings = {**off, "size": rectangle}
        case "crop":
            if height != width:
                raise ModelError(
                    f"data.fit: crop needs a square size, not {height}x{width}",
                    allowed="squash for any size, crop for square ones",
                    hint="--set data.fit=squash",
                )
            settings = {
                **off,
                "size": {"shortest_edge": height},
                "do_center_crop": True,
                "crop_size": rectangle,
            }
        case "pad":
            limits = {"max_height": height, "max_width": width}
            settings = {**off, "size": limits, "do_pad": True, "pad_size": rectangle}
    try:
        fitted = type(processor)(**{**processor.to_dict(), **settings})
        for trial in ((width + 37, height + 11), (height // 2 + 1, width), (width * 3, height * 2)):
            ImageProcess(fitted, size)(Image.new("RGB", trial))
    except (ModelError, ValueError, TypeError, KeyError) as error:
        raise ModelError(
            f"{type(processor).__name__} cannot express data.fit: {fit} at {height}x{width} ({error})",
            allowed="squash, crop or pad, as far as the family's image processor has them",
            hint="--set data.fit=squash",
        ) from error
    return fitted


def normalisation(processor: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel in units of [0, 1], of everything the processor does to values."""
    full_scale = 255 * float(processor.rescale_factor) if getattr(processor, "do_rescale", True) else 255.0
    if not getattr(processor, "do_normalize", True):
        return (0.0,) * 3, (1 / full_scale,) * 3
    mean, std = tuple(map(float, processor.image_mean)), tuple(map(float, processor.image_std))
    return tuple(m / full_scale for m in mean), tuple(s / full_scale for s in std)


def takes_bgr(processor: Any) -> bool:
    """Whether the processor gives blue, green, red (MobileViT does)."""
    return bool(getattr(processor, "do_flip_channel_order", False))


def save_model(model: Any, processor: Any, folder: Path) -> None:
    """Write a plain transformers folder, whole or not at all."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        model.save_pretrained(partial)
        processor.save_pretrained(partial)
        if folder.exists():  # left by a run that was stopped before its results were written
            shutil.rmtree(folder)
        partial.rename(folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise ModelError(
            f"cannot write the model to {folder}: {error}", hint="make room, then resume the run"
        ) from error

"""Give an image processor another size or resize mode, by trying what its own class can do."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vitft.errors import ModelError
from vitft.model.pixels import ImageProcess, as_tensor, normalisation
from vitft.model.processor import made_size, processor_settings, vit_processor
from vitft.recipe.choices import ResizeMode

if TYPE_CHECKING:
    from transformers.image_processing_utils import BaseImageProcessor


def fit_processor(processor: BaseImageProcessor, size: tuple[int, int], resize_mode: ResizeMode) -> BaseImageProcessor:
    """Return a processor like ``processor`` that makes images of ``size`` (height, width).

    If a trial shows that the family's own class cannot do ``resize_mode``, ViT's processor is used instead, with the
    same interpolation and normalisation; ``pipeline`` reads the class from the saved file.

    Raises:
        ModelError: if no transformers processor can do it.
    """
    if resize_mode == "crop" and size[0] != size[1]:
        raise ModelError(
            f"data.fit: crop needs a square size, not {size[0]}x{size[1]}",
            allowed="squash or pad for any size, crop for square sizes",
            hint="--set data.fit=squash",
        )
    own = type(processor)
    settings = processor_settings(size, resize_mode)
    try:
        # ConvNeXT's and PoolFormer's processors enlarge by 1 / crop_pct before they crop.
        crop_pct = {"crop_pct": 1.0} if hasattr(processor, "crop_pct") else {}
        fitted = own(**{**processor.to_dict(), **settings, **crop_pct})
        if _expresses(fitted, size, resize_mode):
            return fitted
    except (ModelError, ValueError, TypeError, KeyError, AttributeError):
        pass  # each class rejects settings in its own way
    normal = normalisation(processor)
    if normal.is_bgr:
        raise ModelError(
            f"{own.__name__} cannot do data.fit: {resize_mode} at {size[0]}x{size[1]}, and ViT's cannot give BGR",
            allowed="squash or crop for this family",
            hint="--set data.fit=squash",
        )
    resample = getattr(processor, "resample", None)
    return vit_processor(
        image_mean=list(normal.mean),
        image_std=list(normal.std),
        resample=2 if resample is None else resample,
        **settings,
    )


def resize_processor(
    processor: BaseImageProcessor, old: tuple[int, int], new: tuple[int, int]
) -> tuple[BaseImageProcessor, str | None]:
    """Return a processor that does the same at another size, and a note if the result differs.

    All sizes in the processor scale with the model's, so a crop from a larger image (256 to 224) keeps its proportion.
    Images are squashed where the family's class cannot make the size, and where it would crop to a rectangle.

    Args:
        processor: the checkpoint's image processor.
        old, new: (height, width) of the model's input.
    """
    old = made_size(processor) or old  # the two can differ
    name = type(processor).__name__
    squashed = f"images are squashed to {new[0]}x{new[1]}: {name} cannot make that shape"
    if new[0] != new[1] and _processes_by_cutting(processor):
        return fit_processor(processor, new, "squash"), squashed
    settings = {
        key: {name: _scaled(name, side, old, new) for name, side in dict(size).items()}
        for key in ("size", "crop_size", "pad_size")
        if (size := getattr(processor, key, None)) and not isinstance(size, int)
    }
    try:
        resized = type(processor)(**{**processor.to_dict(), **settings})
        process = ImageProcess(resized, new)
        for shape in ((new[0] + 11, 2 * new[1] + 37), (2 * new[0] + 3, new[1])):
            process(_ramps(*shape))
    except (ModelError, ValueError, TypeError, KeyError, AttributeError):
        return fit_processor(processor, new, "squash"), squashed  # each class rejects settings in its own way
    if getattr(processor, "crop_pct", None) and (old[0] < 384) != (new[0] < 384):
        return resized, f"{name} crops the middle below 384 pixels and squashes from 384 pixels up"
    return resized, None


def for_one_size(processor: BaseImageProcessor, size: tuple[int, int]) -> tuple[BaseImageProcessor, str | None]:
    """Return a processor whose images all have one size, and a note if it is not the checkpoint's own.

    TextNet's processor keeps each image's shape, so its images could not be batched.

    Args:
        processor: the checkpoint's image processor.
        size: (height, width) that the model runs at.
    """
    process, fitting = ImageProcess(processor, size), 0
    for shape in ((size[0], size[1]), (size[0], 2 * size[1])):
        with contextlib.suppress(ModelError):
            process(_ramps(*shape))
            fitting += 1
    if fitting != 1:
        return processor, None  # all right, or wrong for every image, which the first real image will show
    note = f"images are squashed to {size[0]}x{size[1]}, because {type(processor).__name__} would keep their shapes"
    return fit_processor(processor, size, "squash"), f"{note}; pipeline does not squash, so its scores differ"


def _processes_by_cutting(processor: BaseImageProcessor) -> bool:
    return bool(getattr(processor, "do_center_crop", None) or getattr(processor, "crop_pct", None))


def _scaled(name: str, side: int | None, old: tuple[int, int], new: tuple[int, int]) -> int | None:
    """Scale one side of a processor's size from the model's old size to its new one."""
    if side is None:
        return None
    ratios = [after / before for before, after in zip(old, new, strict=True)]
    if name.endswith("height"):
        ratio = ratios[0]
    elif name.endswith("width"):
        ratio = ratios[1]
    else:
        ratio = max(ratios)
    return round(side * ratio)


def _expresses(processor: BaseImageProcessor, size: tuple[int, int], resize_mode: ResizeMode) -> bool:
    """Test a processor on images whose pixel values encode their position."""
    process = ImageProcess(processor, size)
    height, width = size
    trials = ((height + 11, 2 * width + 37), (2 * height + 3, width), (height // 2 + 9, width))
    if resize_mode == "pad":  # the processor itself must pad, not only ImageProcess
        whole = as_tensor(processor(_ramps(*trials[0]))["pixel_values"][0])
        if tuple(whole.shape) != (3, *size) or whole[:, -1].any():
            return False
    return all(_is_fitted(process(_ramps(*trial)), trial, resize_mode) for trial in trials)


def _ramps(height: int, width: int) -> Image.Image:
    """Return an image whose red rises to the right and green downwards, from 0 to 255."""
    ramps = [255 * (np.arange(side) + 0.5) / side for side in (height, width)]
    down, right = np.meshgrid(*ramps, indexing="ij")
    return Image.fromarray(np.stack((right, down, right), -1).round().astype(np.uint8))


def _is_fitted(made: Tensor, original: tuple[int, int], resize_mode: ResizeMode) -> bool:
    """Whether :func:`_ramps` of size ``original`` was resized as ``resize_mode`` says, to within about a pixel."""
    sides = made.shape[1:]
    scales = [side / length for side, length in zip(sides, original, strict=True)]
    if resize_mode != "squash":
        scales = [max(scales) if resize_mode == "crop" else min(scales)] * 2
    lengths = [scale * length for scale, length in zip(scales, original, strict=True)]
    cut = [(length - side) / 2 if resize_mode == "crop" else 0.0 for length, side in zip(lengths, sides, strict=True)]
    # Centre of each row and column, as a fraction of the original image's height and width.
    rows, columns = ((torch.arange(sides[i]) + 0.5 + cut[i]) / lengths[i] for i in (0, 1))
    inside = (rows < 1 - 1 / lengths[0])[:, None] & (columns < 1 - 1 / lengths[1])[None, :]
    for plane, part, length in ((made[1], rows[:, None], lengths[0]), (made[0], columns[None, :], lengths[1])):
        error = (plane.float() - 255 * part).abs()[inside]
        if (error > 1.2 * 255 / length + 2).any():
            return False
    return True

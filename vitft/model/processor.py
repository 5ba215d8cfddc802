"""The image processor that is saved beside the model: its size, and how an image is fitted into it.

Evaluation goes through this very object, so what is scored is what ``pipeline`` will see. It may come from either
backend of transformers: arrays without torchvision, tensors with it.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from vitft.data.staging import MAX_PIXELS, WHITE_LEVEL, BadImage
from vitft.disk import whole_folder
from vitft.errors import ModelError, one_line
from vitft.files import is_file
from vitft.model.settings import read_settings

Fit = Literal["squash", "crop", "pad"]


@dataclass(frozen=True)
class ImageProcess:
    """Upright RGB image -> uint8 (3, H, W) as the model's processor makes it, before it rescales and normalises.

    transformers pads at the bottom and the right, after normalising, with 0: the mean colour is what becomes 0.
    """

    processor: Any
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
        # include_top is EfficientNet's name for normalising a second time.
        off = {name: False for name in ("do_pad", "include_top") if getattr(self.processor, name, None)}
        made = self.processor(image, do_rescale=False, do_normalize=False, **off)["pixel_values"][0]
        pixels = torch.as_tensor(np.ascontiguousarray(made) if isinstance(made, np.ndarray) else made).to(torch.uint8)
        if "do_pad" in off:
            pixels = _with_border(pixels, self.size, normalisation(self.processor)[0])
        if tuple(pixels.shape) != (3, *self.size):
            raise ModelError(f"the image processor made {tuple(pixels.shape)} of an image, not {(3, *self.size)}")
        return pixels


def _check_shape(image: Image.Image, processor: Any) -> None:
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


def load_processor(folder: Path, named: str = "", config: Any = None) -> tuple[Any, str | None]:
    """Return the image processor of a checkpoint, and a note if it has none and ViT's took its place.

    Args:
        folder: of the checkpoint.
        named: how the user called it.
        config: of its model, which says the class where the processor's own file does not.

    Raises:
        ModelError: if it cannot be read, or needs something that is not there.
    """
    # transformers 5.17 asks for torchvision where it is imported by its short name, and does without here.
    from transformers.models.auto.image_processing_auto import AutoImageProcessor

    path = next((folder / name for name in _CONFIGS if is_file(folder / name)), None)
    if path is None:
        return _plain(), (
            "the checkpoint has no preprocessor_config.json: ViT's processor is used (mean and std 0.5, bilinear)"
        )
    settings, _ = read_settings(path, named or str(folder))
    try:
        # From a copy of what is left of its settings: transformers would read more files of the folder, and ask on
        # the terminal whether to run the code that they name.
        alone = Path(tempfile.mkdtemp(prefix="vitft-"))
        try:
            (alone / path.name).write_text(json.dumps(settings), encoding="utf-8")
            return AutoImageProcessor.from_pretrained(alone, config=config), None
        finally:
            (alone / path.name).unlink(missing_ok=True)
            alone.rmdir()
    except Exception as error:  # what each class makes of wrong values is its own affair
        raise ModelError(
            f"the {path.name} of {named or folder} cannot be used: {one_line(error)}",
            hint="mend it; without the file, ViT's processor is used",
        ) from error


def processor_of_timm(transforms: Mapping[str, Any]) -> tuple[Any, list[str]]:
    """Return ViT's image processor that does what timm's transforms for evaluation do, and notes.

    The processor that transformers has for timm's models is timm's transforms themselves: it cannot be saved, nor
    return pixels before they are normalised. The middle that ViT's cuts out may lie a pixel aside, as the two round
    half a pixel differently.

    Args:
        transforms: as ``timm.data.resolve_data_config`` returns them.
    """
    size = (int(transforms["input_size"][-2]), int(transforms["input_size"][-1]))
    scaled = [int(side / transforms["crop_pct"]) for side in size]
    mode = transforms["crop_mode"]
    notes = ["timm's transforms for evaluation are saved as ViTImageProcessor"]
    settings = _settings(size, "squash")
    if mode == "squash" or (mode == "center" and size[0] == size[1]):
        cut = {"do_center_crop": True, "crop_size": settings["size"]}
        kept = {"height": scaled[0], "width": scaled[1]} if mode == "squash" else {"shortest_edge": scaled[0]}
        settings |= {**cut, "size": kept}
    else:
        notes.append(f"images are squashed to {size[0]}x{size[1]}: it cannot do timm's {mode!r} crop to that shape")
    filters = Image.Resampling.__members__
    resample = filters.get(transforms["interpolation"].upper(), Image.Resampling.BILINEAR)  # "random" is one of two
    mean, std = ([float(value) for value in transforms[key]] for key in ("mean", "std"))
    return _plain(image_mean=mean, image_std=std, resample=int(resample), **settings), notes


def fit_processor(processor: Any, size: tuple[int, int], fit: Fit) -> Any:
    """Return a processor like ``processor`` that makes images of ``size`` (height, width).

    Where the family's own class cannot express ``fit``, which is found by trying it, ViT's takes its place with the
    same interpolation and normalisation; ``pipeline`` reads the class from the saved file.

    Raises:
        ModelError: if no plain processor can express it.
    """
    if fit == "crop" and size[0] != size[1]:
        raise ModelError(
            f"data.fit: crop needs a square size, not {size[0]}x{size[1]}",
            allowed="squash or pad for any size, crop for square ones",
            hint="--set data.fit=squash",
        )
    own = type(processor)
    settings = _settings(size, fit)
    try:
        # ConvNeXT's and PoolFormer's processors enlarge by 1 / crop_pct before they crop.
        crop_pct = {"crop_pct": 1.0} if hasattr(processor, "crop_pct") else {}
        fitted = own(**{**processor.to_dict(), **settings, **crop_pct})
        if _expresses(fitted, size, fit):
            return fitted
    except (ModelError, ValueError, TypeError, KeyError, AttributeError):
        pass  # each class refuses in its own way what it does not know
    if takes_bgr(processor):
        raise ModelError(
            f"{own.__name__} cannot express data.fit: {fit} at {size[0]}x{size[1]}, and no other gives BGR",
            allowed="squash or crop for this family",
            hint="--set data.fit=squash",
        )
    mean, std = normalisation(processor)
    resample = getattr(processor, "resample", None)
    return _plain(image_mean=list(mean), image_std=list(std), resample=2 if resample is None else resample, **settings)


def made_size(processor: Any) -> tuple[int, int] | None:
    """Return the (height, width) of the images that a processor makes, None if it does not say."""
    for switch, name in (("do_center_crop", "crop_size"), ("do_pad", "pad_size"), ("do_resize", "size")):
        size = getattr(processor, name, None)
        if getattr(processor, switch, None) and size:
            size = dict(size)
            return pair_of([size["height"], size["width"]] if size.get("height") else size.get("shortest_edge"))
    return None


def pair_of(size: Any) -> tuple[int, int] | None:
    """Return (height, width) of a size as configurations write it, None if it is none."""
    if isinstance(size, list | tuple) and len(size) >= 2:
        return int(size[-2]), int(size[-1])
    return (int(size), int(size)) if isinstance(size, int) else None


def resize_processor(processor: Any, old: tuple[int, int], new: tuple[int, int]) -> tuple[Any, str | None]:
    """Return a processor that does the same at another size, and a note if it cannot quite.

    All its sizes grow with the model's, so one that cuts out of a larger image (256 to 224) keeps the proportion.
    A rectangle is never cut out, and what the family's own class cannot make is squashed.

    Args:
        processor: of a checkpoint.
        old, new: (height, width) of the model's input.
    """
    old = made_size(processor) or old  # which its checkpoint's config may contradict
    name = type(processor).__name__
    squashed = f"images are squashed to {new[0]}x{new[1]}: {name} cannot make that shape in its own way"
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
        return fit_processor(processor, new, "squash"), squashed  # each class refuses what it does not know in its way
    if getattr(processor, "crop_pct", None) and (old[0] < 384) != (new[0] < 384):
        return resized, f"{name} cuts out the middle below 384 pixels and squashes from 384 on"
    return resized, None


def for_one_size(processor: Any, size: tuple[int, int]) -> tuple[Any, str | None]:
    """Return a processor whose images all have one size, and a note if that is another one.

    TextNet's own keeps the shape of an image, so that no two could be run together.

    Args:
        processor: of a checkpoint.
        size: (height, width) that the model runs at.
    """
    process, fitting = ImageProcess(processor, size), 0
    for shape in ((size[0], size[1]), (size[0], 2 * size[1])):
        with contextlib.suppress(ModelError):
            process(_ramps(*shape))
            fitting += 1
    if fitting != 1:
        return processor, None  # it makes another size of every image: the first one tells
    said = f"images are squashed to {size[0]}x{size[1]}: {type(processor).__name__} keeps their shape"
    return fit_processor(processor, size, "squash"), f"{said}, so pipeline's scores differ"


def _processes_by_cutting(processor: Any) -> bool:
    return bool(getattr(processor, "do_center_crop", None) or getattr(processor, "crop_pct", None))


def _scaled(name: str, side: int | None, old: tuple[int, int], new: tuple[int, int]) -> int | None:
    """Return one number of a processor's size at another size of the model."""
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


def normalisation(processor: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and std per channel in units of [0, 1]: (value - mean) / std is all that is done to values."""
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
    return tuple(means), tuple(stds)


def takes_bgr(processor: Any) -> bool:
    """Whether the processor gives blue, green, red (MobileViT's does)."""
    return bool(getattr(processor, "do_flip_channel_order", None))


def save_model(model: Any, processor: Any, folder: Path) -> None:
    """Write a plain transformers folder, whole or not at all.

    Raises:
        ModelError: if it cannot be written, as on a full disk.
    """
    try:
        with whole_folder(folder) as partial:
            model.save_pretrained(partial)
            processor.save_pretrained(partial)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"cannot write the model to {folder}: {error}", hint="make room, then resume the run"
        ) from error


_CONFIGS = ("preprocessor_config.json", "processor_config.json")


def _settings(size: tuple[int, int], fit: Fit) -> dict[str, Any]:
    rectangle = {"height": size[0], "width": size[1]}
    settings: dict[str, Any] = {
        "do_resize": True,
        "size": rectangle,
        "do_center_crop": False,
        "crop_size": None,
        "do_pad": False,
        "pad_size": None,
    }
    match fit:
        case "squash":
            return settings
        case "crop":
            return {**settings, "size": {"shortest_edge": size[0]}, "do_center_crop": True, "crop_size": rectangle}
        case "pad":
            limits = {"max_height": size[0], "max_width": size[1]}
            return {**settings, "size": limits, "do_pad": True, "pad_size": rectangle}


def _plain(**settings: Any) -> Any:
    """Return ViT's image processor for the backend that this machine has."""
    import transformers
    from transformers.utils import is_torchvision_available

    name = "ViTImageProcessor" if is_torchvision_available() else "ViTImageProcessorPil"
    return getattr(transformers, name)(**settings)


def _with_border(pixels: Tensor, size: tuple[int, int], mean: Sequence[float]) -> Tensor:
    """Pad (3, h, w) at the bottom and the right with the mean colour."""
    colour = torch.tensor([min(255, max(0, round(255 * m))) for m in mean], dtype=torch.uint8)
    canvas = colour[:, None, None].repeat(1, *size)
    height, width = pixels.shape[1:]
    if height > size[0] or width > size[1]:
        return pixels  # the shape tells what is wrong
    canvas[:, :height, :width] = pixels
    return canvas


def _expresses(processor: Any, size: tuple[int, int], fit: Fit) -> bool:
    """Try a processor on images whose pixels say where they stand."""
    process = ImageProcess(processor, size)
    height, width = size
    trials = ((height + 11, 2 * width + 37), (2 * height + 3, width), (height // 2 + 9, width))
    if fit == "pad":  # the processor must do it itself, not only ImageProcess in its place
        whole = torch.as_tensor(np.array(processor(_ramps(*trials[0]))["pixel_values"][0]))
        if tuple(whole.shape) != (3, *size) or whole[:, -1].any():
            return False
    return all(_is_fitted(process(_ramps(*trial)), trial, fit, takes_bgr(processor)) for trial in trials)


def _ramps(height: int, width: int) -> Image.Image:
    """Return an image whose red grows to the right, and green downwards, from 0 to 255."""
    ramps = [255 * (np.arange(side) + 0.5) / side for side in (height, width)]
    down, right = np.meshgrid(*ramps, indexing="ij")
    return Image.fromarray(np.stack((right, down, right), -1).round().astype(np.uint8))


def _is_fitted(made: Tensor, original: tuple[int, int], fit: Fit, bgr: bool) -> bool:
    """Whether :func:`_ramps` of the ``original`` size became what ``fit`` means, to about a pixel."""
    sides = made.shape[1:]
    scales = [side / length for side, length in zip(sides, original, strict=True)]
    if fit != "squash":
        scales = [max(scales) if fit == "crop" else min(scales)] * 2
    lengths = [scale * length for scale, length in zip(scales, original, strict=True)]
    cut = [(length - side) / 2 if fit == "crop" else 0.0 for length, side in zip(lengths, sides, strict=True)]
    # Where the middle of each row and column lies in the image, as a part of its height and width.
    rows, columns = ((torch.arange(sides[i]) + 0.5 + cut[i]) / lengths[i] for i in (0, 1))
    inside = (rows < 1 - 1 / lengths[0])[:, None] & (columns < 1 - 1 / lengths[1])[None, :]
    right, down = (made[2], made[1]) if bgr else (made[0], made[1])
    for plane, part, length in ((down, rows[:, None], lengths[0]), (right, columns[None, :], lengths[1])):
        error = (plane.float() - 255 * part).abs()[inside]
        if (error > 1.2 * 255 / length + 2).any():
            return False
    return True


def _per_channel(value: float | Sequence[float]) -> tuple[float, ...]:
    return (float(value),) * 3 if isinstance(value, int | float) else tuple(float(each) for each in value)

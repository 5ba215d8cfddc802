"""Read a checkpoint's image processor without running or downloading anything that its file names."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from vitft.architectures.config import pair_of
from vitft.architectures.settings import read_settings
from vitft.errors import ModelError, one_line
from vitft.files import is_file
from vitft.recipe.choices import ResizeMode

if TYPE_CHECKING:
    from transformers import PreTrainedConfig
    from transformers.image_processing_utils import BaseImageProcessor


def load_processor(
    folder: Path, named: str = "", config: PreTrainedConfig = None
) -> tuple[BaseImageProcessor, str | None]:
    """Return a checkpoint's image processor, and a note if it has none and ViT's is used.

    Args:
        folder: the checkpoint's folder.
        named: the checkpoint as the user typed it.
        config: the model's configuration, which gives the class if the processor's file does not.

    Raises:
        ModelError: if it cannot be read, or needs a package that is not installed.
    """
    # In transformers 5.17, importing this by its short name needs torchvision; this path does not.
    from transformers.models.auto.image_processing_auto import AutoImageProcessor

    path = next((folder / name for name in _CONFIGS if is_file(folder / name)), None)
    if path is None:
        return vit_processor(), (
            "the checkpoint has no preprocessor_config.json, so ViT's processor is used (mean and std 0.5, bilinear)"
        )
    settings, _ = read_settings(path, named or str(folder))
    try:
        # Loaded from a folder with only the safe settings: transformers would read more of the checkpoint's files,
        # and ask on the terminal whether to run code that they name.
        alone = Path(tempfile.mkdtemp(prefix="vitft-"))
        try:
            (alone / path.name).write_text(json.dumps(settings), encoding="utf-8")
            return AutoImageProcessor.from_pretrained(alone, config=config), None
        finally:
            (alone / path.name).unlink(missing_ok=True)
            alone.rmdir()
    except Exception as error:  # each class fails on wrong values in its own way
        raise ModelError(
            f"the {path.name} of {named or folder} cannot be used: {one_line(error)}",
            hint="fix the file, or remove it to use ViT's processor",
        ) from error


def processor_of_timm(transforms: Mapping[str, Any]) -> tuple[BaseImageProcessor, list[str]]:
    """Return a ViT image processor that does what timm's evaluation transforms do, and notes.

    transformers' own processor for timm models wraps timm's transforms: it cannot be saved, nor return pixels before
    normalisation. The centre crop may be off by a pixel, because the two round half pixels differently.

    Args:
        transforms: as returned by ``timm.data.resolve_data_config``.
    """
    size = (int(transforms["input_size"][-2]), int(transforms["input_size"][-1]))
    scaled = [int(side / transforms["crop_pct"]) for side in size]
    mode = transforms["crop_mode"]
    notes = ["timm's evaluation transforms are saved as a ViTImageProcessor"]
    settings = processor_settings(size, "squash")
    if mode == "squash" or (mode == "center" and size[0] == size[1]):
        cut = {"do_center_crop": True, "crop_size": settings["size"]}
        kept = {"height": scaled[0], "width": scaled[1]} if mode == "squash" else {"shortest_edge": scaled[0]}
        settings |= {**cut, "size": kept}
    else:
        notes.append(f"images are squashed to {size[0]}x{size[1]}: it cannot do timm's {mode!r} crop at that shape")
    filters = Image.Resampling.__members__
    resample = filters.get(transforms["interpolation"].upper(), Image.Resampling.BILINEAR)  # "random" has no filter
    mean, std = ([float(value) for value in transforms[key]] for key in ("mean", "std"))
    return vit_processor(image_mean=mean, image_std=std, resample=int(resample), **settings), notes


_CONFIGS = ("preprocessor_config.json", "processor_config.json")


def made_size(processor: BaseImageProcessor) -> tuple[int, int] | None:
    """Return the (height, width) of the images that a processor makes, None if its settings do not say."""
    for switch, name in (("do_center_crop", "crop_size"), ("do_pad", "pad_size"), ("do_resize", "size")):
        size = getattr(processor, name, None)
        if getattr(processor, switch, None) and size:
            size = dict(size)
            return pair_of([size["height"], size["width"]] if size.get("height") else size.get("shortest_edge"))
    return None


def processor_settings(size: tuple[int, int], resize_mode: ResizeMode) -> dict[str, Any]:
    """Return settings of ViT's image processor for images of ``size`` filled by ``resize_mode``."""
    rectangle = {"height": size[0], "width": size[1]}
    settings: dict[str, Any] = {
        "do_resize": True,
        "size": rectangle,
        "do_center_crop": False,
        "crop_size": None,
        "do_pad": False,
        "pad_size": None,
    }
    match resize_mode:
        case "squash":
            return settings
        case "crop":
            return {**settings, "size": {"shortest_edge": size[0]}, "do_center_crop": True, "crop_size": rectangle}
        case "pad":
            limits = {"max_height": size[0], "max_width": size[1]}
            return {**settings, "size": limits, "do_pad": True, "pad_size": rectangle}


def vit_processor(**settings: Any) -> BaseImageProcessor:
    """Return ViT's image processor, the torchvision version if torchvision is installed."""
    import transformers
    from transformers.utils import is_torchvision_available

    name = "ViTImageProcessor" if is_torchvision_available() else "ViTImageProcessorPil"
    return getattr(transformers, name)(**settings)

"""The image processor of a checkpoint, read without running or fetching anything that its file names."""

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
        return vit_processor(), (
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


def processor_of_timm(transforms: Mapping[str, Any]) -> tuple[BaseImageProcessor, list[str]]:
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
    settings = processor_settings(size, "squash")
    if mode == "squash" or (mode == "center" and size[0] == size[1]):
        cut = {"do_center_crop": True, "crop_size": settings["size"]}
        kept = {"height": scaled[0], "width": scaled[1]} if mode == "squash" else {"shortest_edge": scaled[0]}
        settings |= {**cut, "size": kept}
    else:
        notes.append(f"images are squashed to {size[0]}x{size[1]}: it cannot do timm's {mode!r} crop to that shape")
    filters = Image.Resampling.__members__
    resample = filters.get(transforms["interpolation"].upper(), Image.Resampling.BILINEAR)  # "random" is one of two
    mean, std = ([float(value) for value in transforms[key]] for key in ("mean", "std"))
    return vit_processor(image_mean=mean, image_std=std, resample=int(resample), **settings), notes


_CONFIGS = ("preprocessor_config.json", "processor_config.json")


def made_size(processor: BaseImageProcessor) -> tuple[int, int] | None:
    """Return the (height, width) of the images that a processor makes, None if it does not say."""
    for switch, name in (("do_center_crop", "crop_size"), ("do_pad", "pad_size"), ("do_resize", "size")):
        size = getattr(processor, name, None)
        if getattr(processor, switch, None) and size:
            size = dict(size)
            return pair_of([size["height"], size["width"]] if size.get("height") else size.get("shortest_edge"))
    return None


def processor_settings(size: tuple[int, int], resize_mode: ResizeMode) -> dict[str, Any]:
    """Return the settings by which ViT's image processor makes images of ``size`` in this way."""
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
    """Return ViT's image processor for the backend that this machine has."""
    import transformers
    from transformers.utils import is_torchvision_available

    name = "ViTImageProcessor" if is_torchvision_available() else "ViTImageProcessorPil"
    return getattr(transformers, name)(**settings)

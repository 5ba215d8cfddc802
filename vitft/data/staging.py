"""Encoded bytes -> an upright RGB image -> uint8 pixels of the stage size.

Everything here is a function of the bytes alone, so it may run in any worker and its results may be kept.
Colour profiles are ignored, as the image processors of transformers ignore them.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from vitft.errors import DataError

MAX_PIXELS = 178_956_970
"""Larger images are refused unread: the number at which Pillow, too, suspects a decompression bomb."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_EXIF_ORIENTATION = 0x0112


class BadImage(DataError):  # noqa: N818 - a finding about the data
    """An image that cannot be used. It says why; whoever knows the row adds it."""


class StagedImage(NamedTuple):
    """What remains of an image after staging."""

    pixels: Tensor
    """uint8, shape (3, min(height, size), min(width, size))."""
    height: int
    """Of the upright original, in pixels."""
    width: int
    """Of the upright original, in pixels."""


def decode(encoded: bytes | str) -> tuple[Image.Image, tuple[str, ...]]:
    """Read an image of any format and mode that Pillow knows.

    Transparency lies over white, 16-bit grey is divided by 257 and not stretched, an animation gives its
    first frame, and the EXIF orientation is applied.

    Args:
        encoded: the file's bytes, or its path.

    Returns:
        The upright RGB image, and a note for everything in the file that was passed over.

    Raises:
        BadImage: with the reason, if no complete image can be read.
    """
    content = encoded if isinstance(encoded, bytes) else _read(encoded)
    if not content:
        raise BadImage("the file is empty")
    with warnings.catch_warnings(record=True) as caught:  # what matters among them becomes a note
        warnings.simplefilter("always")
        try:
            with Image.open(io.BytesIO(content)) as image:
                _refuse(image)
                image.load()  # before EXIF: only now a PNG's is known, and a TIFF has already been turned
                rgb = _to_rgb(image)
                orientation, notes = _orientation(image)
        except (BadImage, MemoryError):
            raise
        except Exception as error:  # Pillow's readers raise whatever comes of reading nonsense
            raise BadImage(_reason(error, content)) from error
    if any("exif" in str(warning.message).lower() for warning in caught) and not notes:
        notes = ("broken EXIF, of which only the orientation was used",)
    return rgb.transpose(_TURNS[orientation]) if orientation in _TURNS else rgb, notes


def stage(image: Image.Image, size: int) -> StagedImage:
    """Shrink each side of an RGB image to at most ``size`` pixels, independently of the other.

    The kernel is bicubic and antialiased, within two levels of Pillow's: views, whose kernel is a triangle,
    then come closer to views of the original than after a bilinear stage.
    """
    assert image.mode == "RGB", image.mode
    width, height = image.size
    staged_size = (min(height, size), min(width, size))
    # Channels stay last in memory until after the resize: torch's vectorised uint8 kernel wants them there.
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    if staged_size != (height, width):
        pixels = F.interpolate(pixels[None], staged_size, mode="bicubic", antialias=True)[0]
    return StagedImage(pixels.contiguous(), height, width)


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise BadImage(f"there is no file {path}") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise BadImage(f"cannot read the file {path}: {error}") from None


def _refuse(image: Image.Image) -> None:
    """Raise for what Pillow would decode and we should not."""
    if image.width * image.height > MAX_PIXELS:  # Pillow's own check can have been switched off by others
        raise Image.DecompressionBombError
    if image.format == "EPS":
        raise BadImage("PostScript is not decoded, as that would run a program", hint="convert it to PNG")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _to_eight_bits(image).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(rgba, mask=rgba)
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Return 16-bit grey as 8-bit grey: 65535 is white whatever the brightest pixel is."""
    grey = np.asarray(image)
    if image.mode == "F" or grey.min() < 0 or grey.max() > 65535:
        raise BadImage(
            f"{grey.dtype} values from {grey.min():g} to {grey.max():g}: what is black, and what white?",
            allowed="8 or 16 bits per channel",
        )
    levels = (grey.astype(np.uint32) + 128) // 257
    if isinstance(transparent := image.info.get("transparency"), int):
        levels[grey == transparent] = 255
    return Image.fromarray(levels.astype(np.uint8))


def _orientation(image: Image.Image) -> tuple[int, tuple[str, ...]]:
    """Return the EXIF orientation, 1 where there is none to be had, and a note if there should be one."""
    try:
        exif = image.getexif()
        if not exif and image.info.get("exif"):
            Image.Exif().load(image.info["exif"])  # raises again what Pillow swallowed while opening the file
        orientation = exif.get(_EXIF_ORIENTATION, 1)
    except Exception:  # broken EXIF raises anything; the pixels are good
        return 1, ("broken EXIF ignored",)
    if orientation not in range(1, 9):
        return 1, (f"EXIF orientation {orientation!r} ignored",)
    return int(orientation), ()


def _reason(error: Exception, content: bytes) -> str:
    """Say in a person's words why Pillow could not read ``content``."""
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {MAX_PIXELS:,} pixels are declared: a decompression bomb, or too large to train on"
    if isinstance(error, UnidentifiedImageError):
        if content.lstrip()[:1] == b"<":
            return "a web page or other markup, not an image"
        return f"no known image format, or a broken header ({len(content):,} bytes)"
    if "truncated" in str(error).lower():
        return f"the file ends before the image does ({len(content):,} bytes)"
    return f"the image data is broken: {error or type(error).__name__}"

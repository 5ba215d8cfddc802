"""Encoded bytes -> an upright RGB image -> uint8 pixels of the stage size.

Everything here is a function of the bytes alone, so it may run in any worker and its results may be kept.
Colour profiles are ignored, as the image processors of transformers ignore them. What an image would cost is known
from its header, and one that would cost too much is refused before it is decoded.
"""

from __future__ import annotations

import functools
import io
import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from vitft.errors import DataError
from vitft.files import Unreadable, read_regular
from vitft.outside import printable
from vitft.recipe.keys import DataRecipe

logging.getLogger("PIL").addHandler(logging.NullHandler())  # or Python prints what Pillow logs of broken files

MAX_PIXELS: int = DataRecipe().max_pixels
"""Images of more are not decoded, unless a recipe allows it."""
WHITE_LEVEL = 65535
"""Value that is white in 16-bit grey images, unless a recipe says otherwise."""
_MAX_SIDE = 65_535  # the most that JPEG, GIF and WebP can say
_MAX_SCANS = 100  # of a JPEG; each passes over all pixels, and an empty one takes 20 bytes
_SLOW = {"JPEG2000": 4}  # how many times longer than others a format takes for a pixel

# Those that people have, and whose readers only read: EPS runs a program, FITS unpacks without a limit.
_FORMATS = (
    "JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM", "JPEG2000", "ICO", "TGA", "DIB", "PCX", "QOI", "SGI",
)  # fmt: skip
_NOISY = ("TIFF", "JPEG2000", "AVIF")  # read by libraries that may write to the terminal themselves

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


def decode(
    encoded: bytes | str, max_pixels: int = MAX_PIXELS, white_level: int = WHITE_LEVEL
) -> tuple[Image.Image, tuple[str, ...]]:
    """Read an image of any usual format and mode.

    Transparency lies over white, 16-bit grey is divided by 257 and not stretched, an animation gives its
    first frame, and the EXIF orientation is applied. A JPEG of up to four times ``max_pixels`` is read at half
    its size, which its format allows without decoding it whole.

    Args:
        encoded: the file's bytes, or its path.
        max_pixels: width times height that an image may have.
        white_level: value that is white in 16-bit grey images.

    Returns:
        The upright RGB image, and a note for everything in the file that was passed over.

    Raises:
        BadImage: with the reason, if no complete image can be read, or it is too large.
    """
    content = encoded if isinstance(encoded, bytes) else _read(encoded, max_pixels)
    if not content:
        raise BadImage("the file is empty")
    if content.startswith((b"%!PS", b"\xc5\xd0\xd3\xc6")):
        raise BadImage("PostScript is not decoded, as that would run a program", hint="convert it to PNG")
    notes: tuple[str, ...] = ()
    with warnings.catch_warnings(record=True) as caught:  # what matters among them becomes a note
        warnings.simplefilter("always")
        try:
            with _open(content, max_pixels) as image:
                halved = _halve(image, content, max_pixels)
                with _quiet(image.format):
                    image.load()  # before EXIF: only now a PNG's is known, and a TIFF has already been turned
                rgb = _to_rgb(image, white_level)
                orientation, notes = _orientation(image)
        except (BadImage, MemoryError):  # want of memory is no finding about the image
            raise
        except Exception as error:  # Pillow's readers raise whatever comes of reading nonsense
            raise BadImage(_reason(error, content, max_pixels)) from error
    if any("exif" in str(warning.message).lower() for warning in caught) and not notes:
        notes = ("broken EXIF, of which only the orientation was used",)
    return rgb.transpose(_TURNS[orientation]) if orientation in _TURNS else rgb, (*halved, *notes)


def brightest(encoded: bytes | str) -> tuple[int, bool] | None:
    """Return the largest value of a 16-bit image that can be decoded, and whether it has colours or transparency.

    None if it is of another kind. Of a 16-bit PNG with colours Pillow reads the upper 8 bits.
    """
    content = encoded if isinstance(encoded, bytes) else _read(encoded, MAX_PIXELS)
    if content.startswith(b"\xff\xd8"):  # a JPEG has 8 bits, and may be larger than Pillow opens without a warning
        return None
    with Image.open(io.BytesIO(content), formats=_formats()) as image:
        if image.mode.startswith("I"):
            return int(np.asarray(image).max()), False
        tile = getattr(image, "tile", None)
        if image.format != "PNG" or not tile or ";16" not in str(tile[0][3]):
            return None
        return int(np.asarray(image.convert("RGB")).max()) * 257, True


def stage(image: Image.Image, size: int) -> Tensor:
    """Shrink each side of an RGB image to at most ``size`` pixels, independently of the other.

    The kernel is bicubic and antialiased, within two levels of Pillow's: views, whose kernel is a triangle,
    then come closer to views of the original than after a bilinear stage.

    Returns:
        uint8, shape (3, min(height, size), min(width, size)).
    """
    assert image.mode == "RGB", image.mode
    width, height = image.size
    staged_size = (min(height, size), min(width, size))
    # Channels stay last in memory until after the resize: torch's vectorised uint8 kernel wants them there.
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    if staged_size != (height, width):
        pixels = F.interpolate(pixels[None], staged_size, mode="bicubic", antialias=True)[0]
    return pixels.contiguous()


def _read(path: str, max_pixels: int) -> bytes:
    most = 8 * max_pixels + 2**26  # four channels of 16 bits, uncompressed, and what cameras write beside them
    try:
        return read_regular(path, most)
    except FileNotFoundError:
        raise BadImage(f"there is no file {printable(path)}") from None
    except OSError as error:
        reason = str(error) if isinstance(error, Unreadable) else error.strerror or type(error).__name__
        raise BadImage(f"cannot read the file {printable(path)}: {reason}") from None


@functools.cache
def _formats() -> list[str]:
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]  # a Pillow may be built without some


@contextmanager
def _open(content: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """Open an image under a limit that also holds for the images within it (an icon's, a frame of a GIF)."""
    limit = Image.MAX_IMAGE_PIXELS  # others may have switched it off, or want another one after us
    Image.MAX_IMAGE_PIXELS = 4 * max_pixels if content.startswith(b"\xff\xd8") else max_pixels
    warnings.simplefilter("error", Image.DecompressionBombWarning)  # above the limit; the error is for twice as many
    try:
        with Image.open(io.BytesIO(content), formats=_formats()) as image:
            yield image
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _halve(image: Image.Image, content: bytes, max_pixels: int) -> tuple[str, ...]:
    """Refuse what would take too long or too much memory, or have a large JPEG read at half its size, with a note."""
    width, height = image.size
    if max(width, height) > _MAX_SIDE:
        raise BadImage(f"it is {width:,} x {height:,}; a side may have {_MAX_SIDE:,} pixels")
    if image.format in ("JPEG", "MPO") and content.count(b"\xff\xda") > _MAX_SCANS:
        raise BadImage(f"a JPEG of more than {_MAX_SCANS} scans: it would take longer than any photo")
    pixels = width * height * _SLOW.get(image.format or "", 1)
    if pixels <= max_pixels:
        return ()
    if image.format in ("JPEG", "MPO"):
        image.draft(None, (width // 2, height // 2))
        if image.width * image.height <= max_pixels:
            return (f"read at half its size: {width * height:,} pixels are more than {max_pixels:,} (data.max_pixels)",)
    raise BadImage(_too_large(width * height, max_pixels // _SLOW.get(image.format or "", 1)))


def _too_large(pixels: int, most: int) -> str:
    return f"{pixels:,} pixels are more than {most:,} (data.max_pixels): a decompression bomb, or too large to train on"


@contextmanager
def _quiet(file_format: str | None) -> Iterator[None]:
    """Keep a library's own complaints off the terminal: it writes to the file descriptor, past Python."""
    try:
        kept = os.dup(2) if file_format in _NOISY else None
    except OSError:  # this process has no stderr
        kept = None
    if kept is None:
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _to_rgb(image: Image.Image, white_level: int) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _to_eight_bits(image, white_level).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(rgba, mask=rgba)
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_eight_bits(image: Image.Image, white_level: int) -> Image.Image:
    """Return 16-bit grey as 8-bit grey: the white level is white whatever the brightest pixel is."""
    grey = np.asarray(image)
    if image.mode == "F" or grey.min() < 0 or grey.max() > 65535:
        raise BadImage(
            f"{grey.dtype} values from {grey.min():g} to {grey.max():g}: what is black, and what white?",
            allowed="8 or 16 bits per channel",
        )
    # Rounded; for 65535 this is a division by 257, to the bit.
    levels = np.minimum((grey.astype(np.uint64) * 510 + white_level) // (2 * white_level), 255)
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


def _reason(error: Exception, content: bytes, max_pixels: int) -> str:
    """Say in a person's words why Pillow could not read ``content``."""
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        declared = re.search(r"(\d+) pixels", str(error))
        return _too_large(int(declared[1]) if declared else max_pixels + 1, max_pixels)
    if isinstance(error, UnidentifiedImageError):
        if content.lstrip()[:1] == b"<":
            return "a web page or other markup, not an image"
        return f"no known image format, or a broken header ({len(content):,} bytes)"
    if "truncated" in str(error).lower():
        return f"the file ends before the image does ({len(content):,} bytes)"
    return f"the image data is broken: {printable(str(error)[:200]) or type(error).__name__}"

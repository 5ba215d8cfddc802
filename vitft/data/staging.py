"""Encoded bytes -> an upright RGB image -> uint8 pixels of the stage size.

Everything here depends only on the bytes, so it may run in any worker and its results may be cached. Colour profiles
are ignored, as in transformers' image processors. An image whose header says that it is too large is refused before
it is decoded.
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
import pyarrow as pa
import torch
import torch.nn.functional as F
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from vitft.errors import DataError
from vitft.files import Unreadable, read_regular
from vitft.outside import printable
from vitft.recipe.keys import DataRecipe

logging.getLogger("PIL").addHandler(logging.NullHandler())  # or Python prints what Pillow logs about broken files

MAX_PIXELS: int = DataRecipe().max_pixels
"""Larger images are not decoded, unless a recipe allows them."""
WHITE_LEVEL = 65535
"""The value that means white in 16-bit grey images, unless a recipe says otherwise."""
STAGING_VERSION = 1
"""To be raised when the same bytes give other staged pixels, so that those in a cache are made again."""
_MAX_SIDE = 65_535  # the largest side that JPEG and GIF can have
_MAX_SCANS = 100  # of a JPEG; each goes over all pixels, and an empty one takes only 20 bytes
_JPEG = ("JPEG", "MPO")
_LEAST_SHRUNK = 2  # times the stage size; with 1, the mean difference is about twice as large
_SLOW = {"JPEG2000": 4}  # how many times longer than other formats decoding a pixel takes

# Common formats that are safe to decode: EPS would run a program, and FITS unpacks without a limit.
_FORMATS = (
    "JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM", "JPEG2000", "ICO", "TGA", "DIB", "PCX", "QOI", "SGI",
)  # fmt: skip
_NOISY = ("TIFF", "JPEG2000", "AVIF")  # their libraries may write to the terminal themselves

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
    """An image cannot be used. The message says why; the caller adds which row."""


def decode(
    encoded: bytes | str, max_pixels: int = MAX_PIXELS, white_level: int = WHITE_LEVEL
) -> tuple[Image.Image, tuple[str, ...]]:
    """Read an image of any usual format and mode.

    Transparent images are put on white, 16-bit grey is divided by 257 and not stretched, an animation gives its
    first frame, and the EXIF orientation is applied. A JPEG of up to four times ``max_pixels`` is read at half
    its size, which the format allows without decoding all of it.

    Args:
        encoded: the file's bytes, or its path.
        max_pixels: the largest width times height of an image.
        white_level: the value that means white in 16-bit grey images.

    Returns:
        The upright RGB image, and a note about everything in the file that was ignored.

    Raises:
        BadImage: with the reason, if no complete image can be read or it is too large.
    """
    image, _, notes = _decode(encoded, max_pixels, white_level, None)
    return image, notes


def decode_to_stage(
    encoded: bytes | str, size: int, max_pixels: int = MAX_PIXELS, white_level: int = WHITE_LEVEL
) -> tuple[Image.Image, tuple[int, int], tuple[str, ...]]:
    """Read an image that :func:`stage` will shrink to ``size``, a large JPEG at a half or a quarter of its size.

    libjpeg then computes fewer pixels, which is two to five times as fast for photos from 1100 pixels on at a stage
    size of 258. Both sides keep at least twice the stage size, so only JPEGs of four times the stage size are read
    like this. Their staged pixels differ from those of :func:`decode` by 0.3 to 0.9 of 255 grey levels on average, and
    by 2.9 in the worst of the photos measured. At an eighth, libjpeg only averages, and the difference is 1.5.

    Args:
        encoded, max_pixels, white_level: as for :func:`decode`.
        size: the stage size in pixels.

    Returns:
        The upright RGB image; the height and width of the whole image; and the notes of :func:`decode`.

    Raises:
        BadImage: as :func:`decode`.
    """
    return _decode(encoded, max_pixels, white_level, size)


def _decode(
    encoded: bytes | str, max_pixels: int, white_level: int, stage_size: int | None
) -> tuple[Image.Image, tuple[int, int], tuple[str, ...]]:
    content = encoded if isinstance(encoded, bytes) else _read(encoded, max_pixels)
    if not content:
        raise BadImage("the file is empty")
    if content.startswith((b"%!PS", b"\xc5\xd0\xd3\xc6")):
        raise BadImage("vitft does not decode PostScript, as that would run a program", hint="convert it to PNG")
    notes: tuple[str, ...] = ()
    with warnings.catch_warnings(record=True) as caught:  # the warnings that matter become notes
        warnings.simplefilter("always")
        try:
            with _open(content, max_pixels) as image:
                halved = _halve(image, content, max_pixels)
                whole = None if halved or stage_size is None else _shrink(image, stage_size)
                with _quiet(image.format):
                    image.load()  # before EXIF: loading finds a PNG's, and already turns a TIFF
                rgb = _to_rgb(image, white_level)
                orientation, notes = _orientation(image)
        except (BadImage, MemoryError):  # a lack of memory says nothing about the image
            raise
        except Exception as error:  # on broken files, Pillow's readers may raise anything
            raise BadImage(_reason(error, content, max_pixels)) from error
    if any("exif" in str(warning.message).lower() for warning in caught) and not notes:
        notes = ("the EXIF is broken; only its orientation was used",)
    upright = rgb.transpose(_TURNS[orientation]) if orientation in _TURNS else rgb
    width, height = whole or upright.size
    original = (width, height) if whole and orientation >= 5 else (height, width)  # from 5 on, the sides change places
    return upright, original, (*halved, *notes)


def brightest(encoded: bytes | str) -> tuple[int, bool] | None:
    """Return the largest value of a decodable 16-bit image, and whether it has colours or transparency.

    None for other images. From a 16-bit colour PNG, Pillow reads only the upper 8 bits.
    """
    content = encoded if isinstance(encoded, bytes) else _read(encoded, MAX_PIXELS)
    if content.startswith(b"\xff\xd8"):  # a JPEG has 8 bits, and a large one would make Pillow warn
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

    The kernel is bicubic and antialiased, within two levels of Pillow's. Views of the result, made with a
    triangle kernel, are then closer to views of the original than after bilinear staging.

    Returns:
        uint8, shape (3, min(height, size), min(width, size)).
    """
    assert image.mode == "RGB", image.mode
    width, height = image.size
    staged_size = (min(height, size), min(width, size))
    pixels = _values(image)
    if staged_size != (height, width):
        pixels = F.interpolate(pixels[None], staged_size, mode="bicubic", antialias=True)[0]
    return pixels[:3].contiguous()


def _values(image: Image.Image) -> Tensor:
    """Return what Pillow holds of an RGB image, uint8 (3 or 4, H, W), without a copy where that is possible.

    Channels are last in memory, as torch's vectorised uint8 kernel needs. A fourth one is Pillow's padding.
    """
    try:
        held = from_dlpack(pa.array(image).flatten())
    except ValueError:  # Pillow holds a large image in several pieces
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)
    return held.view(image.height, image.width, 4).permute(2, 0, 1)


def _read(path: str, max_pixels: int) -> bytes:
    most = 8 * max_pixels + 2**26  # four uncompressed channels of 16 bits, and a camera's metadata
    try:
        return read_regular(path, most)
    except FileNotFoundError:
        raise BadImage(f"the file {printable(path)} does not exist") from None
    except OSError as error:
        reason = str(error) if isinstance(error, Unreadable) else error.strerror or type(error).__name__
        raise BadImage(f"cannot read the file {printable(path)}: {reason}") from None


@functools.cache
def _formats() -> list[str]:
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]  # Pillow may be built without some


@contextmanager
def _open(content: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """Open an image under a size limit that also applies to images inside it (in an icon, the frames of a GIF)."""
    limit = Image.MAX_IMAGE_PIXELS  # other code may use another limit, or none
    Image.MAX_IMAGE_PIXELS = 4 * max_pixels if content.startswith(b"\xff\xd8") else max_pixels
    warnings.simplefilter("error", Image.DecompressionBombWarning)  # at the limit; Pillow's own error is at twice that
    try:
        with Image.open(io.BytesIO(content), formats=_formats()) as image:
            yield image
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _halve(image: Image.Image, content: bytes, max_pixels: int) -> tuple[str, ...]:
    """Refuse an image that needs too much time or memory, or read a large JPEG at half its size; return notes."""
    width, height = image.size
    if max(width, height) > _MAX_SIDE:
        raise BadImage(f"it is {width:,} x {height:,} pixels, but a side may have at most {_MAX_SIDE:,}")
    if image.format in _JPEG and content.count(b"\xff\xda") > _MAX_SCANS:
        raise BadImage(f"it is a JPEG with more than {_MAX_SCANS} scans, which would take too long to decode")
    pixels = width * height * _SLOW.get(image.format or "", 1)
    if pixels <= max_pixels:
        return ()
    if image.format in _JPEG:
        image.draft(None, (width // 2, height // 2))
        if image.width * image.height <= max_pixels:
            return (f"read at half its size: {width * height:,} pixels is more than {max_pixels:,} (data.max_pixels)",)
    raise BadImage(_too_large(width * height, max_pixels // _SLOW.get(image.format or "", 1)))


def _shrink(image: Image.Image, stage_size: int) -> tuple[int, int] | None:
    """Let libjpeg decode fewer pixels, if enough are left to stage; return the whole (width, height) if it will."""
    whole, least = image.size, _LEAST_SHRUNK * stage_size
    if image.format not in _JPEG or min(whole) < 2 * least:
        return None
    image.draft(None, (max(least, whole[0] // 4), max(least, whole[1] // 4)))
    return whole if image.size != whole else None


def _too_large(pixels: int, most: int) -> str:
    return f"it has {pixels:,} pixels, more than {most:,} (data.max_pixels): a decompression bomb, or too large"


@contextmanager
def _quiet(file_format: str | None) -> Iterator[None]:
    """Keep a library's own messages off the terminal, which it writes to the file descriptor, bypassing Python."""
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
    """Return 16-bit grey as 8-bit grey; white is the white level, whatever the brightest pixel is."""
    grey = np.asarray(image)
    if image.mode == "F" or grey.min() < 0 or grey.max() > 65535:
        raise BadImage(
            f"it is unclear what is black and what is white: {grey.dtype} values from {grey.min():g} to {grey.max():g}",
            allowed="8 or 16 bits per channel",
        )
    # Rounded; for 65535 this is exactly a division by 257.
    levels = np.minimum((grey.astype(np.uint64) * 510 + white_level) // (2 * white_level), 255)
    if isinstance(transparent := image.info.get("transparency"), int):
        levels[grey == transparent] = 255
    return Image.fromarray(levels.astype(np.uint8))


def _orientation(image: Image.Image) -> tuple[int, tuple[str, ...]]:
    """Return the EXIF orientation (1 if there is none, or it is broken), and a note if it is broken."""
    try:
        exif = image.getexif()
        if not exif and image.info.get("exif"):
            Image.Exif().load(image.info["exif"])  # raises again what Pillow swallowed while opening the file
        orientation = exif.get(_EXIF_ORIENTATION, 1)
    except Exception:  # broken EXIF may raise anything, but the pixels are good
        return 1, ("the EXIF is broken and was ignored",)
    if orientation not in range(1, 9):
        return 1, (f"the EXIF orientation {orientation!r} is not valid and was ignored",)
    return int(orientation), ()


def _reason(error: Exception, content: bytes, max_pixels: int) -> str:
    """Return in plain words why Pillow could not read ``content``."""
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        declared = re.search(r"(\d+) pixels", str(error))
        return _too_large(int(declared[1]) if declared else max_pixels + 1, max_pixels)
    if isinstance(error, UnidentifiedImageError):
        if content.lstrip()[:1] == b"<":
            return "it is a web page or other markup, not an image"
        return f"its format is unknown, or its header is broken ({len(content):,} bytes)"
    if "truncated" in str(error).lower():
        return f"the file ends before the image does ({len(content):,} bytes)"
    return f"the image data is broken: {printable(str(error)[:200]) or type(error).__name__}"

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
from golden import bmp
from PIL import Image

from vitft.data.images import ImageSplit
from vitft.data.staging import decode
from vitft.errors import DataError
from vitft.reading.checks import Findings, check_images, refuse_bad, refuse_lost, white_level


def split(contents: Sequence[bytes], labels: Sequence[int] | None = None, name: str = "train") -> ImageSplit:
    table = datasets.Dataset(datasets.table.InMemoryTable(pa.table({"image": pa.array(contents, pa.binary())})))
    numbers = np.arange(len(contents))
    ids = numbers * 0 if labels is None else np.array(labels)
    return ImageSplit(name, table, ("image",), ids, (), name)


def deep(brightest: int) -> bytes:
    """Return a 16-bit grey image."""
    buffer = io.BytesIO()
    Image.fromarray(np.array([[0, brightest]], dtype=np.uint16)).save(buffer, "PNG")
    return buffer.getvalue()


BAD = b"no image"

# --- checking images ---------------------------------------------------------------------------------------


def test_all_images_of_a_small_split_are_looked_at() -> None:
    found = check_images([split([bmp(0), BAD, bmp(1)])], ["a"], "sample")
    assert found.num_checked == 3 and [where for where, _ in found.bad] == ["row 1 of train"]


def test_of_many_images_some_are_looked_at_the_first_of_each_class_among_them() -> None:
    labels = [0] * 500 + [1, 1]
    contents = [bmp(number) for number in range(500)] + [BAD, bmp(600)]
    found = check_images([split(contents, labels)], ["a", "b"], "sample")
    assert found.num_checked <= 65 and [where for where, _ in found.bad] == ["row 500 of train"]


def test_all_images_are_looked_at_on_request() -> None:
    contents = [bmp(number) for number in range(150)]
    contents[77] = BAD
    assert len(check_images([split(contents)], ["a"], "sample").bad) <= 1
    assert check_images([split(contents)], ["a"], "all").num_checked == 150


def test_every_split_is_looked_at() -> None:
    found = check_images([split([bmp(0)]), split([BAD], name="test")], ["a"], "sample")
    assert [where for where, _ in found.bad] == ["row 0 of test"]


def test_a_class_without_a_readable_image_is_lost() -> None:
    assert check_images([split([bmp(0), BAD, BAD], [0, 1, 1])], ["a", "b"], "sample").lost == ["b"]


def test_a_class_is_not_lost_if_an_image_beyond_the_sample_is_good() -> None:
    labels = [0] * 400 + [1] * 90
    contents = [bmp(number) for number in range(400)] + [BAD] * 88 + [bmp(9), BAD]
    assert check_images([split(contents, labels)], ["a", "b"], "sample").lost == []


def test_lost_classes_are_those_of_training_only() -> None:
    assert check_images([split([BAD], name="test")], ["a"], "sample").lost == []


def test_the_first_bad_image_is_named_with_how_many_there_are() -> None:
    with pytest.raises(DataError, match=r"row 0 of train cannot be used: .* \(and 1 more of the 2 that were checked\)"):
        refuse_bad(check_images([split([BAD, BAD])], ["a"], "sample"))


def test_lost_classes_are_named() -> None:
    with pytest.raises(DataError, match="none of the images of these classes can be decoded: b"):
        refuse_lost(Findings(lost=["b"]))


# --- how bright is white -----------------------------------------------------------------------------------


def deep_colour(value: int) -> bytes:
    """Return a PNG of 16-bit RGB, which Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    rows = (b"\0" + struct.pack(">H", value) * 6) * 2
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_dark_16_bit_colours_are_said_as_no_white_level_mends_them() -> None:
    notes: list[str] = []
    found = check_images([split([deep_colour(4095), bmp(1)])], ["a"], "sample")
    assert found.brightest_colour == 15 * 257 and found.brightest is None
    white_level(found, 65535, notes)
    assert "16-bit colour images: the brightest value found is about 3,855" in notes[0]
    assert check_images([split([deep_colour(65535)])], ["a"], "sample").brightest_colour == 65535


def test_the_brightest_16_bit_value_is_found() -> None:
    assert check_images([split([bmp(0), deep(4095), deep(100)])], ["a"], "sample").brightest == 4095


def test_8_bit_images_say_nothing_of_white() -> None:
    assert check_images([split([bmp(0)])], ["a"], "sample").brightest is None


@pytest.mark.parametrize(
    ("brightest", "asked", "level", "said"),
    [
        (4095, "auto", 4095, "white level: 4095"),
        (256, "auto", 1023, "white level: 1023"),
        (65535, "auto", 65535, "white level: 65535"),
        (None, "auto", 65535, ""),
        (None, 4095, 4095, ""),
        (4095, 65535, 65535, "the model sees 0 to 16 of 255; if white is 4095: --set data.white_level=4095"),
        (60000, 65535, 65535, ""),
        (4095, 4095, 4095, ""),
    ],
)
def test_the_white_level_and_what_is_said_of_it(brightest: int | None, asked: Any, level: int, said: str) -> None:
    notes: list[str] = []
    assert white_level(Findings(brightest=brightest), asked, notes) == level
    assert len(notes) == bool(said) and all(said in note for note in notes)


def grey(level: int) -> np.ndarray:
    """Return what every 16-bit value becomes at a white level."""
    buffer = io.BytesIO()
    Image.fromarray(np.arange(65536, dtype=np.uint16).reshape(256, 256)).save(buffer, "TIFF")
    return np.asarray(decode(buffer.getvalue(), white_level=level)[0])[..., 0].ravel().astype(np.int64)


def test_at_65535_every_value_is_divided_by_257() -> None:
    assert np.array_equal(grey(65535), np.round(np.arange(65536) / 257).astype(np.int64))


@pytest.mark.parametrize("level", [1023, 4095, 4096, 16383])
def test_at_another_level_that_value_is_white_and_what_is_brighter_too(level: int) -> None:
    values = grey(level)
    assert values[level] == 255 and (values[level:] == 255).all() and (np.diff(values) >= 0).all()
    assert np.abs(values[: level + 1] - 255 * np.arange(level + 1) / level).max() <= 0.5

import copy
import functools
import io
import os
import random
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from vitft.data import staging
from vitft.data.staging import STAGING_VERSION, BadImage, decode, decode_to_stage, stage
from vitft.processes.signals import StopRequest

PIXELS_OF_VERSION_1 = [
    [99, 226, 99, 226, 57, 57, 186, 186, 6, 11, 13, 18],
    [56, 60, 174, 178, 56, 60, 174, 178, 56, 60, 174, 178],
    [125, 221, 194, 239, 92, 92, 225, 225, 59, 68, 168, 172],
    [61, 61, 190, 190, 147, 20, 147, 20, 37, 13, 57, 33],
]
REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "awkward"


def encode(image, file_format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def pixels_of(encoded):
    image, _ = decode(encoded)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def photo(height=120, width=160):
    """Something smooth whose four corners differ, so that every turn of it is another image."""
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack((x * 255 / width, y * 255 / height, (x + y) * 0.5), -1).astype(np.uint8))


@pytest.mark.parametrize("where", ["_to_rgb", "_orientation"])
def test_a_request_to_stop_is_not_taken_for_a_broken_image(where, monkeypatch):
    def stop(*_):
        raise StopRequest("SIGTERM")

    monkeypatch.setattr(staging, where, stop)
    with pytest.raises(StopRequest):
        decode(encode(photo()))


# --- modes -------------------------------------------------------------------------------------------------


def test_rgb_is_left_alone():
    assert np.array_equal(pixels_of(encode(photo())), np.asarray(photo()))


def test_a_path_reads_the_same_as_its_bytes(tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(encode(photo()))
    assert np.array_equal(pixels_of(str(path)), np.asarray(photo()))


def test_grey_becomes_three_equal_channels():
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(pixels_of(encode(Image.fromarray(grey))), np.repeat(grey[..., None], 3, -1))


def test_one_bit_becomes_black_and_white():
    bits = np.eye(9, dtype=bool)
    assert np.array_equal(pixels_of(encode(Image.fromarray(bits)))[..., 1], bits * 255)


def test_grey_with_alpha_lies_over_white():
    pixels = np.array([[[90, 255], [90, 0], [90, 128]]], np.uint8)
    got = pixels_of(encode(Image.fromarray(pixels, "LA")))
    assert got[0, :, 0] == pytest.approx([90, 255, 90 * 128 / 255 + 127], abs=1)


def test_rgba_lies_over_white():
    pixels = np.array([[[200, 10, 0, 255], [200, 10, 0, 0], [200, 10, 0, 64]]], np.uint8)
    expected = [[200, 10, 0], [255, 255, 255], [255 - 55 * 64 / 255, 255 - 245 * 64 / 255, 191]]
    assert pixels_of(encode(Image.fromarray(pixels)))[0] == pytest.approx(np.array(expected), abs=1)


def test_palette_gives_its_colours_and_white_where_transparent():
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 200, 0, 0, 0, 90])
    assert pixels_of(encode(image))[0].tolist() == [[255, 0, 0], [0, 200, 0], [0, 0, 90]]
    assert pixels_of(encode(image, transparency=1))[0].tolist() == [[255, 0, 0], [255, 255, 255], [0, 0, 90]]
    partly = pixels_of(encode(image, transparency=b"\xff\xff\x80"))[0]
    assert partly[2] == pytest.approx([127, 127, 127 + 90 * 128 / 255], abs=1)


@pytest.mark.parametrize(
    ("pixels", "transparent", "expected"),
    [
        (np.array([[7, 80]], np.uint8), 7, [255, 80]),
        (np.array([[257 * 7, 257 * 80]], np.uint16), 257 * 7, [255, 80]),
        (np.array([[[7, 7, 7], [80, 80, 80]]], np.uint8), (7, 7, 7), [255, 80]),
    ],
    ids=["grey", "16-bit grey", "RGB"],
)
def test_a_png_colour_that_means_transparent_becomes_white(pixels, transparent, expected):
    assert pixels_of(encode(Image.fromarray(pixels), transparency=transparent))[0, :, 0].tolist() == expected


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_divided_by_257_and_not_stretched(file_format):
    values = np.array([[0, 128, 129, 257, 1000, 32768, 40000, 65535]], np.uint16)
    image = Image.fromarray(values)
    got = pixels_of(encode(image.convert("I") if file_format == "PPM" else image, file_format))
    assert got[0, :, 0].tolist() == np.round(values[0] / 257).astype(int).tolist()
    dark = pixels_of(encode(Image.fromarray(values[:, :5]), "PNG"))
    assert dark.max() == 4  # a stretched one would reach 255


def test_16_bit_big_endian_tiff_is_read_in_its_byte_order():
    values = np.array([[257, 51400]], ">u2")
    tags = [(256, 2), (257, 1), (258, 16), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, 4)]
    directory = b"".join(struct.pack(">HHIHxx", tag, 3, 1, value) for tag, value in tags)
    tiff = b"MM\x00*" + struct.pack(">I", 12) + values.tobytes() + struct.pack(">H", len(tags)) + directory
    assert pixels_of(tiff + bytes(4))[0, :, 0].tolist() == [1, 200]


def test_16_bit_rgb_png_gives_8_bits():
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    row = b"\x00" + struct.pack(">6H", 0, 257 * 100, 65535, 257 * 3, 257 * 200, 257)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    assert pixels_of(png)[0] == pytest.approx(np.array([[0, 100, 255], [3, 200, 1]]), abs=1)


@pytest.mark.parametrize("values", [[0.0, 0.5], [-3, 9], [0, 70000]], ids=["float", "negative", "over 16 bits"])
def test_values_without_a_known_white_are_refused(values):
    dtype = np.float32 if isinstance(values[1], float) else np.int32
    with pytest.raises(BadImage, match="unclear what is black and what is white"):
        decode(encode(Image.fromarray(np.array([values], dtype)), "TIFF"))


@pytest.mark.parametrize("file_format", ["JPEG", "TIFF"])
def test_cmyk_gives_the_colours_of_the_inks(file_format):
    # Pillow writes JPEGs as Adobe does: inverted, with the marker that says so.
    inks = {(0, 0, 0, 0): (255, 255, 255), (0, 255, 255, 0): (255, 0, 0), (255, 0, 255, 0): (0, 255, 0)}
    inks |= {(255, 255, 0, 0): (0, 0, 255), (0, 0, 0, 255): (0, 0, 0), (0, 0, 0, 55): (200, 200, 200)}
    for ink, colour in inks.items():
        got = pixels_of(encode(Image.new("CMYK", (16, 16), ink), file_format))
        assert got[8, 8] == pytest.approx(colour, abs=3), ink


def test_an_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "lime", "blue")]
    for file_format in ("GIF", "PNG", "WEBP"):
        options = {"lossless": True} if file_format == "WEBP" else {}
        encoded = encode(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
        assert Image.open(io.BytesIO(encoded)).n_frames == 3
        assert pixels_of(encoded).reshape(-1, 3).tolist() == [[255, 0, 0]] * 48


# --- EXIF --------------------------------------------------------------------------------------------------

# What a camera stores so that a viewer that obeys orientation N shows the scene upright (EXIF 2.32, 4.6.4.A).
STORED = {
    1: lambda scene: scene,
    2: lambda scene: scene[:, ::-1],
    3: lambda scene: scene[::-1, ::-1],
    4: lambda scene: scene[::-1],
    5: lambda scene: scene.swapaxes(0, 1),
    6: lambda scene: scene.swapaxes(0, 1)[::-1],
    7: lambda scene: scene.swapaxes(0, 1)[::-1, ::-1],
    8: lambda scene: scene.swapaxes(0, 1)[:, ::-1],
}


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_is_applied_once(orientation, file_format):
    scene = np.asarray(photo())
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if file_format == "WEBP" else {}
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](scene)))
    image, notes = decode(encode(stored, file_format, exif=exif, **options))
    assert np.array_equal(np.asarray(image), scene)
    assert notes == ()


def jpeg_with_exif(payload):
    plain = encode(photo(), "JPEG", quality=95)
    segment = b"Exif\x00\x00" + payload
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + plain[2:]


@pytest.mark.parametrize(
    "payload",
    [
        b"nonsense, and no TIFF header",
        b"MM\x00*\x00\x00\x00\x08\x00\x05\x01\x12\x00\x03",  # five entries, of which half a one is there
        b"II*\0" + struct.pack("<IHHHIII", 8, 1, 0x0112, 3, 1, 9, 0),
    ],
    ids=["no header", "cut off", "orientation 9"],
)
def test_broken_exif_with_good_pixels_is_used_with_a_note(payload):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image, notes = decode(jpeg_with_exif(payload))
    assert np.abs(np.asarray(image).astype(int) - np.asarray(photo())).mean() < 3
    assert len(notes) == 1
    assert "EXIF" in notes[0]


# --- what cannot be used -----------------------------------------------------------------------------------


def gif_of_size(width, height):
    size = struct.pack("<HH", width, height)
    return b"GIF89a" + size + bytes(3) + b"," + bytes(4) + size + bytes(1) + b"\x08\x01\x00\x00;"


def png_with_much_text():
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "x" * (PngImagePlugin.MAX_TEXT_CHUNK + 1), zip=True)
    return encode(photo(), pnginfo=info)


JPEG = encode(photo(), "JPEG")
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
PNG = encode(NOISE)
BAD = {
    "empty": (b"", "the file is empty"),
    "web page": (b"\n<!DOCTYPE html><html><body>404</body></html>", "a web page"),
    "text": (b"not an image at all", "its format is unknown"),
    "truncated JPEG": (JPEG[: len(JPEG) // 2], "the file ends before the image does"),
    "truncated PNG": (PNG[: len(PNG) // 2], "the file ends before the image does"),
    "half a header": (PNG[:20], "the file ends before the image does"),
    "broken PNG data": (PNG[:1000] + bytes(400) + PNG[1400:], "broken"),
    "GIF bomb": (gif_of_size(65535, 65535), "decompression bomb"),
    "text bomb": (png_with_much_text(), "broken: Decompressed data too large"),
    "PostScript": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
        "PostScript",
    ),
}


@pytest.mark.parametrize(("encoded", "reason"), BAD.values(), ids=BAD.keys())
def test_what_is_no_complete_image_is_refused_with_its_reason(encoded, reason):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(BadImage, match=reason):
            decode(encoded)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(BadImage, match="does not exist"):
        decode(str(tmp_path / "gone.jpg"))
    with pytest.raises(BadImage, match="cannot read the file"):
        decode(str(tmp_path))


@pytest.mark.parametrize("limit", [None, 1, 10**9])
def test_the_pixel_limit_is_the_same_however_pillow_is_set(limit, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    big = encode(Image.new("1", (100, 90)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(big, 9000)[0].size == (100, 90)
        with pytest.raises(BadImage, match="9,000 pixels, more than 8,999"):
            decode(big, 8999)
    assert limit == Image.MAX_IMAGE_PIXELS


def ico_that_lies(png):
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 1, 1, 0, 0, 1, 32, len(png), 22) + png


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000", "ICO"])
def test_an_image_over_the_limit_is_refused_whatever_its_format(file_format):
    image = Image.new("RGB", (200, 90))
    content = ico_that_lies(encode(image)) if file_format == "ICO" else encode(image, file_format)
    with pytest.raises(BadImage, match="18,000 pixels, more than"):
        decode(content, 17_999)


def test_a_large_jpeg_is_read_at_half_its_size_and_a_larger_one_refused():
    big = encode(photo(90, 200), "JPEG")
    whole, notes = decode(big, 18_000)
    assert (whole.size, notes) == ((200, 90), ())
    half, notes = decode(big, 17_999)
    assert half.size == (100, 45)
    assert notes == ("read at half its size: 18,000 pixels is more than 17,999 (data.max_pixels)",)
    assert np.abs(np.asarray(half).astype(int) - np.asarray(whole.reduce(2)).astype(int)).mean() < 1
    with pytest.raises(BadImage, match="18,000 pixels, more than 4,499"):
        decode(big, 4499)


@functools.cache
def leaves(height, width):
    """Return a photo of sorts: many overlapping smooth shapes with sharp edges, and grain."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[0:height, 0:width] / min(height, width)
    pixels = np.full((height, width, 3), 90.0)
    for _ in range(40):
        cy, cx, angle = generator.uniform(0, height / width, 3)
        length, slope = generator.uniform(0.03, 0.3), generator.normal(0, 60, 3)
        along = (x - cx) * np.cos(9 * angle) + (y - cy) * np.sin(9 * angle)
        across = (y - cy) * np.cos(9 * angle) - (x - cx) * np.sin(9 * angle)
        inside = (along / length) ** 2 + (3 * across / length) ** 2 < 1
        pixels[inside] = generator.uniform(20, 230, 3) + along[inside][:, None] * slope
    return Image.fromarray((pixels + generator.normal(0, 4, pixels.shape)).clip(0, 255).astype(np.uint8))


def exif_of(turn):
    exif = Image.Exif()
    if turn:
        exif[0x0112] = turn
    return exif


@pytest.mark.parametrize("turn", [None, 3, 6, 7])
@pytest.mark.parametrize(("height", "width", "scale"), [(112, 150, 2), (220, 250, 4), (420, 400, 4)])
def test_a_large_jpeg_is_decoded_near_the_stage_size_and_looks_the_same(height, width, scale, turn):
    size = 26
    encoded = encode(leaves(height, width), "JPEG", quality=90, exif=exif_of(turn))
    whole, _ = decode(encoded)
    read, original, notes = decode_to_stage(encoded, size)
    assert original == (whole.height, whole.width) and notes == ()
    assert read.size == (-(-whole.width // scale), -(-whole.height // scale))
    assert min(read.size) >= 2 * size
    difference = np.abs(stage(read, size).numpy().astype(int) - stage(whole, size).numpy())
    assert difference.mean() < 2.6  # sharp edges everywhere; photos have less


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_what_is_less_than_four_times_the_stage_is_decoded_whole(file_format):
    side = 223 if file_format == "JPEG" else 500
    encoded = encode(leaves(side, 400), file_format)
    read, original, _ = decode_to_stage(encoded, 56)
    assert original == (side, 400)
    assert np.array_equal(np.asarray(read), np.asarray(decode(encoded)[0]))


def test_a_jpeg_over_the_limit_is_halved_only_once():
    encoded = encode(leaves(260, 340), "JPEG")
    half, original, notes = decode_to_stage(encoded, 20, 260 * 340 - 1)
    assert (half.size, original) == ((170, 130), (130, 170))
    assert "read at half its size" in notes[0]
    with pytest.raises(BadImage, match="more than 10,000"):
        decode_to_stage(encoded, 20, 10_000)


def test_grey_and_cmyk_jpegs_are_decoded_near_the_stage_size_too():
    for mode in ("L", "CMYK"):
        encoded = encode(leaves(260, 340).convert(mode), "JPEG", quality=95)
        read, original, _ = decode_to_stage(encoded, 56)
        assert (read.size, read.mode, original) == ((170, 130), "RGB", (260, 340))
        whole = stage(decode(encoded)[0], 56).numpy().astype(int)
        assert np.abs(stage(read, 56).numpy() - whole).mean() < 0.7


def test_the_same_bytes_give_the_pixels_of_this_staging_version():
    """If this fails because staging has changed, raise STAGING_VERSION: caches have the old pixels."""
    y, x = np.mgrid[0:24, 0:20]
    grey = (y * 2500 + x * 100).astype(np.uint16)
    alpha = Image.fromarray(np.stack((x * 12, y * 10, x + y, 255 - 9 * y), -1).astype(np.uint8), "RGBA")
    inputs = [encode(photo(24, 20)), encode(Image.fromarray(grey)), encode(alpha)]
    inputs.append(encode(photo(96, 80), "JPEG", quality=95, exif=exif_of(6)))
    staged = [stage(decode_to_stage(each, 6)[0], 6)[:, 1::3, 2::3].flatten().tolist() for each in inputs]
    assert STAGING_VERSION == 1
    assert np.abs(np.array(staged) - PIXELS_OF_VERSION_1).max() <= 2  # libjpeg and processors differ by so much


def test_a_side_has_a_limit_of_its_own():
    with pytest.raises(BadImage, match="it is 1 x 65,536 pixels, but a side may have at most 65,535"):
        decode(encode(Image.new("1", (1, 65_536))))


def test_a_jpeg_of_many_scans_is_refused():
    jpeg = encode(photo(), "JPEG", progressive=True)
    scan = jpeg[jpeg.rfind(b"\xff\xc4", 0, jpeg.rfind(b"\xff\xda")) : -2]
    assert decode(jpeg[:-2] + 50 * scan + jpeg[-2:])[0].size == (160, 120)
    with pytest.raises(BadImage, match="more than 100 scans"):
        decode(jpeg[:-2] + 100 * scan + jpeg[-2:])


def test_a_format_that_unpacks_without_a_limit_is_not_read():
    fits = b"".join(line.ljust(80) for line in (b"SIMPLE  =                    T", b"BITPIX  =                    8"))
    with pytest.raises(BadImage, match="its format is unknown"):
        decode(fits.ljust(2880) + bytes(2880))


def test_what_is_no_regular_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    for name, reason in (("pipe.jpg", "it is a named pipe"), ("zero.jpg", "it is a device"), ("a\0b", "no file can")):
        with pytest.raises(BadImage, match=reason):
            decode(str(tmp_path / name))


def test_too_little_memory_is_no_bad_image(monkeypatch):
    monkeypatch.setattr(staging, "_to_rgb", lambda *_: bytearray(2**62))
    with pytest.raises(MemoryError):
        decode(encode(photo()))


def test_libtiff_does_not_write_to_the_terminal(capfd):
    tiff = bytearray(encode(NOISE, "TIFF", compression="tiff_lzw"))
    tiff[8:3000] = bytes(2992)
    with pytest.raises(BadImage):
        decode(bytes(tiff))
    os.write(2, b"stderr is back")
    assert capfd.readouterr().err == "stderr is back"


def test_random_damage_is_either_read_or_refused():
    generator = random.Random(0)
    sources = [
        JPEG,
        encode(photo()),
        encode(photo(), "GIF"),
        encode(photo(), "WEBP"),
        encode(photo(), "TIFF"),
    ]
    refused = 0
    for trial in range(200):
        damaged = bytearray(sources[trial % len(sources)])
        for _ in range(generator.randrange(1, 30)):
            damaged[generator.randrange(len(damaged) if trial % 2 else 200)] = generator.randrange(256)
        try:
            image, _ = decode(bytes(damaged))
            assert image.mode == "RGB"
        except BadImage as error:
            refused += 1
            assert error.wrong
    assert 0 < refused < 200


def test_a_bad_image_crosses_process_borders():
    broken = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    with pytest.raises(BadImage) as caught:
        decode(broken)
    there = copy.copy(caught.value)  # by the same means as between processes
    assert type(there) is BadImage
    assert str(there) == str(caught.value)


# --- stage -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (300, 200, (64, 64)),
        (300, 20, (20, 64)),
        (20, 300, (64, 20)),
        (30, 20, (20, 30)),
        (4000, 3, (3, 64)),
        (1, 1, (1, 1)),
    ],
)
def test_each_side_shrinks_alone_and_none_grows(width, height, expected):
    staged = stage(photo(height, width), 64)
    assert staged.shape == (3, *expected)
    assert staged.dtype == torch.uint8
    assert staged.is_contiguous()


def test_a_small_image_is_staged_as_it_is():
    assert np.array_equal(stage(photo(20, 30), 64).permute(1, 2, 0), np.asarray(photo(20, 30)))


def test_an_image_that_pillow_holds_in_several_pieces_is_staged_alike(monkeypatch):
    image = photo(90, 130)
    expected = stage(image, 64)

    def in_pieces(_):
        raise ValueError("Image rows are not contiguous in memory.")

    monkeypatch.setattr(staging.pa, "array", in_pieces)
    assert torch.equal(stage(image, 64), expected)


def test_staging_equals_pillows_bicubic():
    noise = np.random.default_rng(0).integers(0, 256, (230, 310, 3), dtype=np.uint8)
    staged = stage(Image.fromarray(noise), 100).permute(1, 2, 0).numpy().astype(int)
    pillow = np.asarray(Image.fromarray(noise).resize((100, 100), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(staged - pillow).max() <= 2
    assert np.abs(staged - pillow).mean() < 0.05


# --- real files --------------------------------------------------------------------------------------------

# File: (width, height) upright, and the colour of one pixel as a person sees it or its raw bytes give it
# (mode_LA.png is grey 128 with alpha 90 throughout: 255 - 127 * 90 / 255 = 210).
REAL_GOOD = {
    "16_bit_binary.pgm": ((20, 100), None),
    "16bit.cropped.tif": ((64, 64), None),
    "1_trns.png": ((64, 64), ((32, 34), (255, 255, 255))),
    "apng_mode_16bit.png": ((128, 64), ((64, 32), (255, 0, 0))),
    "dispose_bgnd.gif": ((100, 100), ((50, 50), (30, 144, 255))),
    "exif_Landscape_1.jpg": ((1800, 1200), None),
    "exif_Landscape_5.jpg": ((1800, 1200), None),
    "exif_Landscape_6.jpg": ((1800, 1200), None),
    "exif_typeerror.jpg": ((800, 531), None),
    "extreme_aspect_4000x3.png": ((4000, 3), None),
    "flower.webp": ((480, 360), None),
    "hopper_bad_exif.jpg": ((500, 500), None),
    "hopper_gray.jpg": ((128, 128), None),
    "i_trns.png": ((64, 64), None),
    "l_trns.png": ((64, 64), ((32, 34), (255, 255, 255))),
    "mode_LA.png": ((64, 64), ((0, 0), (210, 210, 210))),
    "multipage.tiff": ((10, 10), None),
    "one_pixel.png": ((1, 1), ((0, 0), (200, 10, 10))),
    "p_trns_single.png": ((64, 64), ((32, 32), (255, 255, 255))),
    "pil123rgba.png": ((162, 150), ((0, 0), (255, 255, 255))),
    "pil_sample_cmyk.jpg": ((100, 100), None),
}
REAL_BAD = {
    "bmp_b_reallybig.bmp": "decompression bomb",
    "bomb_30000x30000_1bit.png": "decompression bomb",
    "decompression_bomb.gif": "decompression bomb",
    "broken.png": "its format is unknown",
    "broken_data_stream.png": "broken",
    "html_error_page.jpg": "web page",
    "png_decompression_dos.png": "Decompressed data too large",
    "truncated_half.jpg": "the file ends before",
    "zero_byte.jpg": "empty",
}

real = [pytest.mark.real, pytest.mark.skipif(not REAL.is_dir(), reason=f"{REAL} is not there")]


def real_pixels(name):
    return pixels_of(str(REAL / name))


@pytest.mark.parametrize("name", [pytest.param(name, marks=real) for name in REAL_GOOD])
def test_real_awkward_file_is_read(name):
    size, known = REAL_GOOD[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image, notes = decode(str(REAL / name))
    assert image.mode == "RGB"
    assert image.size == size
    assert bool(notes) == (name == "hopper_bad_exif.jpg")
    if known:
        assert image.getpixel(known[0]) == pytest.approx(known[1], abs=3)


@pytest.mark.parametrize(("name", "reason"), [pytest.param(*each, marks=real) for each in REAL_BAD.items()])
def test_real_broken_file_is_refused(name, reason):
    with pytest.raises(BadImage, match=reason):
        decode(str(REAL / name))


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason=f"{REAL} is not there")
def test_the_real_awkward_files_are_all_known():
    assert {path.name for path in REAL.iterdir()} - {"MANIFEST.tsv"} == REAL_GOOD.keys() | REAL_BAD.keys()


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason=f"{REAL} is not there")
@pytest.mark.parametrize("orientation", [5, 6])
def test_a_turned_real_photo_looks_like_the_one_that_was_not(orientation):
    upright, turned = real_pixels("exif_Landscape_1.jpg"), real_pixels(f"exif_Landscape_{orientation}.jpg")
    assert np.corrcoef(upright[::8, ::8].ravel(), turned[::8, ::8].ravel())[0, 1] > 0.95
    assert np.corrcoef(upright[::8, ::8].ravel(), turned[::-8, ::8].ravel())[0, 1] < 0.9


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason=f"{REAL} is not there")
def test_real_16_bit_grey_is_not_stretched():
    # The files' own values, read without Pillow: a raw TIFF strip and a binary PGM are plain 16-bit words.
    pgm = (REAL / "16_bit_binary.pgm").read_bytes()
    words = np.frombuffer(pgm[-20 * 100 * 2 :], ">u2").reshape(100, 20)
    assert np.abs(real_pixels("16_bit_binary.pgm")[..., 0] - words / 257).max() <= 0.5
    assert (real_pixels("16bit.cropped.tif").min(), real_pixels("16bit.cropped.tif").max()) == (
        1,
        3,
    )  # 291..694


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason=f"{REAL} is not there")
def test_real_cmyk_is_red_on_black():
    pixels = real_pixels("pil_sample_cmyk.jpg")
    red = pixels[..., 0]
    assert pixels[..., 1:].mean() < 20
    assert 20 < red.mean() < 90
    assert pixels[2, 5] == pytest.approx([255, 0, 0], abs=30)
    assert (red > 200).mean() > 0.05

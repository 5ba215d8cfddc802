"""Decode damaged images under the limits of a process of its own: ``python decode_mutants.py COUNT SEED``.

Prints one line of JSON: how many were read and refused, and everything that should not have happened.
"""

import io
import json
import random
import resource
import struct
import sys
import time
import traceback
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from vitft.data.staging import decode, stage
from vitft.errors import VitftError

MEMORY = 1_500_000_000  # bytes beside what the libraries have taken already
SECONDS = 5.0
PNG = b"\x89PNG"
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)


def originals():
    """A small image in each format, in ways of storing that have readers of their own."""
    smooth = np.random.default_rng(0).integers(0, 256, (5, 6, 4), dtype=np.uint8)
    colour = Image.fromarray(smooth).resize((60, 44))
    exif = Image.Exif()
    exif[0x0112] = 6
    ways = {
        "JPEG": [{"exif": exif}, {"progressive": True}],
        "PNG": [{"exif": exif}, {"mode": "P"}, {"mode": "RGBA"}, {"mode": "I;16"}],
        "WEBP": [{"exif": exif}, {"lossless": True, "mode": "RGBA"}],
        "TIFF": [{"compression": name} for name in (None, "tiff_lzw", "tiff_deflate", "packbits", "jpeg")],
        "GIF": [{"mode": "P"}],
        "AVIF": [{"speed": 10}],
        "JPEG2000": [{}],
        "BMP": [{}, {"mode": "P"}],
        "TGA": [{"compression": "tga_rle"}],
        "ICO": [{}],
    }
    for name, options in ways.items():
        for each in options:
            buffer = io.BytesIO()
            image = (
                Image.fromarray(np.arange(44 * 60, dtype=np.uint16).reshape(44, 60))
                if "I;16" in each.values()
                else None
            )
            image = image or colour.convert(each.get("mode", "RGB"))
            image.save(buffer, name, **{key: value for key, value in each.items() if key != "mode"})
            yield buffer.getvalue()


def damaged(content, others, generator):
    """Return a file with one to eight wounds of several kinds, most of them in its header."""
    made = bytearray(content)
    for _ in range(generator.choice((1, 1, 1, 2, 4))):
        place = generator.randrange(min(len(made), generator.choice((64, 256, 10**6)))) if made else 0
        match generator.randrange(7):
            case 0:
                made[place : place + 1] = bytes([generator.randrange(256)])
            case 1:  # a length, a count or a side
                size, order = generator.choice((1, 2, 4)), generator.choice(("little", "big"))
                number = generator.choice(NUMBERS) & (256**size - 1)
                made[place : place + size] = number.to_bytes(size, order)
            case 2:
                del made[place:]
            case 3:
                del made[place : place + generator.randrange(1, 40)]
            case 4:
                made[place:place] = made[place : place + generator.randrange(1, 400)] * generator.choice((1, 2, 50))
            case 5:
                other = generator.choice(others)
                cut = generator.randrange(len(other))
                made[place:] = other[cut:]
            case 6:
                made[place:place] = bytes(generator.randrange(256) for _ in range(generator.randrange(1, 20)))
    return with_checksums(bytes(made)) if made.startswith(PNG) else bytes(made)


def with_checksums(png):
    """Return a PNG whose chunks have the sums that they should have: behind them most damage would stay unread."""
    mended, place = png[:8], 8
    while len(png) - place >= 8:
        length = int.from_bytes(png[place : place + 4], "big")
        body = png[place + 4 : place + 8 + length]
        mended += png[place : place + 4] + body + zlib.crc32(body).to_bytes(4, "big")
        place += 12 + length
    return mended


def bombs():
    """Small files that declare large images, each whole and valid."""

    def encoded(image, name, **options):
        buffer = io.BytesIO()
        image.save(buffer, name, **options)
        return buffer.getvalue()

    webp = bytearray(encoded(Image.new("RGBA", (64, 64)), "WEBP", lossless=True))
    start = webp.index(b"VP8L") + 9
    sides = int.from_bytes(webp[start : start + 4], "little") & ~0xFFFFFFF | 16382 | 16382 << 14
    webp[start : start + 4] = sides.to_bytes(4, "little")
    yield "WebP of 16,383 x 16,383", bytes(webp)
    png = encoded(Image.new("1", (9000, 9000)), "PNG")
    yield "PNG of 9,000 x 9,000", png
    yield "icon that says 1 x 1", struct.pack("<HHHBBBBHHII", 0, 1, 1, 1, 1, 0, 0, 1, 32, len(png), 22) + png
    side = struct.pack("<HH", 65535, 65535)
    yield "GIF of 65,535 x 65,535", b"GIF89a" + side + bytes(3) + b"," + bytes(4) + side + b"\0\x08\x01\0\0;"
    yield "TIFF of 9,000 x 9,000", encoded(Image.new("1", (9000, 9000)), "TIFF", compression="group4")
    yield "BMP of 30,000 x 30,000", b"BM" + struct.pack("<IIIIiiHHIIiiII", 60, 0, 54, 40, 30000, 30000, 1, 24, *[0] * 6)
    jpeg = encoded(Image.new("RGB", (4000, 3000)), "JPEG", progressive=True)
    scan = jpeg[jpeg.rfind(b"\xff\xc4", 0, jpeg.rfind(b"\xff\xda")) : -2]
    yield "JPEG of 5,000 scans", jpeg[:-2] + 5000 * scan + jpeg[-2:]


def main(count, seed):
    files = list(originals())
    explosive = list(bombs())
    generator = random.Random(seed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if sys.platform == "linux":
        [data] = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmData" in line]
        resource.setrlimit(resource.RLIMIT_DATA, (int(data) * 1024 + MEMORY,) * 2)
    seen = {"read": 0, "refused": 0, "wrong": [], "slowest": 0.0, "memory": 0}
    for name, content in explosive:
        begun = time.process_time()
        try:
            decode(content)
            seen["wrong"].append(f"{name} ({len(content):,} bytes) was decoded")
        except VitftError:
            took = time.process_time() - begun
            seen["wrong"] += [f"{name} took {took:.1f} s"] if took > 0.5 else []
    for number in range(count):
        content = damaged(files[number % len(files)], files, generator)
        begun = time.process_time()
        try:
            image, _ = decode(content)
            stage(image, 64)
            seen["read"] += 1
        except VitftError as error:
            seen["refused"] += 1
            if not 0 < len(str(error)) < 1000 or not str(error).isascii():
                seen["wrong"].append(f"{number}: {str(error)[:200]}")
        except BaseException:
            seen["wrong"].append(f"{number}: {traceback.format_exc()[-600:]}")
        took = time.process_time() - begun
        seen["slowest"] = max(seen["slowest"], took)
        if took > SECONDS:
            seen["wrong"].append(f"{number}: {took:.1f} s")
    seen["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    if seen["memory"] > MEMORY:
        seen["wrong"].append(f"{seen['memory']:,} bytes of memory")
    print(json.dumps(seen))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))

"""Files that people drop on a classifier: right ones of every kind, and wrong ones of more."""

import io
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

FIXTURES = Path(__file__).parents[2] / "fixtures" / "images"
BOMB = zlib.compress(bytes(5 << 20))
PNG_START = b"\x89PNG\r\n\x1a\n"


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def random_image(rng: random.Random, mode: str = "RGB", size: tuple[int, int] | None = None) -> Image.Image:
    width, height = size or (rng.randint(1, 90), rng.randint(1, 90))
    noise = np.random.default_rng(rng.randrange(2**32))
    if mode == "I;16":
        return Image.fromarray(noise.integers(0, 65536, (height, width), np.uint16))
    if mode == "F":
        return Image.fromarray(noise.standard_normal((height, width)).astype(np.float32))
    rgba = Image.fromarray(noise.integers(0, 256, (height, width, 4), np.uint8), "RGBA")
    return rgba if mode == "RGBA" else rgba.convert("RGB").convert(mode)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, depth: int, color: int, rows: bytes, *extra: bytes) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    return (
        PNG_START
        + header
        + b"".join(extra)
        + png_chunk(b"IDAT", zlib.compress(rows))
        + png_chunk(b"IEND", b"")
    )


def bomb(side: int) -> bytes:
    """A PNG of `side` squared white pixels in a few kilobytes."""
    return png_of(side, side, 1, 0, (b"\x00" + b"\xff" * ((side + 7) // 8)) * side)


def animated(rng: random.Random, kind: str) -> bytes:
    frames = [random_image(rng, size=(24, 18)) for _ in range(4)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=20)


def whole(rng: random.Random) -> tuple[str, bytes]:
    kinds = [
        lambda: ("a.jpg", encoded(random_image(rng), "JPEG", progressive=rng.random() < 0.5)),
        lambda: ("cmyk.jpg", encoded(random_image(rng, "CMYK"), "JPEG")),
        lambda: ("grey.jpg", encoded(random_image(rng, "L"), "JPEG")),
        lambda: ("deep.png", encoded(random_image(rng, "I;16"), "PNG")),
        lambda: ("alpha.png", encoded(random_image(rng, "RGBA"), "PNG")),
        lambda: ("palette.png", encoded(random_image(rng, "P"), "PNG")),
        lambda: ("bits.png", encoded(random_image(rng, "1"), "PNG")),
        lambda: ("b.bmp", encoded(random_image(rng), "BMP")),
        lambda: ("c.webp", encoded(random_image(rng, "RGBA"), "WEBP", lossless=rng.random() < 0.5)),
        lambda: ("float.tif", encoded(random_image(rng, "F"), "TIFF")),
        lambda: (
            "d.tif",
            encoded(random_image(rng), "TIFF", compression=rng.choice(["tiff_lzw", "jpeg", None])),
        ),
        lambda: ("moving.gif", animated(rng, "GIF")),
        lambda: ("moving.png", animated(rng, "PNG")),
        lambda: ("moving.webp", animated(rng, "WEBP")),
        lambda: ("thin.png", encoded(random_image(rng, size=(rng.randint(500, 9000), 1)), "PNG")),
    ]
    name, data = rng.choice(kinds)()
    return rng.choice([name, "photo.jpg", "noextension", "page.html"]), data


def broken(rng: random.Random) -> tuple[str, bytes]:
    name, data = whole(rng)
    how = rng.randrange(4)
    if how == 0:
        return name, data[: rng.randrange(len(data))]
    if how == 1:
        spoilt = bytearray(data)
        for _ in range(rng.randint(1, 40)):
            spoilt[rng.randrange(len(spoilt))] = rng.randrange(256)
        return name, bytes(spoilt)
    if how == 2:
        start = rng.randrange(len(data))
        return name, data[:start] + rng.randbytes(rng.randint(1, 400)) + data[start:]
    return name, data[: rng.randint(4, 40)] + rng.randbytes(rng.randint(0, 4000))


def foreign(rng: random.Random) -> tuple[str, bytes]:
    return rng.choice(
        [
            ("empty.png", b""),
            ("notes.png", b"Dear all,\nthis is no picture.\n" * rng.randint(1, 40)),
            ("page.jpg", b"<!doctype html><title>404</title>"),
            ("paper.png", b"%PDF-1.7\n" + rng.randbytes(300)),
            ("drawing.png", b'<svg xmlns="http://www.w3.org/2000/svg"/>'),
            ("noise.jpg", rng.randbytes(rng.randint(1, 5000))),
            ("zip.png", b"PK\x03\x04" + rng.randbytes(60)),
            ("start.png", PNG_START),
            ("start.gif", b"GIF89a"),
            ("huge.png", bomb(rng.choice([7000, 20000]))),
            ("wide.png", png_of(2**31 - 1, 2**31 - 1, 8, 2, b"")),
            ("none.png", png_of(0, 0, 8, 2, b"")),
            (
                "text.png",
                png_of(1, 1, 8, 0, b"\0\0", png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(5 << 20)))),
            ),
            (
                "big.bmp",
                b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, 60000, 60000, 1, 24, 0, 0, 0, 0, 0, 0),
            ),
            (
                "loop.tif",
                b"II*\x00\x08\x00\x00\x00" + struct.pack("<HHHII", 1, 256, 4, 1, 9) + struct.pack("<I", 8),
            ),
        ]
    )


def odd_files(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """`count` names and contents, a third each of whole, broken and foreign ones."""
    rng = random.Random(seed)
    for number in range(count):
        name, data = (whole, broken, foreign)[number % 3](rng)
        yield f"{number:04}-{name}", data

"""An image file's bytes to 8-bit RGB, by Pillow. Runs in the decoding process; never imports JAX.

Pillow itself and not imageio around it: its plugin turns a grey image with an EXIF orientation about the
wrong axis, lets tags of a file replace the mode it works by, and tries every format that Pillow knows.
"""

import io
import warnings
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from engine.vision.limits import MEGABYTE, ImageLimits

Pixels = NDArray[np.uint8]
Color = tuple[int, int, int]

WHITE: Color = (255, 255, 255)
_ROWS_AT_ONCE = 256
"""Of a composition, whose intermediates take eight times an image's bytes."""
_ORIENTATION = 0x0112
_GREY = ("1", "L", "I;16", "I;16B", "I;16L", "I", "F")
"""Pillow's modes of one channel. Its own conversion clips those of more than 8 bits at 255."""
_STARTS = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
)
_OTHERS = (
    (b"%PDF", "a PDF document"),
    (b"8BPS", "a Photoshop file"),
    (b"\x00\x00\x01\x00", "an icon"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 image"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"<svg", "an SVG drawing"),
    (b"PK\x03\x04", "a ZIP container"),
    (b"\x1f\x8b", "a gzip archive"),
)
READ = "JPEG, PNG, WebP, GIF, BMP and TIFF are read"


class Undecodable(Exception):
    """Why one image is refused; `kind` is the name of a class in `engine.errors` under ImageError."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


def image_format(data: bytes) -> str:
    """Pillow's name of the format that the first bytes show. Raises `Undecodable`."""
    if not data:
        raise Undecodable("DamagedImage", "is empty (0 bytes)")
    for start, name in _STARTS:
        if data.startswith(start):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        raise Undecodable("UnsupportedImage", f"is an AVIF or HEIC image or a film; {READ}")
    for start, what in _OTHERS:
        if data.lstrip().startswith(start):
            raise Undecodable("UnsupportedImage", f"is {what}; {READ}")
    what = "text" if _is_text(data[:1024]) else "not an image"
    raise Undecodable("UnsupportedImage", f"is {what} by its first bytes; {READ}")


def decode(data: bytes, limits: ImageLimits, background: Color = WHITE) -> Pixels:
    """The first image of a file, uint8 (height, width, 3), as it is to be looked at.

    EXIF's orientation is carried out, transparency composited on `background`, CMYK and the like made RGB
    without colour profiles. 16-bit grey is divided by 257, of 16-bit colours the high byte is taken.
    Grey of floats is taken as 0 to 1 where none is above 1, else as 0 to 255.

    Raises:
        Undecodable: an unknown format, a damaged file, more pixels than `limits.max_pixels`.
    """
    found = image_format(data)
    # Checked below, for any number; Pillow only warns up to twice its own.
    Image.MAX_IMAGE_PIXELS = None
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data), formats=[found]) as image:
            warnings.simplefilter("ignore")
            _check_size(*image.size, limits)
            image.load()
            step = _grey_step(data) if found == "PNG" else 1
            return _upright(_rgb(image, background, step), _orientation(image))
    except (Undecodable, MemoryError):
        raise
    except Exception as error:  # Pillow's plugins raise anything on damaged input
        raise Undecodable("DamagedImage", _told(found, error)) from error


def _told(found: str, error: Exception) -> str:
    why = " ".join(str(error).split())[:120]
    if isinstance(error, UnidentifiedImageError) or not why:
        return f"is damaged: it starts as {found}, and nothing more of it can be read"
    told = "is cut off" if "truncated" in why.lower() else "is damaged"
    return f"{told}: it starts as {found}, then: {why}"


def too_much_memory(limits: ImageLimits) -> str:
    return f"needs more than {limits.max_memory // MEGABYTE:,} MB of memory to decode"


def _check_size(width: int, height: int, limits: ImageLimits) -> None:
    if width < 1 or height < 1:
        raise Undecodable("DamagedImage", f"is damaged: it says it is {width} x {height} pixels")
    if width * height > limits.max_pixels:
        raise Undecodable(
            "ImageTooLarge", f"is {width:,} x {height:,} pixels; the limit is {limits.max_pixels:,} in all"
        )


def _grey_step(data: bytes) -> int:
    """Of a PNG's header: what its grey values are multiplied by to be 8 bits."""
    bits, color_type = data[24], data[25]
    return 255 // (2**bits - 1) if color_type == 0 and bits in (2, 4) else 1


def _rgb(image: Image.Image, background: Color, grey_step: int) -> Pixels:
    """`grey_step`: Pillow scales grey of 2 or 4 bits, but not the one value (tRNS) that is transparent."""
    if image.mode in _GREY:
        grey = np.asarray(image.convert("L") if image.mode == "1" else image)
        rgb = np.repeat(eight_bits(grey)[:, :, None], 3, axis=2)
        if isinstance(clear := image.info.get("transparency"), int):
            rgb[grey == clear * grey_step] = background
        return rgb
    if image.has_transparency_data:
        return composited(np.asarray(image.convert("RGBA")), background)
    return np.array(image.convert("RGB"))


def eight_bits(grey: NDArray[np.generic]) -> Pixels:
    """Grey (height, width) as 8 bits: 65535 is white for longer integers, 1 or 255 for floats."""
    if grey.dtype == np.uint8:
        return cast(Pixels, grey)
    if grey.dtype.kind == "f":
        finite = np.nan_to_num(grey.astype(np.float32), nan=0.0, posinf=255.0, neginf=0.0)
        scale = 255.0 if finite.max(initial=0.0) <= 1.0 else 1.0
        return cast(Pixels, np.rint(np.clip(finite * scale, 0, 255)).astype(np.uint8))
    return cast(Pixels, np.rint(np.clip(grey, 0, 65535) / 257).astype(np.uint8))


def composited(rgba: Pixels, background: Color = WHITE) -> Pixels:
    """uint8 (height, width, 4) over a colour: (height, width, 3), each channel rounded to the nearest."""
    under, out = np.array(background, np.uint32), np.empty((*rgba.shape[:2], 3), np.uint8)
    for top in range(0, len(rgba), _ROWS_AT_ONCE):
        part = rgba[top : top + _ROWS_AT_ONCE].astype(np.uint32)
        color, alpha = part[..., :3], part[..., 3:]
        out[top : top + _ROWS_AT_ONCE] = (color * alpha + under * (255 - alpha) + 127) // 255
    return out


def _orientation(image: Image.Image) -> int:
    """1 to 8 of EXIF; 1 where there is none that can be read. TIFF's is carried out by Pillow already."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # as many as there are ways to break EXIF
        return 1


def _upright(image: Pixels, orientation: int) -> Pixels:
    """EXIF 2.32, tag Orientation: where the first row and column are."""
    if orientation in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def _is_text(start: bytes) -> bool:
    return all(byte >= 32 or byte in b"\t\n\r\f" for byte in start)

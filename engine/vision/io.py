"""Images as they come (bytes, files, data URLs, arrays) to pixels."""

import base64
import binascii
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

import numpy as np

from engine.errors import ImageError, ImageTooLarge, InvalidRequest
from engine.vision.decode import WHITE, Color, Pixels, composited
from engine.vision.decoders import decode_apart
from engine.vision.limits import ImageLimits

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class ImageFile:
    """An image file's bytes, what errors are to call it, and the field of a request that held it."""

    name: str
    data: bytes
    param: str | None = None


ImageInput: TypeAlias = Union[bytes, str, Path, ImageFile, Pixels, "Image"]
"""A file's bytes, a path, a `data:` URL, uint8 pixels (height, width[, 1, 3 or 4]), or Pillow's image."""

_DATA = "data:"


def read_image(
    source: ImageInput,
    *,
    name: str | None = None,
    limits: ImageLimits | None = None,
    background: Color = WHITE,
) -> Pixels:
    """An image as uint8 RGB (height, width, 3), upright, transparency composited on `background`.

    JPEG, PNG, WebP, GIF (the first frame), BMP and TIFF, by their first bytes and not their names; see
    `decode.decode` for what becomes of their kinds of pixels. Files are decoded in a process of their own
    with bounded time and memory. Thread-safe; blocks for at most `limits.max_seconds` and a little.

        >>> read_image("photo.jpg").shape
        (480, 640, 3)

    Raises:
        ImageError: UnsupportedImage, DamagedImage or ImageTooLarge, with the name at the start of its line.
        InvalidRequest: an array or an object that is no image, a data URL that cannot be read.
    """
    limits = limits or ImageLimits()
    if isinstance(source, str | Path) and not str(source).startswith(_DATA):
        return decode_image(name or Path(source).name, file_bytes(Path(source), limits), limits, background)
    if isinstance(source, str):
        source = data_url_bytes(source)
    if isinstance(source, ImageFile):
        return _of_file(source, limits, background)
    if isinstance(source, bytes):
        return decode_image(name or "image", source, limits, background)
    if isinstance(source, np.ndarray):
        return array_pixels(source, background)
    if hasattr(source, "convert") and hasattr(source, "has_transparency_data"):
        return array_pixels(
            np.asarray(source.convert("RGBA" if source.has_transparency_data else "RGB")), background
        )
    raise InvalidRequest(f"an image is bytes, a path, a data URL or an array, not a {type(source).__name__}")


def _of_file(file: ImageFile, limits: ImageLimits, background: Color) -> Pixels:
    try:
        return decode_image(file.name, file.data, limits, background)
    except ImageError as error:
        error.param = file.param
        raise


def decode_image(
    name: str, data: bytes, limits: ImageLimits | None = None, background: Color = WHITE
) -> Pixels:
    """A file's bytes; see `read_image`."""
    limits = limits or ImageLimits()
    if len(data) > limits.max_bytes:
        raise _too_many_bytes(name, len(data), limits)
    return decode_apart(name, data, limits, background)


def file_bytes(path: Path, limits: ImageLimits) -> bytes:
    """A file's bytes, its size looked at first. Raises ImageError."""
    try:
        if not path.is_file():
            raise ImageError(path.name, "no such file" if not path.exists() else "is not a file")
        if (size := path.stat().st_size) > limits.max_bytes:
            raise _too_many_bytes(path.name, size, limits)
        return path.read_bytes()
    except OSError as error:
        raise ImageError(path.name, f"cannot be read: {error.strerror or error}") from error


def data_url_bytes(url: str, *, param: str | None = None) -> bytes:
    """What a `data:` URL in base64 holds (RFC 2397), or base64 alone. Raises InvalidRequest."""
    head, comma, body = url.partition(",") if url.startswith(_DATA) else ("", "", url)
    if url[:8].lower().startswith(("http://", "https://", "file://")):
        raise InvalidRequest("images are not fetched: send the bytes as a data: URL in base64", param=param)
    if url.startswith(_DATA) and (not comma or not head.lower().endswith(";base64")):
        raise InvalidRequest(
            "a data URL of an image must be in base64: data:image/png;base64,...", param=param
        )
    try:
        return base64.b64decode("".join(body.split()), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest("the image is not valid base64", param=param) from None


def array_pixels(array: Pixels, background: Color = WHITE) -> Pixels:
    """uint8 (height, width), or with 1, 3 or 4 channels, as RGB. Raises InvalidRequest for others."""
    if array.ndim == 2:
        array = array[:, :, None]
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in (1, 3, 4) or not array.size:
        raise InvalidRequest(
            "an array of pixels must be uint8 (height, width) or (height, width, 1, 3 or 4), "
            f"not {array.dtype} {array.shape}"
        )
    if array.shape[2] == 4:
        return composited(array, background)
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))


def _too_many_bytes(name: str, size: int, limits: ImageLimits) -> ImageTooLarge:
    return ImageTooLarge(name, f"is {size:,} bytes; the limit is {limits.max_bytes:,}")

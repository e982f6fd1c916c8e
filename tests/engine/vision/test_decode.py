"""Pixels of image files: equal to independent decoders', and right where libraries are known to be wrong."""

import base64
import io
import random
import struct
from pathlib import Path

import numpy as np
import png
import pytest
from PIL import Image

from engine.errors import DamagedImage, ImageError, ImageTooLarge, InvalidRequest, UnsupportedImage
from engine.vision.io import read_image
from engine.vision.limits import ImageLimits
from tests.engine.vision.odd_files import FIXTURES, animated, bomb, encoded, png_chunk, png_of, random_image

WHITE = np.array([255, 255, 255])
MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F"]


def by_pypng(data: bytes) -> np.ndarray:
    """RGB over white of an 8-bit conversion that rounds 16-bit grey and takes the high byte of colours."""
    reader = png.Reader(bytes=data)
    reader.preamble()
    reader.sbit = None  # by which pypng would drop bits that are there
    width, height, rows, info = reader.asDirect()
    values = np.array([list(row) for row in rows], np.int64).reshape(height, width, info["planes"])
    bits = info["bitdepth"]
    if bits < 16:
        values = values * 255 // (2**bits - 1)
    elif info["planes"] == 1:
        values = np.rint(values / 257).astype(np.int64)
    else:
        values = values >> 8
    if not info["alpha"]:
        return np.broadcast_to(values, (height, width, 3))
    color, alpha = values[..., :-1], values[..., -1:]
    return (color * alpha + WHITE * (255 - alpha) + 127) // 255


@pytest.mark.parametrize("path", sorted((FIXTURES / "pngsuite").glob("*.png")), ids=lambda path: path.stem)
def test_png_of_every_depth_and_kind_equals_an_independent_decoder(path):
    np.testing.assert_array_equal(read_image(path), by_pypng(path.read_bytes()))


TURNED = {"hopper_orientation_6": lambda image: np.rot90(image, -1)}


@pytest.mark.parametrize("path", sorted((FIXTURES / "jpeg").glob("*.jpg")), ids=lambda path: path.stem)
def test_jpeg_equals_libjpegs_own_program(path):
    theirs = np.asarray(Image.open(path.with_suffix(".djpeg.png")))
    theirs = TURNED.get(path.stem, lambda image: image)(theirs)
    np.testing.assert_allclose(read_image(path).astype(int), theirs.astype(int), atol=1)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_carried_out_for_colours_and_grey(mode, orientation):
    """A grey image's rows and columns are not where a coloured one's are: imageio turns them wrongly."""
    pixels = np.full((40, 64), 230, np.uint8)
    pixels[:20, :32] = 20  # the top left quarter, as it is to be seen
    stored = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.T,
        6: np.rot90(pixels, 1),
        7: pixels[::-1, ::-1].T,
        8: np.rot90(pixels, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored)).convert("RGB").convert(mode)
    found = read_image(encoded(image, "JPEG", exif=exif, quality=95))
    assert found.shape == (40, 64, 3)
    assert found[:18, :30].mean() < 40 and found[22:, :].mean() > 210 and found[:, 34:].mean() > 210


def test_sixteen_bit_grey_is_scaled_and_not_clipped():
    ramp = np.arange(0, 65536, 257, dtype=np.uint16)[None]
    for kind in ("PNG", "TIFF"):
        found = read_image(encoded(Image.fromarray(ramp), kind))
        np.testing.assert_array_equal(found[0, :, 0], np.arange(256))


def test_sixteen_bit_grey_keeps_its_transparent_value():
    clear = png_chunk(b"tRNS", struct.pack(">H", 1000))
    grey = png_of(2, 1, 16, 0, b"\0" + struct.pack(">HH", 1000, 40000), clear)
    assert read_image(grey).tolist() == [[[255] * 3, [156] * 3]]


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_transparent_grey_of_few_bits_is_the_value_that_the_file_means(bits):
    """Pillow compares the unscaled value of tRNS with scaled pixels."""
    most = 2**bits - 1
    row = (most << (8 - bits)).to_bytes(1, "big")  # one white pixel, then black ones
    black_clear = png_of(2, 1, bits, 0, b"\0" + row, png_chunk(b"tRNS", struct.pack(">H", most)))
    found = read_image(black_clear, background=(9, 8, 7))
    assert found.tolist() == [[[9, 8, 7], [0, 0, 0]]]


def test_floats_are_taken_as_zero_to_one_or_as_zero_to_255():
    small = Image.fromarray(np.array([[0.0, 0.5, 1.0, np.nan]], np.float32))
    large = Image.fromarray(np.array([[-5.0, 100.4, 255.0, 1e9]], np.float32))
    assert read_image(encoded(small, "TIFF"))[0, :, 0].tolist() == [0, 128, 255, 0]
    assert read_image(encoded(large, "TIFF"))[0, :, 0].tolist() == [0, 100, 255, 255]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "TIFF"])
def test_transparency_is_composited_on_the_background(kind):
    image = Image.new("RGBA", (3, 2), (200, 0, 0, 0))
    image.putpixel((1, 0), (10, 20, 30, 255))
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    data = encoded(image, kind, **options)
    on_blue = read_image(data, background=(0, 0, 255))
    assert on_blue[1, 1].tolist() == [0, 0, 255] and read_image(data)[0, 0].tolist() == [255, 255, 255]
    assert on_blue[0, 1].tolist() == [10, 20, 30]


def test_half_transparency_is_rounded_to_the_nearest():
    image = Image.new("RGBA", (1, 1), (100, 0, 255, 128))
    expected = [round((c * 128 + 255 * 127) / 255) for c in (100, 0, 255)]
    assert read_image(encoded(image, "PNG"))[0, 0].tolist() == expected


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_becomes_rgb(mode):
    red = Image.new("RGB", (5, 4), (255, 0, 0))
    image = Image.new(mode, (5, 4)) if mode in ("LAB", "I;16", "I", "F") else red.convert(mode)
    kind = "TIFF" if mode in ("CMYK", "YCbCr", "LAB", "F", "I") else "PNG"
    found = read_image(encoded(image, kind))
    assert found.shape == (4, 5, 3) and found.dtype == np.uint8
    if mode in ("P", "RGB", "RGBA", "CMYK", "YCbCr"):
        np.testing.assert_allclose(found[0, 0], (255, 0, 0), atol=2)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_the_first_frame_of_a_moving_image_is_read(kind):
    found = read_image(animated(random.Random(3), kind))
    assert found.shape == (18, 24, 3)
    first = np.asarray(random_image(random.Random(3), size=(24, 18)))
    if kind == "PNG":
        np.testing.assert_array_equal(found, first)


def test_the_kind_is_taken_from_the_bytes_and_never_from_the_name(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded(Image.new("RGB", (4, 4), (1, 2, 3)), "PNG"))
    assert read_image(path)[0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (b"", DamagedImage, "is empty"),
        (b"Dear all,", UnsupportedImage, "is text"),
        (b"\x00\x01\x02\x03\x80", UnsupportedImage, "not an image"),
        (b"%PDF-1.7", UnsupportedImage, "a PDF document"),
        (b"\n<svg/>", UnsupportedImage, "an SVG drawing"),
        (b"\x00\x00\x00\x20ftypavif", UnsupportedImage, "AVIF or HEIC"),
        (b"\x89PNG\r\n\x1a\n", DamagedImage, "starts as PNG"),
        (bomb(7000), ImageTooLarge, "7,000 x 7,000"),
        (bomb(20000), ImageTooLarge, "20,000 x 20,000"),
        (png_of(2**31 - 1, 2**31 - 1, 8, 2, b""), ImageTooLarge, "limit is 40,000,000"),
        ((FIXTURES / "other" / "truncated_jpeg.jpg").read_bytes(), DamagedImage, "is cut off"),
    ],
)
def test_what_cannot_be_read_is_one_line_that_names_the_file(data, error, words):
    with pytest.raises(error) as caught:
        read_image(data, name="my.png")
    told = str(caught.value)
    assert told.startswith("my.png: ") and words in told and "\n" not in told and len(told) < 300


def test_the_size_of_the_file_is_looked_at_first(tmp_path):
    path = tmp_path / "big.png"
    with path.open("wb") as file:
        file.truncate(200 << 20)
    with pytest.raises(ImageTooLarge, match=r"209,715,200 bytes; the limit is 33,554,432"):
        read_image(path)


def test_a_path_that_is_no_file_is_an_error_with_its_name(tmp_path):
    for path in (tmp_path / "gone.png", tmp_path):
        with pytest.raises(ImageError, match=f"^{path.name}: "):
            read_image(path)


@pytest.mark.parametrize("source", ["path", "bytes", "url", "array", "pillow", "base64 in lines"])
def test_an_image_may_come_in_any_form(source, tmp_path):
    image = Image.new("RGBA", (6, 5), (10, 20, 30, 255))
    data = encoded(image, "PNG")
    (tmp_path / "a.png").write_bytes(data)
    text = base64.b64encode(data).decode()
    forms = {
        "path": str(tmp_path / "a.png"),
        "bytes": data,
        "url": f"data:image/png;base64,{text}",
        "array": np.asarray(image),
        "pillow": image,
        "base64 in lines": f"data:image/png;base64,\n{text[:20]}\n{text[20:]}",
    }
    found = read_image(forms[source])
    assert found.shape == (5, 6, 3) and found[0, 0].tolist() == [10, 20, 30]


@pytest.mark.parametrize(
    "source",
    [
        "data:image/png,abc",
        "data:image/png;base64,!!!",
        "data:image/png;base64",
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        42,
        None,
    ],
    ids=str,
)
def test_what_is_no_image_at_all_is_refused(source):
    with pytest.raises(InvalidRequest):
        read_image(source)


def test_orientation_by_exif_that_is_damaged_is_left_out():
    path = FIXTURES / "jpeg" / "invalid-exif.jpg"
    assert read_image(path).shape == np.asarray(Image.open(path)).shape


def test_nothing_changes_with_the_number_of_pixels_that_pillow_warns_of():
    data = encoded(Image.new("L", (6000, 6000)), "PNG")
    assert read_image(data, limits=ImageLimits(max_pixels=36_000_000)).shape == (6000, 6000, 3)
    with pytest.raises(ImageTooLarge):
        read_image(data, limits=ImageLimits(max_pixels=35_999_999))


def test_bytes_of_a_path_and_of_a_stream_are_the_same_image():
    path = Path(FIXTURES / "other" / "hopper.webp")
    np.testing.assert_array_equal(read_image(path), read_image(io.BytesIO(path.read_bytes()).getvalue()))

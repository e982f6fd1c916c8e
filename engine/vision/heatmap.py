"""A map of what a model looked at, and the image under it."""

import io
from dataclasses import dataclass

import numpy as np

from engine.protocols import Float32
from engine.vision.decode import Pixels
from engine.vision.preprocess import Preprocessing

LARGEST = 1024
"""Pixels a side of a map at most: it is for people to look at."""


@dataclass(frozen=True)
class HeatMap:
    """`values`: float32 (height, width) of `image`, 0 to 1; what the model did not see is 0.

    `image` is the one explained, shrunk to at most `LARGEST` pixels a side. `label` is the class that is
    explained; None where none is.

    Example:
        >>> Path("why.png").write_bytes(model.saliency("photo.jpg").png())
    """

    image: Pixels
    values: Float32
    label: str | None = None

    def overlay(self, strength: float = 0.6) -> Pixels:
        """The image in grey under the map from transparent over red and yellow to white, uint8 RGB."""
        grey = self.image @ np.array([0.299, 0.587, 0.114], np.float32)
        heat = self.values[:, :, None]
        color = np.clip(3 * heat - np.arange(3, dtype=np.float32), 0, 1) * 255
        share = strength * np.sqrt(heat)
        mixed = grey[:, :, None] * (1 - share) + color * share
        return np.rint(mixed).astype(np.uint8)

    def png(self, strength: float = 0.6) -> bytes:
        """The overlay as a PNG file."""
        from PIL import Image

        out = io.BytesIO()
        Image.fromarray(self.overlay(strength)).save(out, "PNG")
        return out.getvalue()


def heat_map(image: Pixels, seen: Float32, how: Preprocessing, label: str | None) -> HeatMap:
    """`seen`, (rows, columns) over what the model saw, put back where that was in the image.

    It is scaled so that its largest value is 1.
    """
    resized, shown = how.resized(image.shape), _shown(image)
    crop = how.output or resized
    values = _stretched(np.maximum(seen, 0), crop)
    if crop != resized:
        values = _uncropped(values, resized, how)
    whole = np.maximum(_stretched(values, (shown.shape[0], shown.shape[1])), 0)
    most = np.float32(whole.max())
    return HeatMap(shown, (whole / most if most > 0 else whole).astype(np.float32), label)


def _shown(image: Pixels) -> Pixels:
    from PIL import Image

    picture = Image.fromarray(image)
    picture.thumbnail((LARGEST, LARGEST))
    return np.asarray(picture)


def _uncropped(values: Float32, size: tuple[int, int], how: Preprocessing) -> Float32:
    top, left = how.offsets(size)
    out = np.zeros(size, np.float32)
    inside = out[max(top, 0) : top + values.shape[0], max(left, 0) : left + values.shape[1]]
    inside[:] = values[
        max(-top, 0) : max(-top, 0) + inside.shape[0], max(-left, 0) : max(-left, 0) + inside.shape[1]
    ]
    return out


def _stretched(values: Float32, size: tuple[int, int]) -> Float32:
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(values, np.float32))
    return np.asarray(picture.resize((size[1], size[0]), Image.Resampling.BILINEAR))

"""From pixels to what a checkpoint's model was trained on: the host path, equal to its own bit by bit.

Models of Hugging Face and timm have seen images that Pillow resized as 8-bit numbers; the exact path here
does that. A device could resize as well (`ops.images.resize`, within 2/255), but would compile for each size.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from engine.errors import UnsupportedModel
from engine.models.fields import Fields
from engine.models.vit_config import VitConfig
from engine.protocols import Float32
from engine.vision.decode import Pixels

Resample: TypeAlias = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
_RESAMPLES: tuple[Resample, ...] = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""In the order of Pillow's numbers, by which preprocessor_config.json calls them."""

Rounding: TypeAlias = Literal["down", "nearest"]
"""Where an odd rest of a crop goes: Hugging Face rounds the offset down, torchvision to the nearest even."""

_HALF = (0.5, 0.5, 0.5)
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_LARGEST = 1 << 14


@dataclass(frozen=True)
class Preprocessing:
    """What is done to an image, in this order.

    Attributes:
        size: resized to (height, width) exactly, or with one number so that the shorter side has it; None
            leaves the size.
        resample: Pillow's filter, on 8-bit numbers.
        crop: (height, width) cut from the middle, black added where the image is smaller.
        rounding: of the crop's offset.
        scale: what the 8-bit numbers are multiplied by.
        mean, std: of each channel, after `scale`; one of them is grey by ITU-R 601, as Pillow converts.

    Example:
        >>> Preprocessing(size=(224, 224)).prepare(read_image("photo.jpg")).shape
        (3, 224, 224)
    """

    size: tuple[int, int] | int | None = (224, 224)
    resample: Resample = "bilinear"
    crop: tuple[int, int] | None = None
    rounding: Rounding = "down"
    scale: float = 1 / 255
    mean: tuple[float, ...] = _HALF
    std: tuple[float, ...] = _HALF

    def __post_init__(self) -> None:
        if self.output is None:
            raise UnsupportedModel(
                "preprocessing without a fixed size is not supported: give size or crop_size"
            )

    @property
    def output(self) -> tuple[int, int] | None:
        """(height, width) of what comes out."""
        return self.crop or (self.size if isinstance(self.size, tuple) else None)

    @property
    def channels(self) -> int:
        return len(self.mean)

    def prepare(self, image: Pixels) -> Float32:
        """uint8 RGB (height, width, 3) -> float32 (channels, *output). Any thread."""
        return self._normalized(self.fitted(image))

    def fitted(self, image: Pixels) -> Pixels:
        """Resized and cropped, uint8 (*output, channels)."""
        from PIL import Image

        picture = Image.fromarray(image)
        if self.channels == 1:
            picture = picture.convert("L")
        if self.size is not None:
            height, width = self.resized(image.shape[:2])
            picture = picture.resize((width, height), Image.Resampling(_RESAMPLES.index(self.resample)))
        fitted = np.asarray(picture).reshape(picture.height, picture.width, self.channels)
        return fitted if self.crop is None else _cropped(fitted, self.crop, self.offsets(fitted.shape))

    def resized(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """(height, width) that an image of `shape` is resized to."""
        if isinstance(self.size, tuple):
            return self.size
        height, width = shape[:2]
        if self.size is None:
            return height, width
        long = int(self.size * max(height, width) / min(height, width))
        return (long, self.size) if width <= height else (self.size, long)

    def offsets(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """(top, left) of the crop in a resized image of `shape`; below 0 for a margin around it."""
        crop = self.crop or (shape[0], shape[1])
        return _offset(shape[0] - crop[0], self.rounding), _offset(shape[1] - crop[1], self.rounding)

    def _normalized(self, fitted: Pixels) -> Float32:
        out = np.empty((self.channels, *fitted.shape[:2]), np.float32)
        for channel, table in enumerate(self._tables):
            np.take(table, fitted[:, :, channel], out=out[channel])
        return out

    @cached_property
    def _tables(self) -> Float32:
        """float32 (channels, 256): each 8-bit number normalised, rounded where transformers rounds."""
        scaled = (np.arange(256, dtype=np.float64) * self.scale).astype(np.float32)
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        tables: Float32 = (scaled[None] - mean[:, None]) / std[:, None]
        return tables


def _cropped(image: Pixels, size: tuple[int, int], offsets: tuple[int, int]) -> Pixels:
    top, left = offsets
    before, start = (max(-top, 0), max(-left, 0)), (max(top, 0), max(left, 0))
    part = image[start[0] : start[0] + size[0] - before[0], start[1] : start[1] + size[1] - before[1]]
    if part.shape[:2] == size:
        return part
    out = np.zeros((*size, image.shape[2]), np.uint8)
    out[before[0] : before[0] + part.shape[0], before[1] : before[1] + part.shape[1]] = part
    return out


def _offset(rest: int, rounding: Rounding) -> int:
    """Where a crop begins; below 0 for a margin. torchvision makes a margin's smaller half come first."""
    if rounding == "down":
        return rest // 2
    return round(rest / 2) if rest >= 0 else -(-rest // 2)


def preprocessing_from_hf(
    values: Mapping[str, Any], config: VitConfig, source: str = "preprocessor_config.json"
) -> Preprocessing:
    """Of a preprocessor_config.json; `values` may be empty, as in folders without one.

    Raises UnsupportedModel or BadCheckpoint.
    """
    fields, usual = Fields(values, source), _usual(values, config)
    if config.channels == 1 and "image_mean" not in values:
        usual = replace(usual, mean=(0.5,), std=(0.5,))  # no family has means of its own for grey
    if fields.flag("do_pad", False):
        raise UnsupportedModel(f"{source}: do_pad is not supported")
    crop = _crop(fields, usual)
    given = replace(
        usual,
        size=_size(fields, "size", usual.size) if fields.flag("do_resize", usual.size is not None) else None,
        resample=_resample(fields, usual.resample),
        crop=crop,
        scale=fields.number("rescale_factor", 1 / 255) if fields.flag("do_rescale", True) else 1.0,
    )
    if not fields.flag("do_normalize", True):
        return _with_channels(replace(given, mean=(0.0,) * 3, std=(1.0,) * 3), config, source)
    mean, std = _numbers(fields, "image_mean", usual.mean), _numbers(fields, "image_std", usual.std)
    return _with_channels(replace(given, mean=mean, std=std), config, source)


def preprocessing_from_timm(
    values: Mapping[str, Any], config: VitConfig, source: str = "config.json"
) -> Preprocessing:
    """Of timm's `pretrained_cfg`: the shorter side to size / crop_pct, then the middle; or "squash".

    Raises UnsupportedModel or BadCheckpoint.
    """
    fields = Fields(values, source).table("pretrained_cfg")
    share = fields.number("crop_pct", 0.875)
    if not 0.05 <= share <= 1:
        raise fields.bad("crop_pct", "must be a share of at most 1")
    mode, crop = fields.text("crop_mode", "center"), config.image_size
    scaled = tuple(math.floor(side / share) for side in crop)
    if mode == "center" and scaled[0] == scaled[1]:
        size: tuple[int, int] | int = scaled[0]
    elif mode == "squash":
        size = (scaled[0], scaled[1])
    else:
        raise UnsupportedModel(f"{source}: crop_mode {mode[:40]!r} is not supported for {crop[0]}x{crop[1]}")
    found = Preprocessing(
        size=size,
        resample=_timm_resample(fields),
        crop=crop,
        rounding="nearest",
        mean=_numbers(fields, "mean", _IMAGENET[0]),
        std=_numbers(fields, "std", _IMAGENET[1]),
    )
    return _with_channels(found, config, source)


def _usual(values: Mapping[str, Any], config: VitConfig) -> Preprocessing:
    """What the image processor does where its file says nothing, by its class, else by the model's."""
    named = str(values.get("image_processor_type") or values.get("feature_extractor_type") or "").lower()
    kinds = ("clip", "siglip", "bit", "deit", "vit")
    kind = next((kind for kind in kinds if named.startswith(kind)), "")
    if not kind:
        models = {"dinov2": "dino", "dinov2_with_registers": "dino", "clip_vision_model": "clip"}
        kind = models.get(config.architecture, config.architecture.partition("_")[0])
    if kind in ("clip", "bit", "dino"):
        mean, std = _IMAGENET if kind == "dino" else _CLIP
        edge, crop = (256, (224, 224)) if kind == "dino" else (224, (224, 224))
        if kind == "clip" and not named:
            edge, crop = min(config.image_size), config.image_size
        return Preprocessing(edge, "bicubic", crop, mean=mean, std=std)
    if kind == "deit":
        return Preprocessing((256, 256), "bicubic", (224, 224))
    size = (224, 224) if named else config.image_size
    return Preprocessing(size, "bicubic" if kind == "siglip" else "bilinear")


def _crop(fields: Fields, usual: Preprocessing) -> tuple[int, int] | None:
    if not fields.flag("do_center_crop", usual.crop is not None):
        return None
    crop = _size(fields, "crop_size", usual.crop or (224, 224))
    return (crop, crop) if isinstance(crop, int) else crop


def _size(fields: Fields, key: str, usual: tuple[int, int] | int | None) -> tuple[int, int] | int | None:
    """`{"height", "width"}`, `{"shortest_edge"}`, or one number, which is what the usual one is."""
    value = fields.values.get(key)
    if value is None:
        return usual
    if isinstance(value, int) and not isinstance(value, bool):
        side = _side(fields, key, value)
        return side if isinstance(usual, int) else (side, side)
    if isinstance(value, Mapping) and set(value) == {"shortest_edge"}:
        return _side(fields, key, value["shortest_edge"])
    if isinstance(value, Mapping) and set(value) == {"height", "width"}:
        return _side(fields, key, value["height"]), _side(fields, key, value["width"])
    raise fields.bad(key, "must have height and width, or shortest_edge alone")


def _side(fields: Fields, key: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _LARGEST:
        raise fields.bad(key, f"must be of 1 to {_LARGEST} pixels")
    return value


def _resample(fields: Fields, usual: Resample) -> Resample:
    number = fields.integer("resample", _RESAMPLES.index(usual), high=len(_RESAMPLES) - 1)
    return _RESAMPLES[number]


def _timm_resample(fields: Fields) -> Resample:
    named = fields.text("interpolation", "bicubic")
    for resample in _RESAMPLES:
        if resample == named:
            return resample
    raise UnsupportedModel(f"{fields.source}: interpolation {named[:40]!r} is not supported")


def _numbers(fields: Fields, key: str, usual: tuple[float, ...]) -> tuple[float, ...]:
    value = fields.values.get(key)
    if value is None:
        return usual
    listed = [value] * 3 if isinstance(value, int | float) else value
    if not isinstance(listed, list | tuple) or len(listed) not in (1, 3):
        raise fields.bad(key, "must be a number for each of 1 or 3 channels")
    if not all(isinstance(n, int | float) and math.isfinite(n) for n in listed):
        raise fields.bad(key, "must be finite numbers")
    if "std" in key and not all(listed):
        raise fields.bad(key, "must not hold 0")
    return tuple(map(float, listed))


def _with_channels(found: Preprocessing, config: VitConfig, source: str) -> Preprocessing:
    """Of a model of grey images the first of three equal numbers will do."""
    if config.channels == found.channels == len(found.std):
        return found
    mean, std = set(found.mean), set(found.std)
    if config.channels == 1 and len(mean) == len(std) == 1:
        return replace(found, mean=found.mean[:1], std=found.std[:1])
    raise UnsupportedModel(
        f"{source}: a model of {config.channels} channels with means of {found.channels} is not supported"
    )


def stacked(images: list[Float32], rows: int) -> NDArray[np.float32]:
    """(rows, channels, height, width): the images, then zeros."""
    batch = np.zeros((rows, *images[0].shape), np.float32)
    for row, image in enumerate(images):
        batch[row] = image
    return batch

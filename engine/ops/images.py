"""Images as arrays: resize, crop, normalise, patches. Pure, for any batch axes before those named."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

Filter: TypeAlias = Literal["nearest", "bilinear", "bicubic", "lanczos"]

_METHODS = {"bilinear": "linear", "bicubic": "cubic", "lanczos": "lanczos3"}


def resize(
    images: jax.Array, size: tuple[int, int], method: Filter = "bilinear", *, antialias: bool = True
) -> jax.Array:
    """[..., height, width, channels] -> float32 [..., *size, channels].

    With `antialias` the filter widens where an image shrinks, as Pillow and torchvision do it; the cubic has
    a = -0.5 and lanczos three lobes. Values may overshoot those of the input. Compiles for each size: on a
    host with images of many sizes `vision.preprocess` resizes them as the checkpoints saw them.
    """
    wide = jnp.asarray(images, jnp.float32)
    if method == "nearest":
        rows, columns = (_nearest(old, new) for old, new in zip(images.shape[-3:-1], size, strict=True))
        return jnp.take(jnp.take(wide, rows, axis=-3), columns, axis=-2)
    shape = (*images.shape[:-3], *size, images.shape[-1])
    resized: jax.Array = jax.image.resize(
        wide, shape, _METHODS[method], antialias=antialias, precision="highest"
    )
    return resized


def _nearest(old: int, new: int) -> NDArray[np.int64]:
    """The input under each output's centre, in integers: a centre between two takes the later, always."""
    return (2 * np.arange(new) + 1) * old // (2 * new)


def center_crop(images: jax.Array, size: tuple[int, int]) -> jax.Array:
    """[..., height, width, channels] -> [..., *size, channels]: an odd rest is left on the lower right.

    ValueError for an image that is smaller.
    """
    height, width = images.shape[-3:-1]
    if height < size[0] or width < size[1]:
        raise ValueError(f"{size[0]}x{size[1]} cannot be cut from {height}x{width}")
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    return images[..., top : top + size[0], left : left + size[1], :]


def normalize(
    images: jax.Array, mean: Sequence[float], std: Sequence[float], scale: float = 1 / 255
) -> jax.Array:
    """(images * scale - mean) / std over the last axis, float32."""
    return (images.astype(jnp.float32) * scale - jnp.asarray(mean)) / jnp.asarray(std)


def channels_first(images: jax.Array) -> jax.Array:
    """[..., height, width, channels] -> [..., channels, height, width]."""
    return jnp.moveaxis(images, -1, -3)


def extract_patches(pixels: jax.Array, patch: tuple[int, int]) -> jax.Array:
    """[..., channels, height, width] -> [..., rows, columns, channels, *patch].

    Pixels on the lower right that fill no patch are left out, as a strided convolution leaves them out.
    ValueError for an image smaller than a patch.
    """
    *batch, channels, height, width = pixels.shape
    rows, columns = height // patch[0], width // patch[1]
    if not rows or not columns:
        raise ValueError(f"an image of {height}x{width} is smaller than a patch of {patch[0]}x{patch[1]}")
    whole = pixels[..., : rows * patch[0], : columns * patch[1]]
    apart = whole.reshape(*batch, channels, rows, patch[0], columns, patch[1])
    return jnp.moveaxis(apart, (-4, -2), (-5, -4))


def flatten_patches(patches: jax.Array) -> jax.Array:
    """[..., rows, columns, channels, height, width] -> [..., rows * columns, numbers of a patch]."""
    *batch, rows, columns, channels, height, width = patches.shape
    return patches.reshape(*batch, rows * columns, channels * height * width)


def assemble_patches(
    flat: jax.Array, grid: tuple[int, int], patch: tuple[int, int], channels: int
) -> jax.Array:
    """The inverse: [..., rows * columns, channels * patch] -> [..., channels, height, width]."""
    batch = flat.shape[:-2]
    apart = flat.reshape(*batch, *grid, channels, *patch)
    lined = jnp.moveaxis(apart, (-5, -4), (-4, -2))
    return lined.reshape(*batch, channels, grid[0] * patch[0], grid[1] * patch[1])

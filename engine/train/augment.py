"""Random changes to a batch of images that leave what they show alone, as one JAX function of a key."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class Augmentation:
    """What is done at random to each image of a batch.

    Attributes:
        flip: mirror left and right, half of the images.
        shift: move by up to so many pixels to each side; edges are repeated.
        erase: chance that a rectangle of a tenth to a third of each side is painted grey (Zhong et al.,
            2017: random erasing).
    """

    flip: bool = True
    shift: int = 2
    erase: float = 0.25


def augment(images: jax.Array, key: jax.Array, settings: Augmentation) -> jax.Array:
    """float32 (batch, height, width, channels) in 0..1 -> the same shape. One key gives the same result
    however the batch is spread over devices."""
    flips, shifts, erases = jax.random.split(key, 3)
    if settings.flip:
        mirrored = jax.random.bernoulli(flips, 0.5, (images.shape[0], 1, 1, 1))
        images = jnp.where(mirrored, images[:, :, ::-1], images)
    if settings.shift:
        images = _shifted(images, shifts, settings.shift)
    return _erased(images, erases, settings.erase) if settings.erase else images


def _shifted(images: jax.Array, key: jax.Array, most: int) -> jax.Array:
    batch, height, width, channels = images.shape
    padded = jnp.pad(images, ((0, 0), (most, most), (most, most), (0, 0)), mode="edge")
    corners = jax.random.randint(key, (batch, 2), 0, 2 * most + 1)

    def cut(image: jax.Array, corner: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), (height, width, channels))

    return jax.vmap(cut)(padded, corners)


def _erased(images: jax.Array, key: jax.Array, chance: float) -> jax.Array:
    batch, height, width, _ = images.shape
    whether, sides, places = jax.random.split(key, 3)
    size = jnp.array([height, width])
    sides = jax.random.uniform(sides, (batch, 2), minval=0.1, maxval=0.34) * size
    first = jax.random.uniform(places, (batch, 2)) * (size - sides)
    last = first + sides * jax.random.bernoulli(whether, chance, (batch, 1))
    rows, columns = jnp.arange(height), jnp.arange(width)
    inside = [
        (at >= first[:, axis, None]) & (at < last[:, axis, None]) for axis, at in enumerate((rows, columns))
    ]
    hidden = inside[0][:, :, None, None] & inside[1][:, None, :, None]
    return jnp.where(hidden, 0.5, images)

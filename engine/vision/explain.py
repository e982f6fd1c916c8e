"""What a vision transformer looked at, as pure functions: gradients of a class, and attention rolled out."""

import jax
import jax.numpy as jnp

from engine.models import vit
from engine.models.vit_config import VitConfig

SAMPLES = 8
"""Noisy copies that a saliency map is the mean of."""
_NOISE = 0.15


def saliency(params: vit.Params, pixels: jax.Array, *, config: VitConfig) -> tuple[jax.Array, jax.Array]:
    """SmoothGrad (Smilkov et al., 2017) of the likeliest class.

    The mean over copies with Gaussian noise, a share of the range of the pixels, of the gradient's absolute
    value, the largest of the channels (Simonyan et al., 2013). Of a model without classes, of the squared
    length of its features. The noise is always the same.

    Args:
        pixels: [1,channels,height,width].

    Returns:
        float32 (height, width), and the number of the class, 0 without classes.
    """
    scores = vit.logits if config.labels else vit.features
    found = scores(params, config, pixels)[0]
    best = jnp.argmax(found) if config.labels else jnp.zeros((), jnp.int32)

    def target(image: jax.Array) -> jax.Array:
        out = scores(params, config, image[None])[0]
        return out[best] if config.labels else jnp.sum(out * out)

    spread = _NOISE * (jnp.max(pixels) - jnp.min(pixels))
    noise = spread * jax.random.normal(jax.random.key(0), (SAMPLES, *pixels.shape[1:]))
    slopes = jax.lax.map(jax.grad(target), pixels[0] + noise)
    return jnp.mean(jnp.max(jnp.abs(slopes), axis=1), axis=0), best


def rollout(params: vit.Params, pixels: jax.Array, *, config: VitConfig) -> jax.Array:
    """Attention rollout (Abnar and Zuidema, 2020): the layers' attention, residuals in it, multiplied.

    Args:
        pixels: [1,channels,height,width].

    Returns:
        float32 (rows, columns) of patches: how much of each is in the class token, or in the mean of the
        patches of a model without one.
    """
    maps = jnp.mean(vit.attention_maps(params, config, pixels)[:, 0], axis=1)
    tokens = maps.shape[-1]
    mixed = (maps + jnp.eye(tokens)) / 2

    def through(so_far: jax.Array, layer: jax.Array) -> tuple[jax.Array, None]:
        return layer @ so_far, None

    rolled, _ = jax.lax.scan(through, jnp.eye(tokens), mixed)
    read = rolled[0] if config.class_token else jnp.mean(rolled[config.prefix :], axis=0)
    height, width = pixels.shape[2:]
    grid = (height // config.patch_size[0], width // config.patch_size[1])
    return read[config.prefix :].reshape(grid)

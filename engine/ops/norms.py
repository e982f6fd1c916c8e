"""Normalisation over the last axis."""

import jax
import jax.numpy as jnp

from engine.ops.dispatch import native_layer_norm, native_norm


def rms_norm(x: jax.Array, weight: jax.Array, eps: float) -> jax.Array:
    """x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich, 2019). x (..., dim), weight (dim,).

    A decode step's x, (rows, 1, ..., dim), goes to a native kernel where it can, whose sums do not
    depend on the number of rows; XLA's do from 8 rows on.
    """
    found = native_norm(x, weight, eps)
    if found is not None:
        return found
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + eps) * weight


def layer_norm(x: jax.Array, weight: jax.Array, bias: jax.Array | None, eps: float) -> jax.Array:
    """(x - mean) / sqrt(variance + eps) * weight + bias (Ba et al., 2016), with the biased variance.

    Without a bias nothing is added. A native kernel does it where it can: of float32, on a CPU.
    """
    if bias is not None and (found := native_layer_norm(x, weight, bias, eps)) is not None:
        return found
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(centred * centred, axis=-1, keepdims=True)
    scaled = centred * jax.lax.rsqrt(variance + eps) * weight
    return scaled if bias is None else scaled + bias

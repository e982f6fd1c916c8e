"""Products with quantised weights in jnp: what runs without native kernels, and the source of gradients."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from engine.ops.quant import GROUP, QTensor

_BLOCK_ELEMENTS = 1 << 20
"""Weights expanded to float32 at a time on a CPU: 4 MiB stay in its cache. Expanding a whole
vocabulary head (113 MB) instead is 2.5 times slower."""


def product(x: jax.Array, w: QTensor) -> jax.Array:
    """x (rows, groups * 32) times w^T -> (rows, out).

    Expand, then a dot, is the fastest formulation XLA's CPU compiler has.
    """
    whole = _int8_product if w.minimum is None else _int4_product
    rows = _block_rows(w)
    if rows >= w.shape[0] or jax.default_backend() != "cpu":
        return whole(x, w)
    return _by_blocks(x, w, rows, whole)


def _block_rows(w: QTensor) -> int:
    return max(1, _BLOCK_ELEMENTS // (w.scale.shape[1] * GROUP))


def _by_blocks(
    x: jax.Array, w: QTensor, rows: int, product: Callable[[jax.Array, QTensor], jax.Array]
) -> jax.Array:
    """`product` over blocks of `rows` weight rows; the last block overlaps the one before."""
    out = w.shape[0]
    count = math.ceil(out / rows)
    starts = jnp.minimum(jnp.arange(count) * rows, out - rows)

    def block(start: jax.Array) -> jax.Array:
        return product(x, jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, start, rows), w))

    parts = jax.lax.map(block, starts)
    whole = jnp.moveaxis(parts[:-1], 0, 1).reshape(x.shape[0], -1)
    return jnp.concatenate([whole, parts[-1][:, count * rows - out :]], axis=-1)


def _int8_product(x: jax.Array, w: QTensor) -> jax.Array:
    wide = w.values.astype(jnp.float32) * w.scale[..., None]
    return _dot(x, wide.reshape(wide.shape[0], -1))


def _int4_product(x: jax.Array, w: QTensor) -> jax.Array:
    """Low and high halves apart, minima through sums of x: three times faster than unpacking first."""
    if w.minimum is None:
        raise TypeError("an int4 QTensor has minima")
    halves = x.reshape(x.shape[0], -1, 2, GROUP // 2)
    low = (w.values & 15).astype(jnp.float32) * w.scale[..., None]
    high = (w.values >> 4).astype(jnp.float32) * w.scale[..., None]
    out = w.values.shape[0]
    y = _dot(halves[:, :, 0].reshape(x.shape[0], -1), low.reshape(out, -1))
    y += _dot(halves[:, :, 1].reshape(x.shape[0], -1), high.reshape(out, -1))
    return y + _dot(halves.sum((2, 3)), w.minimum)


def _dot(x: jax.Array, w: jax.Array) -> jax.Array:
    return jax.lax.dot_general(x, w, (((1,), (1,)), ((), ())))

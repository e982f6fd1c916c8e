"""`linear`: x @ w.T + b, for float and for quantised weights.

Weights are (out, in), the layout of checkpoints and the fast one for a CPU's matrix-vector product.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from engine.ops.dispatch import native_quantized
from engine.ops.quant import GROUP, QTensor

_BLOCK_ELEMENTS = 1 << 20
"""Weights expanded to float32 at a time on a CPU: 4 MiB stay in its cache. Expanding a whole
vocabulary head (113 MB) instead is 2.5 times slower."""


def linear(x: jax.Array, w: jax.Array | QTensor, b: jax.Array | None = None) -> jax.Array:
    """x (..., in), w (out, in), b (out,) -> (..., out). Differentiable in x, w's floats and b."""
    if isinstance(w, QTensor):
        y = _quantized(x.reshape(-1, x.shape[-1]), w).reshape(*x.shape[:-1], w.shape[0])
    else:
        y = _dot(x, w)
    return y if b is None else y + b


def _dot(x: jax.Array, w: jax.Array) -> jax.Array:
    return jax.lax.dot_general(x, w, (((x.ndim - 1,), (1,)), ((), ())))


def _quantized(x: jax.Array, w: QTensor) -> jax.Array:
    """(rows, in) -> (rows, out), natively for a few rows, else by XLA.

    Expand, then a dot, is the fastest formulation XLA's CPU compiler has.
    """
    padding = w.scale.shape[1] * GROUP - w.in_features
    x = jnp.pad(x, ((0, 0), (0, padding)))
    found = native_quantized(x, w)
    if found is not None:
        return found
    product = _int8_product if w.minimum is None else _int4_product
    rows = _block_rows(w)
    if rows >= w.shape[0] or jax.default_backend() != "cpu":
        return product(x, w)
    return _by_blocks(x, w, rows, product)


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

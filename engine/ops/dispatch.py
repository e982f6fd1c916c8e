"""Which implementation an op runs on: native kernels of `dsl` where they win, portable XLA elsewhere.

`TARSIA_OPS=xla` forces the portable path. A processor without a C++ compiler, or a kernel that fails its
check, takes the portable path too; that is said once in the log.
"""

import dataclasses
import functools
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from engine.ops.quant import QTensor
from engine.ops.quant_product import product

NATIVE_ROWS = 16
"""Rows of x up to which the native product is used: a decode step's. It reads each weight once for four
rows; a prompt's many rows share XLA's expansion."""
NATIVE_ELEMENTS = 1 << 16
"""Weights from which a kernel is compiled for a shape: below, a product takes microseconds either way."""
NATIVE_COLUMNS = 96
"""Columns from which a norm is native, for the same reason."""
NATIVE_KEYS, NATIVE_SCORES = 512, 3 << 20
"""Keys, and scores of all heads, from which attention is native: XLA's scores lie in memory then, not in a
cache. Twice as fast for DINOv2 at its own size, no faster for 257 tokens."""
NATIVE_NORMED = 1 << 13
"""Numbers from which a layer norm is native."""
_portable: ContextVar[bool] = ContextVar("portable", default=False)
_log = logging.getLogger(__name__)


def native_product(x: jax.Array, w: QTensor) -> jax.Array | None:
    """x (rows, groups * 32) times w^T by a native kernel -> (rows, out), or None to do it portably.

    x is rounded to 16 bits in groups of 32 for the integer dots, so it equals `quant_product.product` as
    closely as one order of float32 sums equals another; gradients are of that. The bits of a row do not
    depend on the other rows.
    """
    small = w.shape[0] * w.in_features < NATIVE_ELEMENTS
    if small or x.shape[0] > NATIVE_ROWS or x.dtype != jnp.float32 or not native_wanted():
        return None
    from dsl import BackendError

    try:
        return _native(x, w)
    except BackendError as error:
        _say_once(str(error))
        return None


@jax.custom_vjp
def _native(x: jax.Array, w: QTensor) -> jax.Array:
    from dsl import Packed
    from dsl.kernels.integer_linear import int4_int16_linear, int8_int16_linear
    from dsl.kernels.round16 import round_to_int16

    values = w.values.reshape(w.values.shape[0], -1)
    high, low, step, sums = round_to_int16(x, backend="cpu")
    found: jax.Array
    if w.minimum is None:
        found = int8_int16_linear(high, low, step, values, w.scale, backend="cpu")
    else:
        packed = Packed(values, "u4")
        found = int4_int16_linear(high, low, step, sums, packed, w.scale, w.minimum, backend="cpu")
    return found


def _forward(x: jax.Array, w: QTensor) -> tuple[jax.Array, tuple[jax.Array, QTensor]]:
    return _native(x, w), (x, w)


def _backward(inputs: tuple[jax.Array, QTensor], tangent: jax.Array) -> tuple[jax.Array, QTensor]:
    x, w = inputs
    floats = (x, w.scale) if w.minimum is None else (x, w.scale, w.minimum)

    def of_floats(x: jax.Array, scale: jax.Array, minimum: jax.Array | None = None) -> jax.Array:
        return product(x, dataclasses.replace(w, scale=scale, minimum=minimum))

    _, pull = jax.vjp(of_floats, *floats)
    of_x, *of_weights = pull(tangent)
    none: Any = np.zeros(w.values.shape, jax.dtypes.float0)
    return of_x, QTensor(none, of_weights[0], of_weights[1] if len(of_weights) > 1 else None, w.in_features)


_native.defvjp(_forward, _backward)


def native_norm(x: jax.Array, weight: jax.Array, eps: float) -> jax.Array | None:
    """RMSNorm of a decode step's x (rows, 1, ..., dim) by a native kernel, or None to do it portably."""
    a_step = x.ndim >= 3 and x.shape[1] == 1 and x.shape[0] <= NATIVE_ROWS
    if not a_step or x.shape[-1] < NATIVE_COLUMNS or x.dtype != jnp.float32 or not native_wanted():
        return None
    from dsl import BackendError
    from dsl.kernels.norm import rms_norm

    try:
        found: jax.Array = rms_norm(x.reshape(-1, x.shape[-1]), weight, eps=eps, BM=1, backend="cpu")
    except BackendError as error:
        _say_once(str(error))
        return None
    return found.reshape(x.shape)


def native_layer_norm(x: jax.Array, weight: jax.Array, bias: jax.Array, eps: float) -> jax.Array | None:
    """LayerNorm of x (..., dim) by a native kernel, 2 to 5 times XLA's speed, or None to do it portably."""
    floats = x.dtype == weight.dtype == bias.dtype == jnp.float32
    if not floats or x.size < NATIVE_NORMED or x.shape[-1] < NATIVE_COLUMNS or not native_wanted():
        return None
    from dsl import BackendError
    from dsl.kernels.norm import layer_norm

    try:
        found: jax.Array = layer_norm(x.reshape(-1, x.shape[-1]), weight, bias, eps=eps, backend="cpu")
    except BackendError as error:
        _say_once(str(error))
        return None
    return found.reshape(x.shape)


def native_attention(q: jax.Array, k: jax.Array, v: jax.Array, scale: float | None) -> jax.Array | None:
    """Attention without mask or bias, each (batch, tokens, heads, dim), by a native flash kernel whose scores
    are never all there, or None to do it portably."""
    batch, queries, heads, _ = q.shape
    keys, floats = k.shape[1], q.dtype == k.dtype == v.dtype == jnp.float32
    few = keys < NATIVE_KEYS or batch * heads * queries * keys < NATIVE_SCORES
    if few or not floats or not native_wanted():
        return None
    from dsl import BackendError
    from dsl.kernels.attention import flash_attention

    apart = [x.transpose(0, 2, 1, 3) for x in (q, k, v)]
    try:
        found: jax.Array = flash_attention(*apart, causal=False, scale=scale, BM=64, BN=64, backend="cpu")
    except BackendError as error:
        _say_once(str(error))
        return None
    return found.transpose(0, 2, 1, 3)


@contextmanager
def portable() -> Iterator[None]:
    """What is traced inside runs on XLA alone: for programs over several devices, which XLA must divide."""
    before = _portable.set(True)
    try:
        yield
    finally:
        _portable.reset(before)


def native_wanted() -> bool:
    """Whether native kernels are to be used: on a CPU, unless `TARSIA_OPS=xla` or inside `portable()`."""
    forced = _portable.get() or os.environ.get("TARSIA_OPS", "") == "xla"
    return not forced and jax.default_backend() == "cpu"


@functools.cache
def _say_once(reason: str) -> None:
    _log.warning("products, norms and attention run on XLA, more slowly: %s", reason)

"""Which implementation an op runs on: native kernels of `dsl` where they win, portable XLA elsewhere.

`TARSIA_OPS=xla` forces the portable path. A processor without a C++ compiler, or a kernel that fails its
check, takes the portable path too; that is said once in the log.
"""

import functools
import logging
import os

import jax
import jax.numpy as jnp

from engine.ops.quant import QTensor

NATIVE_ROWS = 16
"""Rows of x up to which the native product is used: a decode step's. It reads each weight once for four
rows; a prompt's many rows share XLA's expansion."""
NATIVE_ELEMENTS = 1 << 16
"""Weights from which a kernel is compiled for a shape: below, a product takes microseconds either way."""
NATIVE_COLUMNS = 96
"""Columns from which a norm is native, for the same reason."""
_log = logging.getLogger(__name__)


def native_quantized(x: jax.Array, w: QTensor) -> jax.Array | None:
    """x (rows, groups * 32) times w^T by a native kernel -> (rows, out), or None to do it portably."""
    small = w.shape[0] * w.in_features < NATIVE_ELEMENTS
    if small or x.shape[0] > NATIVE_ROWS or x.dtype != jnp.float32 or not native_wanted():
        return None
    from dsl import BackendError, Packed
    from dsl.kernels.quant_linear import int4_linear, int8_linear

    values = w.values.reshape(w.values.shape[0], -1)
    try:
        if w.minimum is None:
            found: jax.Array = int8_linear(x, values, w.scale, backend="cpu")
        else:
            found = int4_linear(x, Packed(values, "u4"), w.scale, w.minimum, backend="cpu")
    except BackendError as error:
        _say_once(str(error))
        return None
    return found


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


def native_wanted() -> bool:
    """Whether native kernels are to be used: on a CPU, unless `TARSIA_OPS=xla`."""
    return os.environ.get("TARSIA_OPS", "") != "xla" and jax.default_backend() == "cpu"


@functools.cache
def _say_once(reason: str) -> None:
    _log.warning("quantised products and norms run on XLA, more slowly: %s", reason)

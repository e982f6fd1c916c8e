"""`linear`: x @ w.T + b, for float and for quantised weights.

Weights are (out, in), the layout of checkpoints and the fast one for a CPU's matrix-vector product.
"""

import jax
import jax.numpy as jnp

from engine.ops.dispatch import native_product
from engine.ops.quant import GROUP, QTensor
from engine.ops.quant_product import product


def linear(x: jax.Array, w: jax.Array | QTensor, b: jax.Array | None = None) -> jax.Array:
    """x (..., in), w (out, in), b (out,) -> (..., out). Differentiable in x, w's floats and b.

    With w of bf16 or f16, x is rounded to that and the sums are float32, as is the result.
    """
    if isinstance(w, QTensor):
        y = _quantized(x.reshape(-1, x.shape[-1]), w).reshape(*x.shape[:-1], w.shape[0])
    else:
        y = _dot(x, w)
    return y if b is None else y + b


def _dot(x: jax.Array, w: jax.Array) -> jax.Array:
    over: jax.lax.DotDimensionNumbers = (((x.ndim - 1,), (1,)), ((), ()))
    return jax.lax.dot_general(x.astype(w.dtype), w, over, preferred_element_type=jnp.float32)


def _quantized(x: jax.Array, w: QTensor) -> jax.Array:
    """(rows, in) -> (rows, out), natively for a few rows, else by XLA."""
    padding = w.scale.shape[1] * GROUP - w.in_features
    x = jnp.pad(x, ((0, 0), (0, padding)))
    found = native_product(x, w)
    return product(x, w) if found is None else found

"""Scaled dot-product attention with grouped queries: the portable reference, in jnp."""

import jax
import jax.numpy as jnp
import numpy as np

_MASKED = float(np.finfo(np.float32).min)


def attention(
    q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None = None, *, scale: float | None = None
) -> jax.Array:
    """softmax(q k^T * scale) v.

    Args:
        q: (batch, queries, heads, dim).
        k, v: (batch, keys, kv_heads, dim), where kv_heads divides heads: query head h reads the
            key-value head h // (heads // kv_heads).
        mask: bool (batch, queries, keys) or broadcastable to it; True may be attended to. A query
            with no True at all gets the plain mean of v: finite, never NaN.
        scale: dim ** -0.5 unless given.

    Returns:
        (batch, queries, heads, dim).
    """
    batch, queries, heads, dim = q.shape
    kv_heads = k.shape[2]
    grouped = q.reshape(batch, queries, kv_heads, heads // kv_heads, dim)
    grouped = grouped * (dim**-0.5 if scale is None else scale)
    scores = jnp.einsum("btkgd,bskd->bkgts", grouped, k)
    if mask is not None:
        scores = jnp.where(mask[:, None, None], scores, _MASKED)
    weights = jax.nn.softmax(scores, axis=-1)
    return jnp.einsum("bkgts,bskd->btkgd", weights, v).reshape(batch, queries, heads, dim)


def causal_mask(query_positions: jax.Array, keys: int) -> jax.Array:
    """True where key index <= query position: Int (batch, queries) -> bool (batch, queries, keys)."""
    return jnp.arange(keys) <= query_positions[..., None]

"""Scaled dot-product attention with grouped queries: a native kernel for many keys, else in jnp."""

import jax
import jax.numpy as jnp
import numpy as np

from engine.ops.activations import softcap as capped
from engine.ops.dispatch import native_attention

_MASKED = float(np.finfo(np.float32).min)


def attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: jax.Array | None = None,
    *,
    scale: float | None = None,
    bias: jax.Array | None = None,
    softcap: float | None = None,
) -> jax.Array:
    """softmax(q k^T * scale + bias) v.

    Args:
        q: (batch, queries, heads, dim).
        k, v: (batch, keys, kv_heads, dim), where kv_heads divides heads: query head h reads the
            key-value head h // (heads // kv_heads).
        mask: bool (batch, queries, keys) or broadcastable to it; True may be attended to. A query
            with no True at all gets the plain mean of v: finite, never NaN.
        scale: dim ** -0.5 unless given.
        bias: (heads, queries, keys), added to the scaled scores.
        softcap: scores are limited smoothly to (-softcap, softcap) before bias and mask.

    Returns:
        (batch, queries, heads, dim).
    """
    if mask is None and bias is None and softcap is None:
        found = native_attention(q, k, v, scale)
        if found is not None:
            return found
    batch, queries, heads, dim = q.shape
    kv_heads, keys = k.shape[2], k.shape[1]
    groups = heads // kv_heads
    # Heads before positions: XLA's CPU code is three times slower when a dot has to find them apart.
    grouped = q.reshape(batch, queries, kv_heads, groups, dim).transpose(0, 2, 3, 1, 4)
    grouped = grouped.reshape(batch, kv_heads, groups * queries, dim) * (
        dim**-0.5 if scale is None else scale
    )
    scores = jnp.einsum("bkqd,bksd->bkqs", grouped, k.transpose(0, 2, 1, 3))
    if softcap is not None:
        scores = capped(scores, softcap)
    if bias is not None:
        scores = scores + bias.reshape(kv_heads, groups * queries, keys)
    if mask is not None:
        apart = scores.reshape(batch, kv_heads, groups, queries, keys)
        scores = jnp.where(mask[:, None, None], apart, _MASKED).reshape(scores.shape)
    # The sum divides the result and not the weights, which are more: a third off XLA's time in batches.
    weights = jnp.exp(scores - jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True)))
    out = jnp.einsum("bkqs,bksd->bkqd", weights, v.transpose(0, 2, 1, 3))
    out = out / jnp.sum(weights, axis=-1, keepdims=True)
    out = out.reshape(batch, kv_heads, groups, queries, dim)
    return out.transpose(0, 3, 1, 2, 4).reshape(batch, queries, heads, dim)


def attention_weights(q: jax.Array, k: jax.Array) -> jax.Array:
    """softmax(q k^T / sqrt(dim)): what each query looks at, without grouped heads or a mask.

    q (batch, queries, heads, dim), k (batch, keys, heads, dim) -> (batch, heads, queries, keys).
    """
    return jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q * q.shape[-1] ** -0.5, k), axis=-1)


def causal_mask(query_positions: jax.Array, keys: int, window: int | None = None) -> jax.Array:
    """True where a query may look: Int (batch, queries) -> bool (batch, queries, keys).

    A query sees its own position and those before it; with a window, only the last `window` of them.
    """
    at, positions = jnp.arange(keys), query_positions[..., None]
    seen = at <= positions
    return seen if window is None else seen & (at > positions - window)

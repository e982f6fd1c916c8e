"""Attention over keys and values that lie in blocks of a pool, found through tables of blocks.

Keys are (blocks, kv_heads, dim, size) and values (blocks, kv_heads, size, dim). A decode step runs on the
DSL's kernel where it can, which walks a row's table up to its true length; elsewhere XLA gathers the
blocks first. On a CPU the kernel is 2 to 7 times faster, and its result for a row has the same bits
whatever the other rows are.
"""

import functools
import logging
from functools import partial

import jax
import jax.numpy as jnp

from engine.ops.activations import softcap as capped
from engine.ops.attention import causal_mask
from engine.ops.dispatch import native_wanted

_MASKED = -1e30
_log = logging.getLogger(__name__)


def paged_attention(
    q: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    tables: jax.Array,
    lengths: jax.Array,
    window: int | None = None,
    softcap: float | None = None,
) -> jax.Array:
    """One query a row: q (rows, heads, dim) over the first lengths [rows] positions of tables [rows, W].

    Returns (rows, heads, dim). With `window`, only the last `window` positions are seen; with
    `softcap`, scores are limited smoothly to (-softcap, softcap), which the kernel does not do.
    """
    if softcap is None and keys.dtype == jnp.float32 and walks_tables():
        from dsl.kernels.paged import paged_decode_attention

        found: jax.Array = paged_decode_attention(
            q, keys, values, tables, lengths, window=window, backend="cpu"
        )
        return found
    gathered: jax.Array = cached_attention(
        q[:, None], keys, values, tables, lengths[:, None] - 1, window, softcap
    )
    return gathered[:, 0]


@partial(jax.jit, static_argnums=(5, 6))
def cached_attention(
    q: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    tables: jax.Array,
    positions: jax.Array,
    window: int | None = None,
    softcap: float | None = None,
) -> jax.Array:
    """The portable reference: q (rows, queries, heads, dim) at positions Int (rows, queries) -> as q.

    Products take what the keys are, f32 or bf16, and sum in f32. A query sees its own position and those
    before it; what lies after a row's last query does not matter, whatever it holds. A jit of its own, so
    that it is traced once and not once a layer.
    """
    rows, queries, heads, dim = q.shape
    kv_heads = keys.shape[1]
    group = heads // kv_heads
    keys = keys[tables].transpose(0, 2, 3, 1, 4).reshape(rows, kv_heads, dim, -1)
    values = values[tables].transpose(0, 2, 1, 3, 4).reshape(rows, kv_heads, -1, dim)
    written = jnp.arange(keys.shape[3]) <= positions.max(axis=1, keepdims=True)
    values = jnp.where(written[:, None, :, None], values, 0)
    grouped = q.reshape(rows, queries, kv_heads, group, dim).transpose(0, 2, 3, 1, 4) * dim**-0.5
    scores = _product(grouped.reshape(rows, kv_heads, group * queries, dim), keys)
    if softcap is not None:
        scores = capped(scores, softcap)
    scores = scores.reshape(rows, kv_heads, group, queries, -1)
    seen = causal_mask(positions, keys.shape[3], window)
    weights = jax.nn.softmax(jnp.where(seen[:, None, None], scores, _MASKED), axis=-1)
    out = _product(weights.reshape(rows, kv_heads, group * queries, -1), values)
    out = out.reshape(rows, kv_heads, group, queries, dim).transpose(0, 3, 1, 2, 4)
    return out.reshape(rows, queries, heads, dim)


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a.astype(b.dtype), b, preferred_element_type=jnp.float32)


def walks_tables() -> bool:
    """Whether `paged_attention` runs on the native kernel here: on a CPU with a C++ compiler."""
    return native_wanted() and _kernel_works()


@functools.cache
def _kernel_works() -> bool:
    """Compiles the kernel once in a process, for a tiny shape."""
    from dsl import BackendError
    from dsl.kernels.paged import paged_decode_attention

    pool, row = jnp.zeros((1, 1, 32, 32)), jnp.zeros((1, 1, 32))
    try:
        paged_decode_attention(
            row, pool, pool, jnp.zeros((1, 1), jnp.int32), jnp.ones(1, jnp.int32), backend="cpu"
        )
    except BackendError as error:
        _log.warning("attention of decode steps runs on XLA, more slowly: %s", error)
        return False
    return True

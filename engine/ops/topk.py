"""Exact top-k in two levels: the best of each block, then the best of those."""

import jax
import jax.numpy as jnp

_BLOCK = 4096


def top_k(scores: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """The k highest of each row, best first: float (rows, n) -> values (rows, k), indices int32 (rows, k).

    Equal scores come in order of index. NaN counts as -inf. Requires 0 <= k <= n.
    """
    rows, count = scores.shape
    if not 0 <= k <= count:
        raise ValueError(f"k must be in [0, {count}], not {k}")
    scores = jnp.where(jnp.isnan(scores), -jnp.inf, scores)
    if count <= 2 * _BLOCK or k > _BLOCK // 8:
        values, indices = jax.lax.top_k(scores, k)
        return values, indices
    blocks = -(-count // _BLOCK)
    padded = jnp.pad(scores, ((0, 0), (0, blocks * _BLOCK - count)), constant_values=-jnp.inf)
    best, local = jax.lax.top_k(padded.reshape(rows, blocks, _BLOCK), k)
    # Candidates stay in index order among equals, and padding comes last, so ties keep their order.
    index = local + (jnp.arange(blocks, dtype=jnp.int32) * _BLOCK)[None, :, None]
    values, place = jax.lax.top_k(best.reshape(rows, -1), k)
    return values, jnp.take_along_axis(index.reshape(rows, -1), place, axis=1)

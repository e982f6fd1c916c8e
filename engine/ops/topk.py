"""Exact top-k in levels: the best of each block, or on accelerators the groups that hold the best."""

import jax
import jax.numpy as jnp

_BLOCK = 4096
_GROUP = 128


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
    if jax.default_backend() != "cpu":
        return by_groups(scores, k)
    blocks = -(-count // _BLOCK)
    padded = jnp.pad(scores, ((0, 0), (0, blocks * _BLOCK - count)), constant_values=-jnp.inf)
    best, local = jax.lax.top_k(padded.reshape(rows, blocks, _BLOCK), k)
    # Candidates stay in index order among equals, and padding comes last, so ties keep their order.
    index = local + (jnp.arange(blocks, dtype=jnp.int32) * _BLOCK)[None, :, None]
    values, place = jax.lax.top_k(best.reshape(rows, -1), k)
    return values, jnp.take_along_axis(index.reshape(rows, -1), place, axis=1)


def by_groups(scores: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """`top_k` of scores without NaN, by few passes over them: sorting is what accelerators are slow at.

    The k best lie in the k groups of 128 neighbours whose best are best (of equal ones the first): k others
    would each hold one that comes before anything in the group left out.
    """
    rows, count = scores.shape
    if count <= max(2 * _BLOCK, k * _GROUP):
        values, indices = jax.lax.top_k(scores, k)
        return values, indices
    groups = -(-count // _GROUP)
    padded = jnp.pad(scores, ((0, 0), (0, groups * _GROUP - count)), constant_values=-jnp.inf)
    grouped = padded.reshape(rows, groups, _GROUP)
    # In order of index, so that equal scores stay in it.
    chosen = jnp.sort(by_groups(jnp.max(grouped, axis=2), k)[1], axis=1)
    candidates = jnp.take_along_axis(grouped, chosen[:, :, None], axis=1).reshape(rows, -1)
    index = (chosen[:, :, None] * _GROUP + jnp.arange(_GROUP, dtype=jnp.int32)).reshape(rows, -1)
    values, place = jax.lax.top_k(candidates, k)
    return values, jnp.take_along_axis(index, place, axis=1)

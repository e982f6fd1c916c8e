"""Best-first search of a graph in JAX alone: the twin of `kernels.traverse`, with its arguments.

For machines without numba, and the reference in tests. One query at a time within one program: many in
step with each other are slower, as all wait for the longest. Nodes already seen are told by the pool
alone; a set of them, which numba keeps, costs more here than measuring some nodes again. There is no
prefilter by bits.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
_SEEDS = 2
_MOST_QUERIES = 64


def search_graph(
    vectors: Float32,
    codes: NDArray[np.int8],
    bits: NDArray[np.uint64],
    facts: Float32,
    graph: Int32,
    entries: Int32,
    entry_codes: NDArray[np.int8],
    allowed: NDArray[np.uint8],
    queries: Float32,
    rotated: Float32,
    scale: np.float32,
    deviations: np.float32,
    squared: bool,
    ef: int,
    ranked: int,
    visited: NDArray[np.uint64],
    out_ids: Int32,
    out_scores: Float32,
    counts: NDArray[np.int64],
) -> None:
    """`kernels.traverse.search_graph`; `bits`, `deviations` and `visited` are not used."""
    _search_all(
        vectors, codes, facts, graph, entries, entry_codes, allowed,
        queries, rotated / scale, squared, ef, ranked, out_ids, out_scores, counts,
    )  # fmt: skip


def _search_all(
    vectors: Float32,
    codes: NDArray[np.int8] | NDArray[np.uint32],
    facts: Float32,
    graph: Int32,
    entries: Int32,
    entry_codes: NDArray[np.int8] | NDArray[np.uint32],
    allowed: NDArray[np.uint8],
    queries: Float32,
    rotated: Float32,
    squared: bool,
    ef: int,
    ranked: int,
    out_ids: Int32,
    out_scores: Float32,
    counts: NDArray[np.int64],
) -> None:
    """Searches by codes (n, width), or by 1-bit rows (n, words); some queries in one program."""
    for start in range(0, len(queries), _MOST_QUERIES):
        part = slice(start, start + _MOST_QUERIES)
        found = _search(
            *(vectors, codes, facts, graph, entries, entry_codes, allowed),
            *(_padded(queries[part]), _padded(rotated[part])),
            squared=squared,
            ef=ef,
            ranked=ranked,
            k=out_ids.shape[1],
        )
        size = len(queries[part])
        out_scores[part], out_ids[part] = (np.asarray(array)[:size] for array in found[:2])
        expanded, measured = (int(np.asarray(array)[:size].sum()) for array in found[2:])
        counts += (expanded, measured, measured)


def search_bits(
    vectors: Float32,
    bits: NDArray[np.uint64],
    facts: Float32,
    graph: Int32,
    entries: Int32,
    allowed: NDArray[np.uint8],
    queries: Float32,
    rotated: Float32,
    squared: bool,
    descriptor: int,
    ef: int,
    ranked: int,
    visited: NDArray[np.uint64],
    out_ids: Int32,
    out_scores: Float32,
    counts: NDArray[np.int64],
) -> None:
    """`kernels.disk.search_bits`: the mapped vectors are read as they are needed."""
    words = bits.view(np.uint32)
    _search_all(
        vectors, words, facts, graph, entries, words[entries], allowed,
        queries, rotated, squared, ef, ranked, out_ids, out_scores, counts,
    )  # fmt: skip


def _padded(queries: Float32) -> Float32:
    """Some power of two of queries: a program is compiled for a number of them."""
    size = 1 << (len(queries) - 1).bit_length()
    return np.concatenate([queries, np.zeros((size - len(queries), queries.shape[1]), np.float32)])


@partial(jax.jit, static_argnames=("squared", "ef", "ranked", "k"))
def _search(
    vectors: jax.Array,
    codes: jax.Array,
    facts: jax.Array,
    graph: jax.Array,
    entries: jax.Array,
    entry_codes: jax.Array,
    allowed: jax.Array,
    queries: jax.Array,
    rotated: jax.Array,
    *,
    squared: bool,
    ef: int,
    ranked: int,
    k: int,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Scores (q, k), nodes (q, k), nodes expanded (q,) and measured (q,)."""
    filtered, bias = len(allowed) > 0, rotated.shape[1] // 32 + 2
    seeds = min(_SEEDS, len(entries), ef)

    def nearness(query: jax.Array, rows: jax.Array, ids: jax.Array) -> jax.Array:
        near = _estimates(rows, query) if rows.dtype == jnp.uint32 else rows.astype(jnp.float32) @ query
        return near - facts[ids, bias] if squared else near

    def passing(ids: jax.Array, near: jax.Array) -> jax.Array:
        return jnp.where(allowed[ids] > 0, near, -jnp.inf) if filtered else near

    def one(pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, ...]:
        query, turned = pair
        near, places = jax.lax.top_k(nearness(turned, entry_codes, entries), seeds)
        pool = jnp.full(ef, -1, jnp.int32).at[:seeds].set(entries[places])
        pool_near = jnp.full(ef, -jnp.inf).at[:seeds].set(near)
        todo = jnp.arange(ef) < seeds
        kept = jnp.full(ranked, -1, jnp.int32)
        kept_near = jnp.full(ranked, -jnp.inf)
        if filtered:
            kept = kept.at[:seeds].set(entries[places])[:ranked]
            kept_near = kept_near.at[:seeds].set(passing(entries[places], near))[:ranked]

        def step(state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            pool, pool_near, todo, kept, kept_near, expanded, measured = state
            chosen = jnp.argmax(jnp.where(todo, pool_near, -jnp.inf))
            todo = todo & (jnp.arange(ef) != chosen)
            ids = graph[pool[chosen]]
            safe = jnp.maximum(ids, 0)
            fresh = (ids >= 0) & ~(ids[:, None] == pool[None]).any(axis=1)
            near = jnp.where(fresh, nearness(turned, codes[safe], safe), -jnp.inf)
            if filtered:
                again = (ids[:, None] == kept[None]).any(axis=1)
                counted = jnp.where(again, -jnp.inf, passing(safe, near))
                kept_near, order = jax.lax.top_k(jnp.concatenate([kept_near, counted]), ranked)
                kept = jnp.concatenate([kept, ids])[order]
            pool_near, order = jax.lax.top_k(jnp.concatenate([pool_near, near]), ef)
            pool = jnp.concatenate([pool, ids])[order]
            todo = jnp.concatenate([todo, fresh])[order]
            return pool, pool_near, todo, kept, kept_near, expanded + 1, measured + jnp.sum(fresh)

        nothing = jnp.zeros((), jnp.int32)
        state: tuple[jax.Array, ...] = (pool, pool_near, todo, kept, kept_near, nothing, nothing)
        state = jax.lax.while_loop(lambda state: jnp.any(state[2]), step, state)
        pool, pool_near, _, kept, kept_near, expanded, measured = state
        if not filtered:
            kept, kept_near = pool[:ranked], pool_near[:ranked]
        rows = vectors[jnp.maximum(kept, 0)]
        exact = -jnp.sum((rows - query) ** 2, axis=1) if squared else rows @ query
        scores, order = jax.lax.top_k(jnp.where(kept_near > -jnp.inf, exact, -jnp.inf), k)
        return scores, jnp.where(scores > -jnp.inf, kept[order], -1), expanded, measured

    found: tuple[jax.Array, jax.Array, jax.Array, jax.Array] = jax.lax.map(one, (queries, rotated))
    return found


def _estimates(rows: jax.Array, query: jax.Array) -> jax.Array:
    """`codec.rabitq.estimate`'s inner products of rows (m, words) with a query (width,)."""
    words = len(query) // 32
    signs = (rows[:, :words, None] >> jnp.arange(32, dtype=jnp.uint32)) & 1
    sums = signs.reshape(len(rows), -1).astype(jnp.float32) @ query - jnp.sum(query) / 2
    return sums * jax.lax.bitcast_convert_type(rows[:, words], jnp.float32)


def scan_nodes(
    vectors: Float32,
    codes: NDArray[np.int8],
    facts: Float32,
    nodes: Int32,
    queries: Float32,
    rotated: Float32,
    scale: np.float32,
    squared: bool,
    ranked: int,
    out_ids: Int32,
    out_scores: Float32,
) -> None:
    """`kernels.traverse.scan_nodes`, by the vectors themselves."""
    rows = vectors[nodes]
    for number, query in enumerate(queries):
        scores = -np.square(rows - query).sum(axis=1) if squared else rows @ query
        best = np.argsort(-scores, kind="stable")[: out_ids.shape[1]]
        out_ids[number], out_scores[number] = -1, -np.inf
        out_ids[number, : len(best)], out_scores[number, : len(best)] = nodes[best], scores[best]

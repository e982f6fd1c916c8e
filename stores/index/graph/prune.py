"""Choosing neighbours in JAX alone: the twin of `kernels.prune`, with its arguments and its results."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
_NODES = 64
_RELAXED = np.float32(1.2)
_EDGES = 1 << 16


def prune_rows(
    codes: NDArray[np.int8],
    squares: Float32,
    candidates: Int32,
    counts: Int32,
    alpha: np.float32,
    few_stay: bool,
    start: int,
    stop: int,
    graph: Int32,
) -> None:
    """`kernels.prune.prune_rows`."""
    degree, most = graph.shape[1], candidates.shape[1]
    known = np.arange(most) < counts[:, None]
    for first in range(start, stop, _NODES):
        nodes = np.arange(first, min(first + _NODES, stop))
        padded = np.resize(nodes, _NODES)
        chosen = np.asarray(
            _chosen(
                *(codes[padded], squares[padded], codes[candidates[padded] * known[padded]]),
                *(squares[candidates[padded] * known[padded]], candidates[padded], counts[padded], padded),
                alpha=float(alpha),
                degree=degree,
            )
        )
        graph[nodes] = chosen[: len(nodes)]
        if few_stay:
            few = nodes[counts[nodes] <= degree]
            kept = np.where(known[few, :degree], candidates[few, :degree], -1)
            graph[few, : kept.shape[1]] = kept
            graph[few, kept.shape[1] :] = -1


@partial(jax.jit, static_argnames=("alpha", "degree"))
def _chosen(
    own: jax.Array,
    own_squares: jax.Array,
    codes: jax.Array,
    squares: jax.Array,
    ids: jax.Array,
    counts: jax.Array,
    nodes: jax.Array,
    *,
    alpha: float,
    degree: int,
) -> jax.Array:
    """Neighbours (b, degree) of nodes (b,) from candidates (b, c) with codes (b, c, width)."""
    size, most = ids.shape

    def dots(left: jax.Array, right: jax.Array) -> jax.Array:
        # int32 sums of int8 products are exact, as they are in numba.
        return jnp.einsum("bcw,bdw->bcd", left, right, preferred_element_type=jnp.int32).astype(jnp.float32)

    distances = own_squares[:, None] + squares - 2 * dots(own[:, None], codes)[:, 0]
    distances = jnp.where(jnp.arange(most) < counts[:, None], distances, jnp.inf)
    order = jnp.argsort(distances, axis=1, stable=True)
    ids, distances, squares = (jnp.take_along_axis(array, order, 1) for array in (ids, distances, squares))
    codes = jnp.take_along_axis(codes, order[:, :, None], 1)
    between = squares[:, :, None] + squares[:, None] - 2 * dots(codes, codes)
    usable = (jnp.arange(most) < counts[:, None]) & (ids != nodes[:, None])
    later = jnp.arange(most)[None] > jnp.arange(most)[:, None]
    ratios = jnp.where(between > 0, distances[:, None] / between, 1e30)

    def visit(number: jax.Array, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        hidden, rank, taken = state
        limit, at = limits[number // most], number % most
        free = (rank[:, at] < 0) & usable[:, at] & (hidden[:, at] <= limit) & (taken < degree)
        rank = rank.at[:, at].set(jnp.where(free, taken, rank[:, at]))
        hides = free[:, None] & later[at] & (rank < 0)
        hidden = jnp.where(hides, jnp.maximum(hidden, ratios[:, at]), hidden)
        return hidden, rank, taken + free

    stages = [np.float32(1)]
    while stages[-1] < alpha:
        stages.append(min(np.float32(alpha), stages[-1] * _RELAXED))
    limits = jnp.array(stages)
    start = (jnp.zeros((size, most)), jnp.full((size, most), -1, jnp.int32), jnp.zeros(size, jnp.int32))
    _, rank, _ = jax.lax.fori_loop(0, len(stages) * most, visit, start)
    places = jnp.where(rank < 0, degree, rank)
    rows = jnp.arange(size)[:, None]
    return jnp.full((size, degree + 1), -1, jnp.int32).at[rows, places].set(ids)[:, :degree]


def add_reverse(graph: Int32, candidates: Int32, counts: Int32) -> None:
    """`kernels.prune.add_reverse`, in NumPy."""
    nodes, degree = graph.shape
    most = candidates.shape[1]
    counts[:] = (graph >= 0).sum(axis=1)
    candidates[:, :degree] = graph
    sources, targets = np.nonzero(graph >= 0)[0].astype(np.int32), graph[graph >= 0]
    alone = np.concatenate(
        [
            ~(graph[targets[at : at + _EDGES]] == sources[at : at + _EDGES, None]).any(axis=1)
            for at in range(0, len(targets), _EDGES)
        ]
    )
    sources, targets = sources[alone], targets[alone]
    order = np.argsort(targets, kind="stable")
    sources, targets = sources[order], targets[order]
    starts = np.searchsorted(targets, np.arange(nodes))
    places = counts[targets] + np.arange(len(targets)) - starts[targets]
    fits = places < most
    candidates[targets[fits], places[fits]] = sources[fits]
    np.add.at(counts, targets[fits], 1)


def merge_leaf(
    rows: Int32, scores: Float32, near: int, candidates: Int32, kept_scores: Float32, counts: Int32
) -> None:
    """`kernels.prune.merge_leaf`, in NumPy."""
    size, most = len(rows), candidates.shape[1]
    inside = scores[:size, :size]
    near = min(near, size - 1)
    places = np.argsort(-inside, axis=1, kind="stable")[:, :near]
    empty = np.arange(most) >= counts[rows, None]
    ids = np.concatenate([np.where(empty, -1, candidates[rows]), rows[places]], axis=1)
    values = np.concatenate(
        [np.where(empty, -np.inf, kept_scores[rows]), np.take_along_axis(inside, places, 1)], axis=1
    )
    # The older of two alike stays: repeats are found in order of id, where the sort is stable.
    by_id = np.argsort(ids, axis=1, kind="stable")
    sorted_ids = np.take_along_axis(ids, by_id, 1)
    repeats = np.zeros_like(ids, np.bool_)
    repeats[:, 1:] = sorted_ids[:, 1:] == sorted_ids[:, :-1]
    np.put_along_axis(values, by_id, np.where(repeats, -np.inf, np.take_along_axis(values, by_id, 1)), 1)
    best = np.argsort(-values, axis=1, kind="stable")[:, :most]
    values, ids = np.take_along_axis(values, best, 1), np.take_along_axis(ids, best, 1)
    candidates[rows], kept_scores[rows] = ids, values
    counts[rows] = (values > -np.inf).sum(axis=1)

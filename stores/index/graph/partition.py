"""Cutting rows into overlapping leaves of near ones, and an order in which near rows lie together.

Random rows are leaders; each row joins the leaves of its nearest few. Leaves that are too large are cut
again (PiPNN: "Pick-in-Partitions Nearest Neighbors", arXiv:2602.21247). All distances are products of
matrices on JAX.
"""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from stores.index.graph.points import Float32, Places, padded

Int32 = NDArray[np.int32]
LEAF_ROWS = 1024
_OVERLAP = 3
_FILL = 0.45
_CHUNK = 16_384
_DIRECT = 200_000
_CELL_ROWS = 50_000
_ORDER_LEADERS = 1024


@partial(jax.jit, static_argnames="count")
def _nearest(rows: jax.Array, leaders: jax.Array, real: jax.Array, *, count: int) -> jax.Array:
    """Indices (m, count) of the nearest of the first `real` leaders to each row, nearest first."""
    penalty = jnp.where(jnp.arange(len(leaders)) < real, jnp.sum(leaders**2, axis=1) / 2, jnp.inf)
    return jax.lax.top_k(rows @ leaders.T - penalty, count)[1]


def assign(points: Places, rows: Int32, leaders: Float32, count: int) -> Int32:
    """The nearest `count` leaders of each row: int32 (len(rows), count)."""
    # Padded to few sizes: a program is compiled for each, and cells come in any.
    room = _power(len(leaders), 8) if len(leaders) < 128 else -(-len(leaders) // 128) * 128
    placed = jnp.asarray(padded(leaders, room))
    size = min(_CHUNK, _power(len(rows), 2048))
    found = []
    for start in range(0, len(rows), size):
        part = points.take(rows[start : start + size])
        nearest = _nearest(jnp.asarray(padded(part, size)), placed, np.int32(len(leaders)), count=count)
        found.append(nearest[: len(part)])
    return np.concatenate([np.asarray(part) for part in found])


def _power(count: int, least: int) -> int:
    return max(least, 1 << (count - 1).bit_length())


def near_order(points: Places, rows: Int32, rng: np.random.Generator) -> Int32:
    """`rows` by their nearest leader, the leaders in a chain from near to near."""
    leaders = points.take(_choose(rng, rows, min(_ORDER_LEADERS, len(rows))))
    nearest = assign(points, rows, leaders, 1)[:, 0]
    rank = np.empty(len(leaders), np.int64)
    rank[_chain(leaders)] = np.arange(len(leaders))
    return rows[np.argsort(rank[nearest], kind="stable")]


def _chain(leaders: Float32) -> NDArray[np.int64]:
    """Each leader followed by the nearest that has not come yet."""
    squares = np.einsum("nd,nd->n", leaders, leaders) / 2
    likeness = leaders @ leaders.T - squares
    chain, free = [0], np.ones(len(leaders), np.bool_)
    free[0] = False
    for _ in range(len(leaders) - 1):
        chain.append(int(np.argmax(np.where(free, likeness[chain[-1]], -np.inf))))
        free[chain[-1]] = False
    return np.array(chain)


def leaves(points: Places, rng: np.random.Generator) -> Iterator[Int32]:
    """Sets of 2 to LEAF_ROWS rows that cover all rows `_OVERLAP` times or so."""
    everything = np.arange(len(points), dtype=np.int32)
    if len(everything) <= _DIRECT:
        yield from _cut(points, everything, _OVERLAP, rng)
        return
    # Leaders of all leaves at once would cost rows x leaders: first coarse cells, then leaves in each.
    cells = -(-2 * len(everything) // _CELL_ROWS)
    for cell in _balls(points, everything, cells, 2, rng):
        yield from _cut(points, cell, 2, rng)


def _cut(points: Places, rows: Int32, overlap: int, rng: np.random.Generator) -> Iterator[Int32]:
    """Leaves of `rows`: overlapping balls, those still too large split without overlap."""
    if len(rows) <= LEAF_ROWS:
        todo = [rows]
    else:
        todo = _balls(points, rows, int(len(rows) * overlap / (LEAF_ROWS * _FILL)), overlap, rng)
    while todo:
        part = todo.pop()
        if len(part) <= LEAF_ROWS:
            if len(part) > 1:
                yield part
            continue
        pieces = _balls(points, part, -(-2 * len(part) // LEAF_ROWS), 1, rng)
        if max(map(len, pieces)) > 0.9 * len(part):
            # Nearly alike rows, which leaders cannot tell apart.
            pieces = np.array_split(rng.permutation(part), -(-2 * len(part) // LEAF_ROWS))
        todo += pieces


def _balls(points: Places, rows: Int32, count: int, overlap: int, rng: np.random.Generator) -> list[Int32]:
    """Rows by leader, each with its nearest `overlap` leaders; together len(rows) * overlap."""
    count = max(2, min(count, len(rows)))
    leaders = points.take(_choose(rng, rows, count))
    nearest = assign(points, rows, leaders, min(overlap, count)).reshape(-1)
    order = np.argsort(nearest, kind="stable")
    members = rows[order // min(overlap, count)]
    return np.split(members, np.searchsorted(nearest[order], np.arange(1, count)))


def _choose(rng: np.random.Generator, rows: Int32, count: int) -> Int32:
    return np.sort(rng.choice(rows, count, replace=False))

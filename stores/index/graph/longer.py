"""Edges towards longer vectors, for inner products of vectors whose lengths differ.

A query's largest inner products are with long vectors. A graph over the lengthened space (see `codecs.frame`)
links a vector to those of about its own length, so that a search hardly climbs. Here each vector gets as
candidates those that are at least about as long and point the same way, as far as leaves of near directions
know them: leaves of all vectors, of the longer half, of the longest quarter and so on, so that long ones are
compared with long ones. The idea of levels is HNSW's, that of links by inner product Morozov and Babenko's,
"Non-metric Similarity Graphs for Maximum Inner Product Search", NeurIPS 2018.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from stores.index import kernels
from stores.index.codecs.frame import Vectors
from stores.index.graph.leaf_knn import bucket
from stores.index.graph.partition import LEAF_ROWS, Int32, leaves
from stores.index.graph.points import Float32, Points, padded

CANDIDATES = 32
_NEIGHBOURS = 16
_SLAB = 16_384
_UNEQUAL = 1.05
_ABOUT = np.float32(0.95)


def lengths(points: Points) -> Float32:
    """The length of each vector: (n,)."""
    slabs = (points.vectors[at : min(at + _SLAB, len(points))] for at in range(0, len(points), _SLAB))
    return np.concatenate([np.linalg.norm(slab, axis=1) for slab in slabs])


def unequal(lengths: Float32) -> bool:
    """Whether lengths differ so much that the longest need edges of their own."""
    return bool(lengths.max() > _UNEQUAL * np.median(lengths))


@dataclass(frozen=True)
class Directions:
    """Some `rows` of vectors as points at unit length."""

    vectors: Vectors
    rows: Int32
    lengths: Float32

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows: NDArray[np.int32] | NDArray[np.int64]) -> Float32:
        chosen = self.rows[rows]
        unit = self.vectors[chosen] / np.maximum(self.lengths[chosen], 1e-30)[:, None]
        return unit.astype(np.float32, copy=False)


def longer_neighbours(points: Points, lengths: Float32, rng: np.random.Generator) -> tuple[Int32, Int32]:
    """Candidates (n, CANDIDATES), the nearest in direction first, and how many each row has."""
    count = len(points)
    candidates, counts = np.empty((count, CANDIDATES), np.int32), np.zeros(count, np.int32)
    scores = np.empty((count, CANDIDATES), np.float32)
    by_length = np.argsort(-lengths, kind="stable").astype(np.int32)
    size = count
    while True:
        level = Directions(points.vectors, np.sort(by_length[:size]), lengths)
        for leaf in leaves(level, rng):
            rows = level.rows[leaf]
            room = bucket(len(rows))
            found = _scores(padded(level.take(leaf), room), padded(lengths[rows], room), np.int32(len(rows)))
            kernels.building().merge_leaf(rows, np.asarray(found), _NEIGHBOURS, candidates, scores, counts)
        if size <= LEAF_ROWS:
            return candidates, counts
        size //= 2


@jax.jit
def _scores(directions: jax.Array, lengths: jax.Array, count: jax.Array) -> jax.Array:
    """Cosines of each pair (m, m), -inf where the second is shorter, itself or padding."""
    places = jnp.arange(len(directions))
    known = (places[None] < count) & (places[None] != places[:, None])
    return jnp.where(
        known & (lengths[None] >= _ABOUT * lengths[:, None]), directions @ directions.T, -jnp.inf
    )


def joined(first: tuple[Int32, Int32], second: tuple[Int32, Int32]) -> tuple[Int32, Int32]:
    """Two lists of candidates as one: (n, c), counts (n,)."""
    both = np.concatenate([first[0], second[0]], axis=1)
    known = np.concatenate([_known(*first), _known(*second)], axis=1)
    order = np.argsort(~known, axis=1, kind="stable")
    return np.take_along_axis(both, order, 1), known.sum(axis=1, dtype=np.int32)


def _known(candidates: Int32, counts: Int32) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = np.arange(candidates.shape[1]) < counts[:, None]
    return found

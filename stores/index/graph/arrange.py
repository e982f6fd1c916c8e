"""The order that rows have in a segment with a graph: near ones together, repeats of a vector at the end.

A row is then its own node, neighbours are a few pages away, and a thousand copies of one vector are one
node: as nodes of their own they would have only each other for neighbours, and no way out.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stores.index.codecs.frame import Frame, Vectors, fit
from stores.index.graph.partition import Int32, near_order
from stores.index.graph.points import Points

_SLAB = 8192
_SEED = 0


@dataclass(frozen=True)
class Arrangement:
    """`order` int64 (n,): which row comes at each place. The first `nodes` are different from each other;
    each further one repeats the node in `repeats` int32 (n - nodes,), ascending."""

    frame: Frame
    order: NDArray[np.int64]
    nodes: int
    repeats: Int32


def arrange(vectors: Vectors, metric: str) -> Arrangement:
    """An order for vectors (n, dim), n at least 1. Deterministic."""
    count = len(vectors)
    frame = fit(vectors, metric)
    same = _first_alike(vectors)
    alone = same == np.arange(count)
    nodes = near_order(
        Points(vectors, frame, count), np.flatnonzero(alone).astype(np.int32), np.random.default_rng(_SEED)
    )
    place = np.empty(count, np.int32)
    place[nodes] = np.arange(len(nodes), dtype=np.int32)
    others = np.flatnonzero(~alone)
    others = others[np.argsort(place[same[others]], kind="stable")]
    return Arrangement(frame, np.concatenate([nodes, others]), len(nodes), place[same[others]])


def _first_alike(vectors: Vectors) -> NDArray[np.int64]:
    """For each row the first that has the same bytes, often itself: int64 (n,)."""
    hashes = np.concatenate([_hashes(vectors[at : at + _SLAB]) for at in range(0, len(vectors), _SLAB)])
    _, first, group = np.unique(hashes, return_index=True, return_inverse=True)
    found: NDArray[np.int64] = first[group]
    # Equal hashes of different bytes are as good as impossible; those rows then stay on their own.
    for start in range(0, len(vectors), _SLAB):
        rows = np.arange(start, min(start + _SLAB, len(vectors)))
        rows = rows[found[rows] != rows]
        if rows.size:
            unlike = (vectors[rows] != vectors[found[rows]]).any(axis=1)
            found[rows[unlike]] = rows[unlike]
    return found


def _hashes(rows: NDArray[np.float32]) -> NDArray[np.uint64]:
    words = np.ascontiguousarray(rows).view(np.uint32).astype(np.uint64)
    weights = np.random.default_rng(_SEED).integers(1, 2**63, words.shape[1], np.uint64) * 2 + 1
    # Multiplied, folded and multiplied again: a sum of products alone keeps low bits low.
    mixed = words * weights
    mixed ^= mixed >> np.uint64(29)
    found: NDArray[np.uint64] = (mixed * weights[::-1]).sum(axis=1, dtype=np.uint64)
    return found

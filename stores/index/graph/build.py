"""Building a graph by partition and matrix products, with no search: deterministic, in bounded memory.

Leaves of near rows -> each row's neighbours in its leaves (JAX) -> a bounded list per row -> pruned ->
with reverse edges, pruned again. 100,000 rows of 384 take about 30 CPU seconds.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain

import jax
import numpy as np
from numpy.typing import NDArray

from stores.index import kernels
from stores.index.codecs import rabitq
from stores.index.graph import longer
from stores.index.graph.leaf_knn import NEIGHBOURS, leaf_scores
from stores.index.graph.longer import joined, longer_neighbours, unequal
from stores.index.graph.partition import Int32, leaves
from stores.index.graph.points import Float32, Points

DEGREE = 48
ENTRIES = 256
_CANDIDATES = 64
_REVERSED = 4 * DEGREE
_ALPHA = np.float32(1.2)
_ROUNDS = 2
_CHUNK = 8192
_SEED = 1
Progress = Callable[[float], None]


@dataclass(frozen=True)
class Graph:
    """codes int8 (n, width), bits uint32 (n, words), neighbours int32 (n, degree) ended by -1, entries."""

    codes: NDArray[np.int8]
    bits: NDArray[np.uint32]
    neighbours: Int32
    entries: Int32


def build(points: Points, *, progress: Progress = lambda share: None, threads: int = 0) -> Graph:
    """A graph over rows that are different from each other, near ones together.

    `progress` gets the share done, from 0 to 1, and may raise to stop.
    """
    count = len(points)
    codes, bits = encode(points)
    squares = np.einsum("nd,nd->n", codes, codes, dtype=np.float32)
    candidates, counts = _neighbours(points, progress)
    entries = np.random.default_rng(_SEED).choice(count, min(ENTRIES, count), replace=False)
    if points.frame.metric == "dot" and unequal(lengths := longer.lengths(points)):
        rng = np.random.default_rng(_SEED)
        candidates, counts = joined((candidates, counts), longer_neighbours(points, lengths, rng))
        # Searches start among the longest too, where their answers are.
        entries[: len(entries) // 2] = np.argsort(-lengths, kind="stable")[: len(entries) // 2]
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        graph = _pruned(pool, codes, squares, candidates, counts, few_stay=False)
        progress(0.85)
        candidates = np.empty((count, _REVERSED), np.int32)
        kernels.building().add_reverse(graph, candidates, counts)
        graph = _pruned(pool, codes, squares, candidates, counts, few_stay=True)
    progress(1.0)
    return Graph(codes, bits, graph, np.unique(entries).astype(np.int32))


def encode(points: Points) -> tuple[NDArray[np.int8], NDArray[np.uint32]]:
    """int8 codes (n, width) and 1-bit rows (n, words) of all points."""
    width = points.frame.width
    codes = np.empty((len(points), width), np.int8)
    bits = np.empty((len(points), rabitq.row_words(width)), np.uint32)
    for start in range(0, len(points), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(points)), dtype=np.int32)
        rotated = points.frame.rotate(points.take(rows))
        codes[rows], bits[rows] = points.frame.encode(rotated), rabitq.encode(rotated)
    return codes, bits


def _neighbours(points: Points, progress: Progress) -> tuple[Int32, Int32]:
    """Candidates (n, _CANDIDATES), nearest first, and how many each row has."""
    total = len(points)
    candidates = np.empty((total, _CANDIDATES), np.int32)
    scores = np.empty((total, _CANDIDATES), np.float32)
    counts = np.zeros(total, np.int32)
    rng = np.random.default_rng(_SEED)
    done = 0
    found = (leaf for _ in range(_ROUNDS) for leaf in leaves(points, rng))
    for rows, near in _ahead(points, found):
        kernels.building().merge_leaf(rows, np.asarray(near), NEIGHBOURS, candidates, scores, counts)
        done += len(rows)
        progress(min(0.7, 0.7 * done / (3 * _ROUNDS * total)))
    return candidates, counts


def _ahead(points: Points, found: Iterator[Int32]) -> Iterator[tuple[Int32, jax.Array]]:
    """Leaves with their scores; the next leaf is computed while one is used."""
    before = None
    for rows in chain(found, (None,)):
        started = None if rows is None else (rows, leaf_scores(points, rows))
        if before is not None:
            yield before
        before = started


def _pruned(
    pool: ThreadPoolExecutor,
    codes: NDArray[np.int8],
    squares: Float32,
    candidates: Int32,
    counts: Int32,
    *,
    few_stay: bool,
) -> Int32:
    graph = np.empty((len(codes), DEGREE), np.int32)

    def prune(start: int) -> None:
        stop = min(start + _CHUNK, len(codes))
        kernels.building().prune_rows(
            codes, squares, candidates, counts, _ALPHA, few_stay, start, stop, graph
        )

    list(pool.map(prune, range(0, len(codes), _CHUNK)))
    return graph

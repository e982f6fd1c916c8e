"""How many near nodes a search of a graph must keep: measured when it is built, on rows of its own.

Rows are easier to find than queries are, so they must be found more surely than is wanted.
"""

import numpy as np

from stores.index.graph.index import Float32, GraphIndex

# Fewer would be enough for queries like the rows; others are found much less surely then.
WIDTHS = (64, 96, 128, 192, 256, 384, 512)
K = 10
_TARGET = 0.985
_ROWS = 200
_SLAB = 16_384
_SEED = 3


def enough_ef(index: GraphIndex) -> int:
    """The least of WIDTHS that finds 98.5 % of the 10 nearest of 200 rows; the largest if none does."""
    if index.nodes <= _ROWS:
        return WIDTHS[0]
    rows = np.random.default_rng(_SEED).choice(index.nodes, _ROWS, replace=False)
    queries = np.ascontiguousarray(index.vectors[rows])
    tenth = _tenth_best(index, queries)
    for ef in WIDTHS:
        scores = index.search(queries, None, K, ef)[0]
        if np.mean(scores >= tenth[:, None] - 1e-5 * np.abs(tenth[:, None])) >= _TARGET:
            return ef
    return WIDTHS[-1]


def _tenth_best(index: GraphIndex, queries: Float32) -> Float32:
    """The exact score of the 10th best node of each query: (q,)."""
    best = np.full((len(queries), 0), -np.inf, np.float32)
    for start in range(0, index.nodes, _SLAB):
        part = index.vectors[start : min(start + _SLAB, index.nodes)]
        scores = queries @ part.T
        if index.frame.metric == "l2":
            squares = np.einsum("nd,nd->n", part, part)
            scores = 2 * scores - squares - np.einsum("qd,qd->q", queries, queries)[:, None]
        best = -np.partition(-np.concatenate([best, scores], axis=1), K - 1, axis=1)[:, :K]
    found: Float32 = best[:, -1]
    return found

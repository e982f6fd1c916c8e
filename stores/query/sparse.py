"""Inner products of sparse vectors (of SPLADE and its like) by an inverted index, exactly."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from stores.segment.sparse import decode_sparse
from stores.segment.view import Part

Float64 = NDArray[np.float64]


class Inverted:
    """For each index the rows that have it, and their weights there. Immutable, in memory, never stored."""

    def __init__(self, values: Iterable[bytes | None]) -> None:
        rows, indices, weights = [], [], []
        for row, value in enumerate(values):
            if value is not None:
                found, weight = decode_sparse(value)
                rows.append(np.full(len(found), row, np.int32))
                indices.append(found)
                weights.append(weight)
        every = np.concatenate(indices) if indices else np.zeros(0, np.uint32)
        order = np.argsort(every, kind="stable")
        self._indices, self._starts = np.unique(every[order], return_index=True)
        self._rows = np.concatenate(rows)[order] if rows else np.zeros(0, np.int32)
        self._weights = np.concatenate(weights)[order] if weights else np.zeros(0, np.float32)

    def find(self, index: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Rows, ascending, and weights."""
        at = int(np.searchsorted(self._indices, index))
        if at == len(self._indices) or self._indices[at] != index:
            return self._rows[:0], self._weights[:0]
        stop = self._starts[at + 1] if at + 1 < len(self._starts) else len(self._rows)
        return self._rows[self._starts[at] : stop], self._weights[self._starts[at] : stop]


def sparse_scores(parts: Sequence[Part], query: Mapping[int, float]) -> list[Float64]:
    """One array (rows,) per part: the inner product with the query, 0 for rows that share no index."""
    found = []
    for part in parts:
        scores = np.zeros(len(part.alive))
        inverted = part.rows.inverted()
        for index, weight in query.items():
            rows, weights = inverted.find(index)
            scores[rows] += weight * weights.astype(np.float64)
        found.append(scores)
    return found

"""The space that codes live in: vectors less their mean, rotated; a metric becomes a distance there.

    cosine, dot    distance = -<q, y>             y = rotate(x - centre), q = rotate(query)
    l2             distance = |y|^2 / 2 - <q, y>  q = rotate(query - centre)

Both order rows as the metric does: what they leave out depends on the query alone. For `dot` a vector gets
one more coordinate that makes all of one length (Bachrach et al., "Speeding up the Xbox recommender system
using a Euclidean transformation for inner-product spaces", RecSys 2014), so that near neighbours of the
longer vectors are large inner products; a query's is 0.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stores.index.codecs.rotation import padded_dim, rotation

Float32 = NDArray[np.float32]
Int8 = NDArray[np.int8]
_CLIPPED = 0.99995
_SAMPLE = 20_000


@dataclass(frozen=True)
class Frame:
    """`centre` (dim,), or (dim + 1,) for dot; `reach` is the length all get there; `scale` codes per unit."""

    metric: str
    centre: Float32
    reach: float
    scale: float

    @property
    def width(self) -> int:
        """Coordinates of a rotated vector."""
        return padded_dim(len(self.centre))

    def residuals(self, vectors: Float32) -> Float32:
        """vectors (n, dim) -> (n, len(centre)), not rotated: distances between them are those of codes."""
        lengthened = _lengthen(vectors, self.reach) if self.metric == "dot" else vectors
        found: Float32 = lengthened - self.centre
        return found

    def rotate(self, residuals: Float32) -> Float32:
        """(n, len(centre)) -> (n, width)."""
        found: Float32 = residuals @ rotation(len(self.centre))
        return found

    def queries(self, queries: Float32) -> Float32:
        """queries (q, dim) -> (q, len(centre)): once rotated, the q of the distances above."""
        if self.metric == "l2":
            moved: Float32 = queries - self.centre
            return moved
        more = len(self.centre) - queries.shape[1]
        return np.pad(queries, ((0, 0), (0, more))) if more else queries

    def encode(self, rotated: Float32) -> Int8:
        """int8 codes of (n, width)."""
        found: Int8 = np.clip(np.rint(rotated * np.float32(self.scale)), -127, 127).astype(np.int8)
        return found


class Vectors(Protocol):
    """Rows (n, dim) to take by index or slice: an array, a mapped file, or parts of several."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Float32: ...


def fit(vectors: Vectors, metric: str) -> Frame:
    """A frame for these rows (n, dim); from an even sample of them but for the longest length."""
    reach = float(np.sqrt(_longest_square(vectors))) if metric == "dot" else 0.0
    sample = vectors[:: max(1, len(vectors) // _SAMPLE)]
    if metric == "dot":
        sample = _lengthen(sample, reach)
    centre = sample.mean(axis=0, dtype=np.float64).astype(np.float32)
    spread = np.abs((sample - centre) @ rotation(len(centre)))
    largest = float(np.quantile(spread, _CLIPPED))
    return Frame(metric, centre, reach, 127 / largest if largest > 0 else 1.0)


def _longest_square(vectors: Vectors) -> float:
    pieces = (vectors[start : start + _SAMPLE] for start in range(0, len(vectors), _SAMPLE))
    return max(float(np.einsum("nd,nd->n", piece, piece).max()) for piece in pieces)


def _lengthen(vectors: Float32, reach: float) -> Float32:
    squares = np.einsum("nd,nd->n", vectors, vectors)
    missing = np.sqrt(np.maximum(np.float32(reach) ** 2 - squares, 0))
    return np.concatenate([vectors, missing[:, None]], axis=1)

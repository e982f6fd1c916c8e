"""The exact tier: every vector of a block against the query, then the best k, in one compiled step.

Rows are padded to buckets (four per octave) and cut into blocks of at most 65,536, queries and k are
padded to powers of two, so the number of programs is small and none is compiled because a row came.
Scores are `engine.ops.distance`'s; for cosine, rows and queries are unit vectors and their dot is it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from engine.ops.distance import METRICS
from engine.ops.topk import top_k
from stores.segment.columns import Bools
from stores.segment.view import ROW_BITS, Float32, Int64, Part

BLOCK_ROWS = 65_536
_LEAST_ROWS = 256
_LEAST_K = 16
_MOST_QUERIES = 256
_MOST_SENT = 4096
_KERNELS = {"cosine": "dot", "dot": "dot", "l2": "l2", "hamming": "hamming"}


def _scores(metric: str, queries: jax.Array, vectors: jax.Array) -> jax.Array:
    """float32 (q, n). Packed bits are stored in words of float32, whose value means nothing."""
    if metric == "hamming":
        as_words = partial(jax.lax.bitcast_convert_type, new_dtype=jnp.uint32)
        return METRICS[metric](as_words(queries), as_words(vectors)).astype(jnp.float32)
    return METRICS[metric](queries, vectors)


def padded_rows(count: int) -> int:
    """The least bucket that holds `count` rows: 256 * 2^i * (4, 5, 6 or 7) / 4, or whole blocks and one."""
    full, rest = divmod(count, BLOCK_ROWS)
    if rest == 0 and full:
        return count
    size = _LEAST_ROWS
    while size < rest:
        size *= 2
    quarter = size // 8
    while size > _LEAST_ROWS and size - quarter >= rest:
        size -= quarter
    return full * BLOCK_ROWS + size


def block_rows() -> int:
    """Rows of a block: those that a processor's cores share well; an accelerator takes more at a time."""
    return BLOCK_ROWS if jax.default_backend() == "cpu" else 16 * BLOCK_ROWS


def to_blocks(padded: Float32) -> list[jax.Array]:
    """Device arrays of a bucket-sized array that will never change. On a CPU they are the same memory."""
    size = block_rows()
    starts = range(0, len(padded), size)
    return [jax.device_put(padded[start : start + size], may_alias=True) for start in starts]


@partial(jax.jit, static_argnames=("metric", "k", "dims"))
def _scan(
    queries: jax.Array,
    vectors: jax.Array,
    count: jax.Array,
    allowed: jax.Array | None,
    *,
    metric: str,
    k: int,
    dims: int | None,
) -> tuple[jax.Array, jax.Array]:
    """The k best scores and rows (q, k): queries (q, dim), vectors (n, dim) of which the first `count` are
    real, allowed bool (n,) or None for all of those."""
    if dims is not None:
        queries, vectors = queries[:, :dims], vectors[:, :dims]
    # Overflow must not tie with the rows that are masked out.
    lowest = float(np.finfo(np.float32).min)
    scores = jnp.nan_to_num(_scores(metric, queries, vectors), nan=lowest, neginf=lowest)
    inside = jnp.arange(len(vectors)) < count if allowed is None else allowed
    return top_k(jnp.where(inside, scores, -jnp.inf), k)


def _power(count: int, least: int) -> int:
    return max(least, 1 << (count - 1).bit_length())


def _pad(array: NDArray[np.generic], size: int) -> NDArray[np.generic]:
    """`array` with zeros after it, to `size` rows."""
    padded = np.zeros((size, *array.shape[1:]), array.dtype)
    padded[: len(array)] = array
    return padded


@dataclass(frozen=True)
class _Scanned:
    """The best of one block, which begins at the part's row `first`, or holds its rows `chosen`."""

    part: Part
    first: int
    chosen: Int64 | None
    scores: jax.Array
    positions: jax.Array

    def places(self) -> Int64:
        rows = np.asarray(self.positions).astype(np.int64)
        if self.chosen is not None:
            rows = self.chosen[np.minimum(rows, len(self.chosen) - 1)]
        places: Int64 = rows + self.first | np.int64(self.part.rows.serial << ROW_BITS)
        return places


def _start_scans(
    queries: jax.Array, part: Part, allowed: Bools, metric: str, k: int, dims: int | None
) -> list[_Scanned]:
    """Dispatches the scans of one part without waiting for any."""

    def scan(
        first: int,
        chosen: Int64 | None,
        vectors: jax.Array,
        count: int,
        mask: NDArray[np.generic] | None = None,
    ) -> _Scanned:
        best = min(k, len(vectors))
        found = _scan(queries, vectors, np.int32(count), mask, metric=metric, k=best, dims=dims)
        return _Scanned(part, first, chosen, *found)

    size = block_rows()
    everything = allowed is part.alive and part.live_count == len(allowed)
    chosen = np.zeros(0, np.int64) if everything else np.flatnonzero(allowed)
    # Few rows are gathered; to an accelerator they would have to be sent.
    if not everything and chosen.size <= (allowed.size // 8 if size == BLOCK_ROWS else _MOST_SENT):
        if chosen.size == 0:
            return []
        vectors = jnp.asarray(_pad(part.rows.gather(chosen), _power(chosen.size, _LEAST_ROWS)))
        return [scan(0, chosen, vectors, chosen.size)]
    started = []
    for start, vectors in zip(range(0, len(allowed), size), part.rows.blocks(), strict=True):
        inside = allowed[start : start + size]
        mask = None if everything else _pad(inside, len(vectors))
        started.append(scan(start, None, vectors, len(inside), mask))
    return started


def search(
    queries: Float32,
    parts: Sequence[Part],
    allowed: Sequence[Bools],
    metric: str,
    k: int,
    dims: int | None = None,
) -> tuple[Float32, Int64]:
    """The k best living, allowed rows for each query, over all parts.

    queries (q, dim); allowed[i] bool (rows of parts[i],), already without the dead. Returns scores
    (q, m) and places (q, m), best first, m = min(k, allowed rows). A place is `segment.view.pack`'s.
    With `dims` the first coordinates alone are compared (Kusupati et al., "Matryoshka Representation
    Learning", NeurIPS 2022), for cosine by their own lengths.
    """
    wanted = min(k, sum(int(np.count_nonzero(mask)) for mask in allowed))
    if wanted == 0:
        return np.zeros((len(queries), 0), np.float32), np.zeros((len(queries), 0), np.int64)
    chunks = [
        _search_chunk(queries[start : start + _MOST_QUERIES], parts, allowed, metric, wanted, dims)
        for start in range(0, len(queries), _MOST_QUERIES)
    ]
    scores, places = zip(*chunks, strict=True)
    return np.concatenate(scores), np.concatenate(places)


def _search_chunk(
    queries: Float32,
    parts: Sequence[Part],
    allowed: Sequence[Bools],
    metric: str,
    wanted: int,
    dims: int | None,
) -> tuple[Float32, Int64]:
    padded = jnp.asarray(_pad(queries, _power(len(queries), 1)))
    k = _power(wanted, _LEAST_K)
    kernel = _KERNELS[metric] if dims is None else metric
    scanned = [
        scan
        for part, mask in zip(parts, allowed, strict=True)
        for scan in _start_scans(padded, part, mask, kernel, k, dims)
    ]
    scores = np.concatenate([np.asarray(scan.scores) for scan in scanned], axis=1)[: len(queries)]
    places = np.concatenate([scan.places() for scan in scanned], axis=1)[: len(queries)]
    best = np.argsort(-scores, axis=1, kind="stable")[:, :wanted]
    return np.take_along_axis(scores, best, 1), np.take_along_axis(places, best, 1)


def scores_of(queries: Float32, vectors: Float32, metric: str) -> Float32:
    """Scores of all pairs: queries (q, dim), vectors (n, dim) -> (q, n). For few, known rows."""
    padded = _pad(vectors, padded_rows(len(vectors)))
    return np.asarray(_score(queries, padded, metric=_KERNELS[metric]))[:, : len(vectors)]


@partial(jax.jit, static_argnames=("metric",))
def _score(queries: jax.Array, vectors: jax.Array, *, metric: str) -> jax.Array:
    return _scores(metric, queries, vectors)

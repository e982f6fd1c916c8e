"""One search over a view: filter, then vectors, words or both, then hits. It knows nothing of writing."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stores.index.dispatch import search
from stores.index.flat import scores_of
from stores.query.filters import Filter, compile_filter
from stores.query.hybrid import fuse
from stores.query.text import Float64, text_scores
from stores.segment.columns import Bools
from stores.segment.view import Float32, Int64, Part, Rows, View, pack, unpack

_LEAST_POOL = 50
_POOL_FACTOR = 4


@dataclass(frozen=True)
class Hit:
    """One row found. `score` is what the order is by, higher is better:

    - vector search: the metric's score (cosine; inner product; minus the squared distance for l2);
    - text search: BM25;
    - both: the reciprocal rank fusion of the two, between 0 and 2/61: an order, not a similarity.

    `vector_score` and `text_score` are the row's own in either part, None if that part was not asked.
    """

    id: str
    score: float
    metadata: dict[str, Any] = field(default_factory=dict)
    text: str | None = None
    vector_score: float | None = None
    text_score: float | None = None


def allowed_rows(view: View, filter: Filter | None) -> list[Bools]:
    """For each part, the living rows that the filter lets through. InvalidQuery for a bad filter."""
    if filter is None:
        return [part.alive for part in view]
    test = compile_filter(filter)
    return [part.alive & test(part.rows) for part in view]


def count_rows(view: View, filter: Filter | None) -> int:
    return sum(int(np.count_nonzero(mask)) for mask in allowed_rows(view, filter))


def search_vectors(
    view: View, queries: Float32, metric: str, k: int, filter: Filter | None
) -> list[list[Hit]]:
    """Hits for each query (q, dim), best first."""
    scores, places = search(queries, view, allowed_rows(view, filter), metric, k)
    rows = _Finder(view)
    return [
        [rows.hit(place, score, vector_score=score) for place, score in zip(*pair, strict=True)]
        for pair in zip(places.tolist(), scores.tolist(), strict=True)
    ]


def search_text(view: View, text: str, k: int, filter: Filter | None) -> list[Hit]:
    """Rows that share a word with `text`, best first."""
    scores = text_scores(view, text)
    rows = _Finder(view)
    best = _best_places(view, scores, allowed_rows(view, filter), k)
    return [rows.hit(place, score, text_score=score) for place, score in best]


def search_hybrid(
    view: View, query: Float32, text: str, metric: str, k: int, filter: Filter | None
) -> list[Hit]:
    """The fusion of both orders, each taken at least 50 deep; query (dim,)."""
    allowed = allowed_rows(view, filter)
    pool = max(_LEAST_POOL, _POOL_FACTOR * k)
    by_word = text_scores(view, text)
    _, near = search(query[None], view, allowed, metric, pool)
    worded = [place for place, _ in _best_places(view, by_word, allowed, pool)]
    fused = fuse([near[0].tolist(), worded], k)
    if not fused:
        return []
    rows = _Finder(view)
    by_vector = scores_of(query[None], rows.gather([place for place, _ in fused]), metric)[0].tolist()
    scores_by_serial = {part.rows.serial: scores for part, scores in zip(view, by_word, strict=True)}
    hits = []
    for (place, score), vector_score in zip(fused, by_vector, strict=True):
        serial, row = unpack(place)
        text_score = float(scores_by_serial[serial][row])
        hits.append(rows.hit(place, score, vector_score=vector_score, text_score=text_score))
    return hits


def _best_places(
    view: Sequence[Part], scores: Sequence[Float64], allowed: Sequence[Bools], k: int
) -> list[tuple[int, float]]:
    """The k best positive, allowed scores over all parts; equal ones in order of place."""
    found: list[tuple[int, float]] = []
    for part, score, mask in zip(view, scores, allowed, strict=True):
        rows = np.flatnonzero((score > 0) & mask)
        best: Int64 = rows[np.argsort(-score[rows], kind="stable")[:k]]
        found += [(pack(part.rows.serial, row), float(score[row])) for row in best.tolist()]
    return sorted(found, key=lambda pair: -pair[1])[:k]


class _Finder:
    """Rows of a view by their place."""

    def __init__(self, view: View) -> None:
        self._rows: dict[int, Rows] = {part.rows.serial: part.rows for part in view}

    def hit(
        self, place: int, score: float, *, vector_score: float | None = None, text_score: float | None = None
    ) -> Hit:
        serial, row = unpack(place)
        rows = self._rows[serial]
        return Hit(rows.id(row), score, rows.metadata(row), rows.text(row), vector_score, text_score)

    def gather(self, places: Sequence[int]) -> Float32:
        pairs = map(unpack, places)
        return np.concatenate([self._rows[serial].gather(np.array([row])) for serial, row in pairs])

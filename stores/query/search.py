"""One search over a view: filter, then vectors, words or both, then hits. It knows nothing of writing."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stores.index import dispatch
from stores.index.flat import scores_of
from stores.index.trace import PartTrace
from stores.query.explain import Explanation, Hit, Hits
from stores.query.filters import Filter
from stores.query.hybrid import fuse, weigh
from stores.query.masks import allowed_rows
from stores.query.recall import Shadow
from stores.query.request import Request
from stores.query.rescore import rescore
from stores.query.sparse import sparse_scores
from stores.query.text import Float64, text_scores
from stores.segment.columns import MISSING, Bools, field_value
from stores.segment.view import ROW_BITS, Described, Float32, Int64, Part, Rows, View, pack, unpack

_LEAST_POOL = 50
_POOL_FACTOR = 4
_LEAST_RESCORED = 100
_MOST_FOR_GROUPS = 16_384


@dataclass(slots=True)
class _Found:
    """A row's place and what it is ordered by."""

    place: int
    score: float
    vector_score: float | None = None
    text_score: float | None = None
    sparse_score: float | None = None


@dataclass(frozen=True)
class Tuning:
    """What a collection's searches go by: bytes that graphs may take, and recall as measured."""

    memory: int | None
    shadow: Shadow


class _Search:
    """One request against one view; what it did adds up for the explanation."""

    def __init__(self, view: View, request: Request, metric: str, tuning: Tuning) -> None:
        self.view, self.request, self.metric, self.tuning = view, request, metric, tuning
        self.rows: dict[int, Rows] = {part.rows.serial: part.rows for part in view}
        started = time.perf_counter()
        self.allowed = allowed_rows(view, request.filter)
        self.filter_seconds = time.perf_counter() - started
        self.trace: list[PartTrace] = []
        self.candidates = self.rescored = 0

    def ranked(self, depth: int) -> list[_Found]:
        """The best rows, as many as `depth`."""
        request = self.request
        pool = depth
        if request.score is not None or request.dims is not None:
            pool = request.candidates or max(_LEAST_RESCORED, _POOL_FACTOR * depth)
        found = self._first_order(max(pool, depth))
        self.candidates = len(found)
        if found and request.dims is not None and request.text is None and request.sparse is None:
            found = self._by_all_dimensions(found)
        if found and request.score is not None:
            found = self._by_function(found)
        return found[:depth]

    def _first_order(self, depth: int) -> list[_Found]:
        request = self.request
        lexical = self._lexical()
        if not lexical:
            return [_Found(place, score, vector_score=score) for place, score in self._near(depth)]
        if request.vector is None and len(lexical) == 1:
            [(name, scores)] = lexical.items()
            best = _best_places(self.view, scores, self.allowed, depth)
            return [_Found(place, score, **{name: score}) for place, score in best]
        return self._fused(lexical, depth)

    def _lexical(self) -> dict[str, list[Float64]]:
        """Scores of all rows by words and by sparse indices, as far as they are asked for."""
        request, found = self.request, {}
        if request.text is not None:
            found["text_score"] = text_scores(self.view, request.text)
        if request.sparse is not None:
            found["sparse_score"] = sparse_scores(self.view, request.sparse)
        return found

    def _near(self, depth: int) -> list[tuple[int, float]]:
        request = self.request
        assert request.vector is not None
        scores, places = dispatch.search(
            request.vector[None],
            self.view,
            self.allowed,
            self.metric,
            depth,
            ef=request.ef,
            exact=request.exact,
            dims=request.dims,
            memory=self.tuning.memory,
            widen=self.tuning.shadow.ef_factor,
            trace=self.trace,
        )
        if request.ef is None and any(part.tier not in ("flat", "codes", "matches") for part in self.trace):
            self.tuning.shadow.offer(self.view, self.allowed, request.vector, self.metric, scores[0])
        return list(zip(places[0].tolist(), scores[0].tolist(), strict=True))

    def _fused(self, lexical: dict[str, list[Float64]], depth: int) -> list[_Found]:
        """Several orders, each taken at least 50 deep, as one."""
        request = self.request
        pool = max(_LEAST_POOL, _POOL_FACTOR * depth)
        near = self._near(pool) if request.vector is not None else []
        listed = [_best_places(self.view, scores, self.allowed, pool) for scores in lexical.values()]
        if request.fusion == "rrf":
            fused = fuse([[place for place, _ in pairs] for pairs in (near, *listed)], depth)
        else:
            weight = request.text_weight if request.vector is not None else 1.0
            shares = [(weight / len(listed), dict(pairs)) for pairs in listed]
            fused = weigh([(1 - weight, dict(near)), *shares], depth)
        if not fused:
            return []
        own: list[float | None] = [None] * len(fused)
        if request.vector is not None:
            vectors = self.gather([place for place, _ in fused])
            own = scores_of(request.vector[None], vectors, self.metric)[0].tolist()
        number = {part.rows.serial: at for at, part in enumerate(self.view)}
        found = []
        for (place, score), vector_score in zip(fused, own, strict=True):
            serial, row = unpack(place)
            parts = {name: float(scores[number[serial]][row]) for name, scores in lexical.items()}
            found.append(_Found(place, score, vector_score, **parts))
        return found

    def _by_all_dimensions(self, found: list[_Found]) -> list[_Found]:
        assert self.request.vector is not None
        vectors = self.gather([one.place for one in found])
        self.rescored += len(found)
        scores = scores_of(self.request.vector[None], vectors, self.metric)[0].tolist()
        again = [
            replace(one, score=score, vector_score=score) for one, score in zip(found, scores, strict=True)
        ]
        return sorted(again, key=lambda one: -one.score)

    def _by_function(self, found: list[_Found]) -> list[_Found]:
        assert self.request.vector is not None and self.request.score is not None
        scores = rescore(
            self.request.score, self.request.vector, self.gather([one.place for one in found])
        ).tolist()
        self.rescored += len(found)
        again = [replace(one, score=score) for one, score in zip(found, scores, strict=True)]
        return sorted(again, key=lambda one: -one.score)

    def grouped(self) -> list[tuple[_Found, Any]]:
        """The best rows of the best groups: groups by their best row, rows without the field left out."""
        request = self.request
        assert request.group_by is not None
        wanted = request.offset + request.k
        living = sum(int(np.count_nonzero(mask)) for mask in self.allowed)
        depth = min(living, _POOL_FACTOR * wanted * request.group_size)
        while True:
            groups: dict[str, list[tuple[_Found, Any]]] = {}
            for one in self.ranked(depth) if depth else []:
                value = self.field(one.place, request.group_by)
                if value is not MISSING:
                    members = groups.setdefault(json.dumps(value, sort_keys=True), [])
                    members.append((one, value))
            best = list(groups.values())[:wanted]
            full = len(best) == wanted and all(len(members) >= request.group_size for members in best)
            if full or depth >= min(living, _MOST_FOR_GROUPS):
                return [pair for members in best[request.offset :] for pair in members[: request.group_size]]
            depth = min(living, _MOST_FOR_GROUPS, 4 * depth)
            self.trace.clear()

    def field(self, place: int, name: str) -> Any:
        serial, row = unpack(place)
        return field_value(self.rows[serial].metadata(row), name)

    def gather(self, places: Sequence[int]) -> Float32:
        """Vectors (n, dim)."""
        array = np.fromiter(places, np.int64)
        serials, rows = array >> 32, array & 0xFFFFFFFF
        first = np.unique(serials)
        if len(first) == 1:
            return self.rows[int(first[0])].gather(rows)
        made: Float32 | None = None
        for serial in first.tolist():
            inside = serials == serial
            vectors = self.rows[serial].gather(rows[inside])
            made = np.empty((len(array), vectors.shape[1]), np.float32) if made is None else made
            made[inside] = vectors
        assert made is not None
        return made

    def hits(self, found: Sequence[_Found], groups: Sequence[Any] | None = None) -> Hits:
        about = described(self.rows, np.array([one.place for one in found], np.int64))
        return Hits(
            Hit(*(id, one.score, metadata, text, one.vector_score, one.text_score, one.sparse_score, group))
            for one, (id, metadata, text), group in zip(
                found, about, groups or [None] * len(found), strict=True
            )
        )

    def explanation(self, seconds: float) -> Explanation:
        return Explanation(
            parts=tuple(self.trace),
            rows=sum(part.live_count for part in self.view),
            allowed=sum(int(np.count_nonzero(mask)) for mask in self.allowed),
            candidates=self.candidates,
            rescored=self.rescored,
            filter_milliseconds=1e3 * self.filter_seconds,
            search_milliseconds=sum(part.milliseconds for part in self.trace),
            milliseconds=1e3 * seconds,
        )


def run(view: View, request: Request, metric: str, tuning: Tuning, *, explain: bool) -> Hits:
    """Hits of one request, best first."""
    started = time.perf_counter()
    search = _Search(view, request, metric, tuning)
    if request.group_by is not None:
        pairs = search.grouped()
        hits = search.hits([one for one, _ in pairs], [group for _, group in pairs])
    else:
        found = search.ranked(request.offset + request.k)
        hits = search.hits(found[request.offset :])
    if explain:
        hits.explanation = search.explanation(time.perf_counter() - started)
    return hits


def run_batch(
    view: View,
    queries: Float32,
    metric: str,
    k: int,
    filter: Filter | None,
    tuning: Tuning,
    *,
    ef: int | None,
    exact: bool,
) -> list[Hits]:
    """Hits for each query (q, dim), best first."""
    allowed = allowed_rows(view, filter)
    widen = tuning.shadow.ef_factor
    scores, places = dispatch.search(
        queries, view, allowed, metric, k, ef=ef, exact=exact, memory=tuning.memory, widen=widen
    )
    rows = {part.rows.serial: part.rows for part in view}
    about = iter(described(rows, places.ravel()))
    return [
        Hits(
            Hit(id, score, metadata, text, score)
            for score, (id, metadata, text) in zip(line, about, strict=False)
        )
        for line in scores.tolist()
    ]


def described(rows: Mapping[int, Rows], places: Int64) -> list[Described]:
    """Id, metadata and text at each place, source by source: that is faster than row by row."""
    serials, numbers = places >> ROW_BITS, places & ((1 << ROW_BITS) - 1)
    sources = np.unique(serials).tolist()
    if len(sources) == 1:
        return rows[sources[0]].described(numbers.tolist())
    found = np.empty(len(places), object)
    for serial in sources:
        inside = np.flatnonzero(serials == serial)
        for at, about in zip(inside.tolist(), rows[serial].described(numbers[inside].tolist()), strict=True):
            found[at] = about
    made: list[Described] = found.tolist()
    return made


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

"""Recall as it is, and not as hoped for: some queries are answered a second time, exactly, in the background.

The share of rows found that are as good as the k-th best of all is recall@k. An interval comes with it
(Wilson, "Probable inference, the law of succession, and statistical inference", 1927). Where it says that
recall is too low, searches keep more near rows from then on.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np

from stores.index import flat
from stores.segment.columns import Bools
from stores.segment.view import Float32, Part

TARGET = 0.95
_REMEMBERED = 1000
_LEAST_QUERIES = 30
_Z = 1.96
_WIDER = 1.5
_MOST_FACTOR = 8.0
_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Recall:
    """recall@k of the `queries` measured last, with its interval of 95 %; `ef_factor` is how much wider than
    usual searches are because of it, and `advice` what to do if that is not enough."""

    recall: float
    low: float
    high: float
    queries: int
    ef_factor: float

    @property
    def advice(self) -> str | None:
        if self.high >= TARGET or self.queries < _LEAST_QUERIES:
            return None
        return f"recall is below {TARGET}: search with a larger ef=, or with exact=True"


class Shadow:
    """Measures one query in `every`. `ask` takes a job for the background. Thread-safe."""

    def __init__(self, every: int | None, ask: Callable[[Callable[[], None]], None]) -> None:
        self._every, self._ask = every, ask
        self._lock = Lock()
        self._count, self._pending = 0, False
        self._measured: deque[tuple[int, int]] = deque(maxlen=_REMEMBERED)
        self.ef_factor = 1.0

    def offer(
        self, parts: Sequence[Part], allowed: Sequence[Bools], query: Float32, metric: str, scores: Float32
    ) -> None:
        """One answered query (dim,) and the scores (k,) of what was found; measured if it is its turn."""
        with self._lock:
            self._count += 1
            if self._every is None or self._pending or self._count % self._every or not len(scores):
                return
            self._pending = True
        self._ask(lambda: self._measure(parts, allowed, query, metric, scores))

    def _measure(
        self, parts: Sequence[Part], allowed: Sequence[Bools], query: Float32, metric: str, scores: Float32
    ) -> None:
        try:
            best = flat.search(query[None], parts, allowed, metric, len(scores))[0][0]
            slack = _TOLERANCE * max(1.0, float(np.abs(best).max()))
            found = int(np.count_nonzero(scores >= best[-1] - slack))
            with self._lock:
                self._measured.append((found, len(best)))
                self._adapt()
        finally:
            self._pending = False

    def _adapt(self) -> None:
        now = self._summed()
        if now is not None and now.queries >= _LEAST_QUERIES and now.high < TARGET:
            self.ef_factor = min(_MOST_FACTOR, self.ef_factor * _WIDER)
            if self.ef_factor < _MOST_FACTOR:
                self._measured.clear()

    @property
    def recall(self) -> Recall | None:
        """None while nothing has been measured."""
        with self._lock:
            return self._summed()

    def _summed(self) -> Recall | None:
        total = sum(count for _, count in self._measured)
        if not total:
            return None
        share = sum(found for found, _ in self._measured) / total
        middle = share + _Z**2 / (2 * total)
        spread = _Z * math.sqrt(share * (1 - share) / total + _Z**2 / (4 * total**2))
        low, high = ((middle + sign * spread) / (1 + _Z**2 / total) for sign in (-1, 1))
        return Recall(share, max(0.0, low), min(1.0, high), len(self._measured), self.ef_factor)

"""Moving a collection to another model, with both spaces searchable until it is done.

Vectors of different models never mix: the rows are embedded anew into a collection beside the old one, which
goes on serving the old model's queries. A query of the new model finds rows that have been moved in the new
space; the others by a linear map from the new space to the old, fitted by least squares on rows that are in
both (as Mikolov, Le and Sutskever, "Exploiting Similarities among Languages for Machine Translation", 2013).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from threading import Lock

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stores.collection import Collection, Row
from stores.errors import InvalidQuery
from stores.index.flat import scores_of
from stores.query.explain import Hit, Hits
from stores.query.filters import Filter
from stores.rows import check_vectors, unit_rows
from stores.segment.view import Float32

SUFFIX = ".reembed"
Embed = Callable[[Sequence[str]], ArrayLike]
Progress = Callable[[int, int], None]
Finish = Callable[[Callable[[], int]], Collection]
_BATCH = 256
_MOST_PAIRS = 4096
_MOST_SCORED = 300
_RIDGE = 1e-3


class Reembedding:
    """Made by `Database.reembed`. `run` moves the rows, as often as it takes; `finish` puts the new in place.

    Thread-safe: searches and writes to the old collection go on meanwhile.
    """

    def __init__(self, old: Collection, new: Collection, embed: Embed, finish: Finish) -> None:
        self.old, self.new, self._embed, self._finish = old, new, embed, finish
        self._lock = Lock()
        self._map: Float32 | None = None
        self._line = (1.0, 0.0)

    def run(self, *, progress: Progress = lambda done, total: None) -> int:
        """Embeds what is new or has changed since; drops what is gone. Returns how many rows that were.

        `progress` gets rows done and rows there are, and may raise to stop: what is done stays done, also
        after a crash. InvalidQuery if a row has no text to embed.
        """
        moved = done = 0
        rows, total = iter(self.old), self.old.count()
        try:
            while batch := list(islice(rows, _BATCH)):
                known = self._known(batch)
                moved += self._move([row for row, there in zip(batch, known, strict=True) if not there])
                done += len(batch)
                progress(done, total)
            gone = [id for id in self.new.ids() if id not in self.old]
            self.new.delete(gone)
        finally:
            self._fit()
        return moved + len(gone)

    def _known(self, rows: Sequence[Row]) -> list[bool]:
        """Which rows are in the new collection as they are in the old."""
        there = self.new.get([row.id for row in rows])
        return [
            found is not None and (found.text, found.metadata) == (row.text, row.metadata)
            for row, found in zip(rows, there, strict=True)
        ]

    def _move(self, rows: Sequence[Row]) -> int:
        without = next((row.id for row in rows if not row.text), None)
        if without is not None:
            raise InvalidQuery(f"row {without!r} has no text to embed: add one, or delete the row")
        if rows:
            self.new.upsert(
                [row.id for row in rows],
                self._embed([row.text or "" for row in rows]),
                metadata=[row.metadata for row in rows],
                texts=[row.text for row in rows],
                sparse=[row.sparse for row in rows],
            )
        return len(rows)

    def _fit(self) -> None:
        """The map from the new space to the old: float32 (new dim, old dim), by ridge regression."""
        rows = list(islice(self.new, _MOST_PAIRS))
        before = self.old.get([row.id for row in rows])
        pairs = [(row.vector, was.vector) for row, was in zip(rows, before, strict=True) if was is not None]
        if not pairs:
            return
        new, old = (np.stack(side).astype(np.float64) for side in zip(*pairs, strict=True))
        gram = new.T @ new
        gram += _RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
        mapping = np.linalg.solve(gram, new.T @ old).astype(np.float32)
        # Scores of the two spaces differ in scale: a line from one to the other, by moved rows.
        some = slice(None, None, max(1, len(new) // _MOST_SCORED))
        line = _line(_scores_between(old[some], self.old), _scores_between(new[some], self.new))
        with self._lock:
            self._map, self._line = mapping, line

    def search(self, vector: ArrayLike, k: int = 10, *, filter: Filter | None = None) -> Hits:
        """Rows nearest to a vector (new dim,) of the new model: those moved as they are, the rest by the map.

        Scores of the rest are estimates, by the mapped query.
        """
        found = self.new.search(vector, k, filter=filter)
        with self._lock:
            mapping, (slope, shift) = self._map, self._line
        if mapping is None or self.old.count() == self.new.count():
            return found
        query = check_vectors(self.new.schema, np.asarray(vector)[None])
        mapped = unit_rows(self.old.schema, unit_rows(self.new.schema, query) @ mapping)[0]
        # Most of what the old space finds may have been moved: deep enough to be left with k.
        near = self.old.search(mapped, 4 * k, filter=filter)
        others = [replace(hit, score=slope * hit.score + shift) for hit in near if hit.id not in self.new]
        best: list[Hit] = sorted([*found, *others], key=lambda hit: -hit.score)
        return Hits(best[:k])

    def finish(self) -> Collection:
        """Moves what is left, then puts the new collection in the old one's place, under its name.

        Writers wait for the last of it. Collections that are open go on with the new rows and model.
        """
        self.run()
        return self._finish(self.run)


def _scores_between(rows: NDArray[np.float64], collection: Collection) -> Float32:
    """The collection's score of each row with every other: (n * (n - 1),)."""
    vectors = rows.astype(np.float32)
    scores = scores_of(vectors, vectors, collection.schema.metric)
    return scores[~np.eye(len(scores), dtype=np.bool_)]


def _line(before: Float32, after: Float32) -> tuple[float, float]:
    """Slope and shift that give `before` the mean and spread of `after`: high scores stay high."""
    spread = float(np.std(before))
    slope = float(np.std(after)) / spread if spread else 1.0
    return slope, float(after.mean() - slope * before.mean())

"""A collection: vectors with ids, metadata and texts, written durably and searched exactly."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from stores.errors import InvalidQuery
from stores.index.graph.build import Progress
from stores.log.records import DELETE, MAX_PAYLOAD, UPSERT
from stores.query.filters import Filter
from stores.query.search import Hit, count_rows, search_hybrid, search_text, search_vectors
from stores.rows import check_vectors, encode_ids, make_batch, unit_rows
from stores.schema import Schema
from stores.segment.batch import encode_deletion
from stores.segment.view import Float32, Rows, unpack
from stores.tree import Tree


@dataclass(frozen=True)
class Row:
    """A stored row; `vector` (dim,) is as stored: of unit length in a cosine collection."""

    id: str
    vector: Float32
    metadata: dict[str, Any]
    text: str | None


@dataclass(frozen=True)
class CollectionStats:
    """Counts now. `dead` rows wait for a merge; `maintenance_error` is why the last one was put off."""

    rows: int
    dead: int
    segments: int
    unsealed_rows: int
    log_bytes: int
    disk_bytes: int
    commits: int
    records: int
    recovered_bytes_cut: int
    maintenance_error: str | None


@dataclass(frozen=True)
class VerifyReport:
    files: int
    bytes: int
    rows: int


class Collection:
    """Made by `Database.collection`. Every method is thread-safe; readers do not wait for writers.

    >>> docs = db.collection("docs", dim=3)
    >>> docs.upsert(["a", "b"], [[1, 0, 0], [0, 1, 0]], metadata=[{"year": 2024}, {"year": 1999}])
    2
    >>> [hit.id for hit in docs.search([1, 1, 0], k=5, filter={"year": {"$gte": 2000}})]
    ['a']
    """

    def __init__(self, name: str, tree: Tree) -> None:
        self.name, self._tree = name, tree

    @property
    def schema(self) -> Schema:
        return self._tree.schema

    def upsert(
        self,
        ids: Sequence[str],
        vectors: ArrayLike,
        *,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
        texts: Sequence[str | None] | None = None,
        model: str | None = None,
    ) -> int:
        """Adds rows, or replaces them whole where an id is known; durable on return. Returns how many.

        All or nothing, whatever happens. vectors (rows, dim), finite; for cosine they are stored with
        length 1. An id twice in one batch is refused. InvalidRow names the row; DimensionMismatch,
        ModelMismatch; StoreFull and LogFailed mean that nothing was written.
        """
        schema = self.schema
        schema.require_model(self.name, model)
        batch = make_batch(schema, ids, vectors, metadata, texts)
        return self._write(UPSERT, batch.encode()) if batch.ids else 0

    def delete(self, ids: Sequence[str]) -> int:
        """Removes rows, durably; unknown ids are passed over. Returns how many there were."""
        encoded = encode_ids(ids)
        return self._write(DELETE, encode_deletion(encoded)) if encoded else 0

    def _write(self, kind: int, payload: bytes) -> int:
        if len(payload) > MAX_PAYLOAD:
            raise InvalidQuery(
                f"the batch has {len(payload) >> 20} MiB, the most is {MAX_PAYLOAD >> 20}; split it"
            )
        return self._tree.write(kind, payload)

    def search(
        self,
        vector: ArrayLike | None,
        k: int = 10,
        *,
        filter: Filter | None = None,
        text: str | None = None,
        model: str | None = None,
    ) -> list[Hit]:
        """The k best rows, best first: by `vector` (dim,), by the words of `text`, or by both fused.

        See `Hit` for what the scores are, `stores.query.filters` for filters. Vector search is exact.
        InvalidQuery, InvalidVector, DimensionMismatch, ModelMismatch.
        """
        self._check_query(k, model)
        view = self._tree.view
        if vector is None:
            if text is None:
                raise InvalidQuery("search needs a vector, a text or both")
            return search_text(view, text, k, filter)
        if np.ndim(vector) != 1:
            raise InvalidQuery("search takes one vector; use search_batch for a matrix of them")
        query = self._queries(np.asarray(vector)[None])
        if text is None:
            return search_vectors(view, query, self.schema.metric, k, filter)[0]
        return search_hybrid(view, query[0], text, self.schema.metric, k, filter)

    def search_batch(
        self, vectors: ArrayLike, k: int = 10, *, filter: Filter | None = None, model: str | None = None
    ) -> list[list[Hit]]:
        """`search` for each row of `vectors` (queries, dim), in a few large steps."""
        self._check_query(k, model)
        queries = self._queries(vectors)
        return search_vectors(self._tree.view, queries, self.schema.metric, k, filter)

    def _check_query(self, k: int, model: str | None) -> None:
        if not isinstance(k, int) or isinstance(k, bool) or k < 1:
            raise InvalidQuery(f"k must be a whole number from 1, not {k!r}")
        self.schema.require_model(self.name, model)

    def _queries(self, vectors: ArrayLike) -> Float32:
        return unit_rows(self.schema, check_vectors(self.schema, vectors))

    def get(self, ids: Sequence[str]) -> list[Row | None]:
        """The rows with these ids, in order; None for each that is not there."""
        view, places = self._tree.locate([id.decode() for id in encode_ids(ids)])
        rows = {part.rows.serial: part.rows for part in view}
        found = [None if place is None else unpack(place) for place in places]
        return [None if place is None else _row(rows[place[0]], place[1]) for place in found]

    def ids(self) -> list[str]:
        """All ids, in the order they were last written, roughly."""
        return [part.rows.id(row) for part in self._tree.view for row in np.flatnonzero(part.alive).tolist()]

    def __iter__(self) -> Iterator[Row]:
        """All rows as they are now; later writes do not show."""
        for part in self._tree.view:
            for row in np.flatnonzero(part.alive).tolist():
                yield _row(part.rows, row)

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and self._tree.locate([id])[1][0] is not None

    def count(self, *, filter: Filter | None = None) -> int:
        """Rows, or rows that satisfy the filter."""
        return count_rows(self._tree.view, filter)

    def flush(self) -> None:
        """Seals recent rows into a segment now. They are durable without it."""
        self._tree.flush()

    def compact(self, *, progress: Progress = lambda share: None) -> None:
        """Merges everything into one segment and gives the space of dead rows back.

        `progress` gets the share done, from 0 to 1; what it raises stops the work and leaves all as it was.
        """
        self._tree.compact(progress)

    def reindex(self, *, progress: Progress = lambda share: None) -> None:
        """Gives a graph to the rows written since the last one was built; those with one are left alone.

        It happens in the background as rows come; this is for now. `progress` as for `compact`.
        """
        self._tree.reindex(progress)

    def verify(self) -> VerifyReport:
        """Reads every file and checks every checksum. CorruptStore names the first damaged file."""
        files = self._tree.verify()
        return VerifyReport(len(files), sum(path.stat().st_size for path in files), self.count())

    def stats(self) -> CollectionStats:
        view, tree = self._tree.view, self._tree
        live = sum(part.live_count for part in view)
        return CollectionStats(
            rows=live,
            dead=sum(part.rows.count for part in view) - live,
            segments=len(tree.state.segments),
            unsealed_rows=tree.state.unsealed[0].count,
            log_bytes=tree.log.bytes,
            disk_bytes=tree.disk_bytes,
            commits=tree.commits,
            records=tree.records,
            recovered_bytes_cut=tree.log.cut_bytes,
            maintenance_error=tree.maintenance_error,
        )


def _row(rows: Rows, row: int) -> Row:
    return Row(rows.id(row), rows.gather(np.array([row]))[0], rows.metadata(row), rows.text(row))

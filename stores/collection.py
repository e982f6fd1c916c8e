"""A collection: vectors with ids, metadata and texts, written durably, and searched."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stores.errors import InvalidQuery
from stores.index.graph.build import Progress
from stores.log.disk import Buffer
from stores.log.records import DELETE, MAX_PAYLOAD
from stores.log.snapshot import FOLDER, Snapshot, describe
from stores.query.explain import Hits
from stores.query.filters import Filter
from stores.query.masks import allowed_rows, count_rows
from stores.query.recall import Recall
from stores.query.request import MAX_K, Fusion, Request, Score, check_count
from stores.query.search import run, run_batch
from stores.rows import as_given, encode_ids, make_batch, stored_rows
from stores.schema import Schema, check_name
from stores.segment.batch import Batch, encode_deletion
from stores.segment.columns import Bools
from stores.segment.sparse import as_mapping
from stores.segment.view import Float32, Rows, View, unpack
from stores.tree import Tree

_FIRST_RANGE = 64


@dataclass(frozen=True)
class Row:
    """A stored row; `vector` (dim,) is as stored: of unit length in a cosine collection, uint8 (dim / 8,) in
    a hamming one."""

    id: str
    vector: NDArray[Any]
    metadata: dict[str, Any]
    text: str | None
    sparse: dict[int, float] | None = None


@dataclass(frozen=True)
class CollectionStats:
    """Counts now. `dead` rows wait for a merge; `maintenance_error` is why the last one was put off;
    `recall` is measured on some of the queries that graphs answer, None before the first."""

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
    recall: Recall | None


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

    def follow(self, tree: Tree) -> None:
        """Goes on with other storage: what `Database.reembed` does when it is finished."""
        self._tree = tree

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
        sparse: Sequence[Mapping[int, float] | None] | None = None,
        model: str | None = None,
    ) -> int:
        """Adds rows, or replaces them whole where an id is known; durable on return. Returns how many.

        All or nothing, whatever happens. vectors (rows, dim), finite; for cosine they are stored with
        length 1. sparse: {index: weight} for each row, such as SPLADE gives. An id twice in one batch is
        refused. InvalidRow names the row; DimensionMismatch,
        ModelMismatch; StoreFull and LogFailed mean that nothing was written.
        """
        schema = self.schema
        schema.require_model(self.name, model)
        batch = make_batch(schema, ids, vectors, metadata, texts, sparse)
        return self._write(*batch.to_record(), batch) if batch.ids else 0

    def delete(self, ids: Sequence[str] | None = None, *, filter: Filter | None = None) -> int:
        """Removes rows, durably: those with these ids (unknown ones are passed over), or all that the filter
        lets through at that moment. Returns how many there were.
        """
        if (ids is None) == (filter is None):
            raise InvalidQuery("delete takes ids or a filter")
        if filter is not None:
            return self._tree.write_alone(DELETE, lambda: self._deletion_of(filter))
        encoded = encode_ids(ids or [])
        return self._write(DELETE, [encode_deletion(encoded)]) if encoded else 0

    def _deletion_of(self, filter: Filter) -> Sequence[Buffer] | None:
        view = self._tree.view
        ids = [
            part.rows.id(row).encode()
            for part, mask in zip(view, allowed_rows(view, filter), strict=True)
            for row in np.flatnonzero(mask).tolist()
        ]
        return [encode_deletion(ids)] if ids else None

    def _write(self, kind: int, payload: Sequence[Buffer], batch: Batch | None = None) -> int:
        size = sum(map(len, payload))
        if size > MAX_PAYLOAD:
            raise InvalidQuery(f"the batch has {size >> 20} MiB, the most is {MAX_PAYLOAD >> 20}; split it")
        return self._tree.write(kind, payload, batch)

    def search(
        self,
        vector: ArrayLike | None,
        k: int = 10,
        *,
        filter: Filter | None = None,
        text: str | None = None,
        sparse: Mapping[int, float] | None = None,
        model: str | None = None,
        offset: int = 0,
        ef: int | None = None,
        exact: bool = False,
        dims: int | None = None,
        score: Score | None = None,
        candidates: int | None = None,
        group_by: str | None = None,
        group_size: int = 1,
        fusion: Fusion = "rrf",
        text_weight: float = 0.5,
        explain: bool = False,
    ) -> Hits:
        """The k best rows, best first: by `vector` (dim,), by words of `text`, by `sparse`, or several fused.

        See `Hit` for what the scores are, `stores.query.filters` for filters.

        offset      how many of the best to pass over: pages of results.
        ef, exact   how many near rows a graph search keeps (more is slower and finds more; None is what
                    was enough for recall@10 of 0.95 when the graph was built, see `stats().recall`);
                    `exact` compares every row.
        dims        order rows by their first coordinates, then the best by all: for Matryoshka vectors.
                    Rows with a graph are searched by all at once, which is faster still.
        score       a function of (query (dim,), vectors (n, dim)) giving (n,) that JAX can compile: it orders
                    the `candidates` (default: 4 k, at least 100) that the metric found. Pass the same
                    function each time: it is compiled once.
        group_by    a metadata field (dots for nested ones): the k best groups, of each its `group_size` best
                    rows. Rows without the field are left out.
        fusion      "rrf", by ranks, or "weighted": text and sparse count `text_weight`, the
                    vector the rest.
        explain     `hits.explanation` says what was looked at, why, and how long it took.

        InvalidQuery, InvalidVector, DimensionMismatch, ModelMismatch.
        """
        self.schema.require_model(self.name, model)
        if vector is not None and np.ndim(vector) != 1:
            raise InvalidQuery("search takes one vector; use search_batch for a matrix of them")
        query = None if vector is None else self._queries(np.asarray(vector)[None])[0]
        if self.schema.metric == "hamming" and (dims is not None or score is not None):
            raise InvalidQuery("dims= and score= are for vectors of numbers, not of bits")
        request = Request(
            *(query, text, k, offset, filter, ef, exact, dims, score, candidates),
            *(group_by, group_size, fusion, text_weight, sparse),
        )
        tree = self._tree
        return run(tree.view, request, self.schema.metric, tree.tuning, explain=explain)

    def search_batch(
        self,
        vectors: ArrayLike,
        k: int = 10,
        *,
        filter: Filter | None = None,
        model: str | None = None,
        ef: int | None = None,
        exact: bool = False,
    ) -> list[Hits]:
        """`search` for each row of `vectors` (queries, dim), in a few large steps."""
        self.schema.require_model(self.name, model)
        check_count("k", k, 1, MAX_K)
        return run_batch(
            *(self._tree.view, self._queries(vectors), self.schema.metric, k, filter, self._tree.tuning),
            ef=ef,
            exact=exact,
        )

    def search_range(
        self,
        vector: ArrayLike,
        *,
        min_score: float,
        limit: int = 1000,
        filter: Filter | None = None,
        exact: bool = False,
    ) -> Hits:
        """All rows that score at least `min_score` (for l2: minus the squared radius), best first.

        At most `limit`: if there are that many hits there may be more rows.
        """
        check_count("limit", limit, 1, MAX_K)
        if not isinstance(min_score, int | float) or isinstance(min_score, bool):
            raise InvalidQuery(f"min_score must be a number, not {min_score!r}")
        k = min(limit, _FIRST_RANGE)
        while True:
            hits = self.search(vector, k, filter=filter, exact=exact)
            if len(hits) < k or hits[-1].score < min_score or k == limit:
                return Hits(hit for hit in hits if hit.score >= min_score)
            k = min(limit, 4 * k)

    def _queries(self, vectors: ArrayLike) -> Float32:
        return stored_rows(self.schema, vectors)

    def get(self, ids: Sequence[str]) -> list[Row | None]:
        """The rows with these ids, in order; None for each that is not there."""
        view, places = self._tree.locate([id.decode() for id in encode_ids(ids)])
        rows = {part.rows.serial: part.rows for part in view}
        found = [None if place is None else unpack(place) for place in places]
        return [None if place is None else _row(self.schema, rows[place[0]], place[1]) for place in found]

    def ids(self) -> list[str]:
        """All ids, in the order they were last written, roughly."""
        return [part.rows.id(row) for part in self._tree.view for row in np.flatnonzero(part.alive).tolist()]

    def __iter__(self) -> Iterator[Row]:
        """All rows as they are now; later writes do not show."""
        return self.iterate()

    def iterate(self, *, filter: Filter | None = None) -> Iterator[Row]:
        """All rows, or those that the filter lets through, as they are now; later writes do not show."""
        view = self._tree.view
        return _rows(self.schema, view, allowed_rows(view, filter))

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

    def snapshot(self, name: str) -> Snapshot:
        """Keeps the rows as they are now under a name, durably: hard links, so it takes no time and no space
        until segments are merged. It survives compaction and the dropping of the collection;
        `Database.restore` brings it back. InvalidQuery if the name is taken.
        """
        folder = self._tree.folder.parent.parent / FOLDER / self.name
        target = folder / check_name(name, "snapshot")
        if target.exists():
            raise InvalidQuery(f"{self.name!r} has a snapshot {name!r} already: delete it or name another")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._tree.snapshot(target)
        return describe(target)

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
            unsealed_rows=tree.state.unsealed_count,
            log_bytes=tree.log.bytes,
            disk_bytes=tree.disk_bytes,
            commits=tree.commits,
            records=tree.records,
            recovered_bytes_cut=tree.log.cut_bytes,
            maintenance_error=tree.maintenance_error,
            recall=tree.tuning.shadow.recall,
        )


def _rows(schema: Schema, view: View, allowed: Sequence[Bools]) -> Iterator[Row]:
    for part, mask in zip(view, allowed, strict=True):
        for row in np.flatnonzero(mask).tolist():
            yield _row(schema, part.rows, row)


def _row(schema: Schema, rows: Rows, row: int) -> Row:
    vector = as_given(schema, rows.gather(np.array([row]))[0])
    sparse = as_mapping(rows.raw_sparse[row])
    return Row(rows.id(row), vector, rows.metadata(row), rows.text(row), sparse)

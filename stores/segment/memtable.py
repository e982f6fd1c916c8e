"""The memtable: rows that are in the log and not yet in a segment, in plain arrays.

Append-only: a replaced row stays until the memtable is sealed, marked dead in the view. One writer
appends; readers hold a `MemRows`, which is the memtable up to some row.
"""

from collections.abc import Sequence
from functools import cached_property
from threading import Lock
from typing import Any

import jax
import numpy as np

from stores.index.codecs.steps import GrowingSteps, Steps
from stores.index.flat import padded_rows, to_blocks
from stores.query.postings import Postings
from stores.query.sparse import Inverted
from stores.segment.batch import Batch
from stores.segment.columns import Column, field_value
from stores.segment.jsontext import decode_metadata, decode_text
from stores.segment.view import Described, Float32, Int64

_MOST_BYTES = 64 << 20


class Memtable:
    """Rows as the log's batches bring them. `append` is for one thread at a time."""

    def __init__(self, serial: int, dim: int, capacity: int = 0) -> None:
        self.serial, self.dim = serial, dim
        self.ids: list[bytes] = []
        self.metadata: list[bytes | None] = []
        self.texts: list[bytes | None] = []
        self.sparse: list[bytes | None] = []
        # Memory that has not been written to takes no space: growing would copy, and fault pages in twice.
        self.vectors: Float32 = np.zeros((min(capacity, _MOST_BYTES // (4 * dim)), dim), np.float32)
        self.steps = GrowingSteps()
        self._derived_lock = Lock()
        self._columns: dict[str, Column] = {}
        self._postings = Postings()

    def append(self, batch: Batch) -> "MemRows":
        """Adds the rows; returns the memtable up to and with them."""
        start = len(self.ids)
        count = start + len(batch.ids)
        if count > len(self.vectors):
            # Readers keep the array they have: a grown copy takes the place of this one.
            grown = np.zeros((padded_rows(2 * count), self.dim), np.float32)
            grown[:start] = self.vectors[:start]
            self.vectors = grown
        self.vectors[start:count] = batch.vectors
        self.metadata.extend(batch.metadata)
        self.texts.extend(batch.texts)
        self.sparse.extend(batch.sparse or [None] * len(batch.ids))
        self.ids.extend(batch.ids)
        return MemRows(self, count)

    def column(self, field: str, count: int) -> Column:
        """The first `count` rows of a field, or more. Kept and extended from query to query."""
        with self._derived_lock:
            column = self._columns.setdefault(field, Column())
            rows = range(len(column), count)
            column.extend(field_value(decode_metadata(self.metadata[row]), field) for row in rows)
            return column

    def postings(self, count: int) -> Postings:
        """The words of the first `count` rows, or more."""
        with self._derived_lock:
            rows = range(len(self._postings), count)
            self._postings.extend(decode_text(self.texts[row]) for row in rows)
            return self._postings


class MemRows:
    """The first `count` rows of a memtable, which no longer change: a `segment.view.Rows`."""

    def __init__(self, table: Memtable, count: int) -> None:
        self._table, self.vectors = table, table.vectors
        self.serial, self.count = table.serial, count
        self.ids, self.raw_metadata, self.raw_texts = table.ids, table.metadata, table.texts
        self.raw_sparse = table.sparse

    def id(self, row: int) -> str:
        return self.ids[row].decode()

    def metadata(self, row: int) -> dict[str, Any]:
        return decode_metadata(self.raw_metadata[row])

    def text(self, row: int) -> str | None:
        return decode_text(self.raw_texts[row])

    def described(self, rows: Sequence[int]) -> list[Described]:
        return [(self.id(row), self.metadata(row), self.text(row)) for row in rows]

    def gather(self, rows: Int64) -> Float32:
        return self.vectors[rows]

    def steps(self) -> Steps:
        return self._table.steps.upto(self.vectors, self.count)

    def blocks(self) -> list[jax.Array]:
        return self._blocks

    @cached_property
    def _blocks(self) -> list[jax.Array]:
        # Copied once per batch that is searched: the rows after `count` are still being written.
        padded = np.zeros((padded_rows(self.count), self._table.dim), np.float32)
        padded[: self.count] = self.vectors[: self.count]
        return to_blocks(padded)

    masks = None

    def inverted(self) -> Inverted:
        return self._inverted

    @cached_property
    def _inverted(self) -> Inverted:
        return Inverted(self.raw_sparse[: self.count])

    def graph(self) -> None:
        return None

    def column(self, field: str) -> Column:
        return self._table.column(field, self.count)

    def postings(self) -> Postings:
        return self._table.postings(self.count)

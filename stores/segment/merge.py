"""What a new segment holds: the living rows of the memtable, or of several segments."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from stores.index.graph.arrange import Arrangement
from stores.query.postings import Postings
from stores.segment.build import Content, slabs
from stores.segment.memtable import MemRows
from stores.segment.segment import Segment
from stores.segment.strings import Strings
from stores.segment.view import Float32, Int64

Source = tuple[Segment | MemRows, Int64]
"""Rows and which of them to take, ascending."""

_SLAB = 16_384


class Joined:
    """The chosen rows of several sources as one run of rows, to be taken by position."""

    def __init__(self, sources: Sequence[Source], dim: int) -> None:
        self._rows = [rows for rows, _ in sources]
        self._chosen = np.concatenate([chosen for _, chosen in sources])
        self._ends = np.cumsum([len(chosen) for _, chosen in sources])
        self._dim = dim

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, positions: Any) -> Float32:
        """Vectors (m, dim) at positions (m,), or of a slice."""
        if isinstance(positions, slice):
            positions = np.arange(*positions.indices(len(self)))
        vectors = np.empty((len(positions), self._dim), np.float32)
        places = np.searchsorted(self._ends, positions, side="right")
        for number in np.unique(places).tolist():
            inside = places == number
            vectors[inside] = self._rows[number].gather(self._chosen[positions[inside]])
        return vectors

    def column(self, name: str, order: Int64) -> Iterator[bytes | None]:
        """The values of a string column (`ids`, `raw_texts`, ...) at each position of `order`."""
        for start in range(0, len(order), _SLAB):
            positions = order[start : start + _SLAB]
            places, rows = np.searchsorted(self._ends, positions, side="right"), self._chosen[positions]
            values = np.empty(len(positions), object)
            for number in np.unique(places).tolist():
                inside = np.flatnonzero(places == number)
                values[inside] = _take(getattr(self._rows[number], name), rows[inside].tolist())
            yield from values.tolist()


def _take(column: Strings | Sequence[bytes | None], rows: Sequence[int]) -> list[bytes | None]:
    return column.take(rows) if isinstance(column, Strings) else [column[row] for row in rows]


def content_of(
    dim: int, joined: Joined, arrangement: Arrangement | None = None, *, blocks: bool = False
) -> Content:
    """The chosen rows, in order or as arranged. Only ids and string columns are held in memory."""
    order = np.arange(len(joined)) if arrangement is None else arrangement.order
    return Content(
        dim,
        ids=[id or b"" for id in joined.column("ids", order)],
        metadata=joined.column("raw_metadata", order),
        texts=joined.column("raw_texts", order),
        vectors=_vectors(joined, order),
        sparse=list(joined.column("raw_sparse", order)),
        arrangement=arrangement,
        blocks=blocks,
    )


def _vectors(joined: Joined, order: Int64) -> Iterator[Float32]:
    for start in range(0, len(order), _SLAB):
        yield from slabs(joined[order[start : start + _SLAB]])


def merged_postings(
    sources: Sequence[tuple[Segment, Int64]], arrangement: Arrangement | None
) -> Postings | None:
    """The merged segment's postings if every input has been searched by text; else None: made when asked."""
    known = [(segment.known_postings, chosen.astype(np.int32)) for segment, chosen in sources]
    parts = [(postings, chosen) for postings, chosen in known if postings is not None]
    if len(parts) < len(known):
        return None
    return Postings.merged(parts, None if arrangement is None else arrangement.order)

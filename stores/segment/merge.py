"""What a new segment holds: the living rows of the memtable, or of several segments."""

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np

from stores.query.postings import Postings
from stores.segment.build import Content, slabs
from stores.segment.memtable import MemRows
from stores.segment.segment import Segment
from stores.segment.view import Float32, Int64

Source = tuple[Segment | MemRows, Int64]
"""Rows and which of them to take, ascending."""

_SLAB = 16_384


def content_of(dim: int, sources: Sequence[Source]) -> Content:
    """The chosen rows, in order. Only ids and string columns are held in memory, not vectors."""
    return Content(
        dim,
        ids=[rows.ids[row] or b"" for rows, chosen in sources for row in chosen.tolist()],
        metadata=(rows.raw_metadata[row] for rows, chosen in sources for row in chosen.tolist()),
        texts=(rows.raw_texts[row] for rows, chosen in sources for row in chosen.tolist()),
        vectors=chain.from_iterable(_vectors(rows, chosen) for rows, chosen in sources),
    )


def _vectors(rows: Segment | MemRows, chosen: Int64) -> Iterator[Float32]:
    for start in range(0, len(chosen), _SLAB):
        yield from slabs(rows.gather(chosen[start : start + _SLAB]))


def merged_postings(sources: Sequence[tuple[Segment, Int64]]) -> Postings | None:
    """The merged segment's postings if every input has been searched by text; else None: made when asked."""
    known = [(segment.known_postings, chosen.astype(np.int32)) for segment, chosen in sources]
    parts = [(postings, chosen) for postings, chosen in known if postings is not None]
    return Postings.merged(parts) if len(parts) == len(known) else None

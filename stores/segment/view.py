"""What a reader sees: parts of rows with the living marked, frozen at one moment.

A view is a tuple of parts. Writers make a new view and swap it in; whoever holds an old one goes on
reading it unharmed, without a lock.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import jax
import numpy as np
from numpy.typing import NDArray

from stores.index.graph.index import GraphIndex
from stores.query.postings import Postings
from stores.segment.columns import Bools, Column

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stores.index.codecs.steps import Steps
    from stores.query.masks import Masks
    from stores.query.sparse import Inverted
    from stores.segment.strings import Strings

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

ROW_BITS = 32
Described = tuple[str, dict[str, Any], str | None]


class Rows(Protocol):
    """Rows that never change once written: a sealed segment, or the memtable up to some row."""

    @property
    def serial(self) -> int:
        """Tells this source of rows from every other one of the collection's, sealed or not."""

    @property
    def count(self) -> int: ...

    def id(self, row: int) -> str: ...

    def metadata(self, row: int) -> dict[str, Any]: ...

    def text(self, row: int) -> str | None: ...

    def described(self, rows: "Sequence[int]") -> "list[Described]":
        """Id, metadata and text of some rows."""

    def gather(self, rows: Int64) -> Float32:
        """Copies of some vectors: (len(rows), dim)."""

    @property
    def vectors(self) -> Float32:
        """All vectors, and perhaps more after them: (count or more, dim), where they lie."""

    def steps(self) -> "Steps":
        """int8 codes of `count` rows or more."""

    def blocks(self) -> list[jax.Array]:
        """All vectors as device arrays, in order; each padded to a bucket of rows."""

    @property
    def masks(self) -> "Masks | None":
        """Filters already evaluated over all of them; None where that is not worth keeping."""

    def graph(self) -> GraphIndex | None:
        """The graph over all of them, if there is one."""

    def column(self, field: str) -> Column:
        """At least `count` rows of a metadata field."""

    @property
    def raw_sparse(self) -> "Sequence[bytes | None] | Strings":
        """Their sparse vectors as stored, at least `count`."""

    def inverted(self) -> "Inverted":
        """Which rows have each sparse index."""

    def postings(self) -> Postings:
        """Where each word occurs, in at least `count` rows."""


@dataclass(frozen=True)
class Part:
    rows: Rows
    alive: Bools

    @cached_property
    def live_count(self) -> int:
        return int(np.count_nonzero(self.alive))


View = tuple[Part, ...]


def pack(serial: int, row: int) -> int:
    """A row's place in the collection as one integer."""
    return serial << ROW_BITS | row


def unpack(place: int) -> tuple[int, int]:
    """(serial, row)."""
    return place >> ROW_BITS, place & ((1 << ROW_BITS) - 1)

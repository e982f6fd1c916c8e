"""A collection in memory: which row of which part each id lives in, and the view that readers take.

The state machine of the log: the same records in the same order give the same state. One writer at a
time; readers take `view` without a lock, and `locate` under one that is held for moments only.
"""

from collections.abc import Iterable, Sequence
from itertools import compress
from threading import Lock

import numpy as np

from stores.segment.batch import Batch
from stores.segment.columns import Bools
from stores.segment.memtable import MemRows, Memtable
from stores.segment.segment import Segment
from stores.segment.view import ROW_BITS, Int64, Part, View, pack


class State:
    def __init__(self, dim: int, capacity: int) -> None:
        """`capacity`: rows that the memtable usually holds before it is sealed."""
        self._dim, self._capacity = dim, capacity
        self._lock = Lock()
        self._places: dict[str, int] = {}
        self._segments: dict[int, tuple[Segment, Bools]] = {}
        self._serial = 0
        self.view: View = ()
        self.frozen: tuple[MemRows, Bools] | None = None
        """A memtable that waits to be sealed, and which of its rows live."""
        self._start_memtable()

    def next_serial(self) -> int:
        self._serial += 1
        return self._serial

    def _start_memtable(self) -> None:
        self.memtable = Memtable(self.next_serial(), self._dim, self._capacity)
        self._mem_rows = MemRows(self.memtable, 0)
        self._mem_alive = np.zeros(0, np.bool_)

    def _publish(self) -> None:
        sealed = [Part(segment, alive) for segment, alive in self._segments.values()]
        unsealed = [self.frozen] if self.frozen else []
        unsealed.append((self._mem_rows, self._mem_alive))
        self.view = (*sealed, *(Part(rows, alive) for rows, alive in unsealed if rows.count))

    @property
    def unsealed_count(self) -> int:
        """Rows in memory, dead ones included."""
        return self._mem_rows.count + (self.frozen[0].count if self.frozen else 0)

    @property
    def segments(self) -> list[tuple[Segment, Bools]]:
        """Sealed rows, oldest first, and which of them live."""
        with self._lock:
            return list(self._segments.values())

    @property
    def live_count(self) -> int:
        return len(self._places)

    def load(self, segments: Sequence[tuple[Segment, Bools]]) -> None:
        """Takes in segments found at opening. ValueError if an id lives twice."""
        with self._lock:
            for segment, alive in segments:
                self._adopt(segment, alive, segment.decoded_ids())
            self._publish()
        if len(self._places) != sum(int(np.count_nonzero(alive)) for _, alive in segments):
            raise ValueError("an id lives in two segments")

    def upsert(self, batch: Batch) -> int:
        """Adds the rows; earlier rows of the same ids die. Ids in a batch differ. Returns the row count."""
        ids = [id.decode() for id in batch.ids]
        with self._lock:
            start = self._mem_rows.count
            self._mem_rows = self.memtable.append(batch)
            self._mem_alive = np.concatenate([self._mem_alive, np.ones(len(ids), np.bool_)])
            if replaced := [self._places[id] for id in ids if id in self._places]:
                self._bury(replaced)
            first = pack(self.memtable.serial, start)
            self._places.update(zip(ids, range(first, first + len(ids)), strict=True))
            self._publish()
        return len(ids)

    def delete(self, ids: Iterable[str]) -> int:
        """Removes what is there of `ids`; returns how many were."""
        with self._lock:
            places = [self._places.pop(id) for id in ids if id in self._places]
            if places:
                self._bury(places)
                self._publish()
        return len(places)

    def _bury(self, places: Sequence[int]) -> None:
        """Marks rows dead in copies of the masks: readers keep theirs."""
        array = np.array(places, np.int64)
        serials, rows = array >> ROW_BITS, array & ((1 << ROW_BITS) - 1)
        for serial in np.unique(serials).tolist():
            dying = rows[serials == serial]
            if serial == self.memtable.serial:
                self._mem_alive = _without(self._mem_alive, dying)
            elif self.frozen and serial == self.frozen[0].serial:
                self.frozen = self.frozen[0], _without(self.frozen[1], dying)
            else:
                segment, alive = self._segments[serial]
                self._segments[serial] = (segment, _without(alive, dying))

    def freeze(self) -> None:
        """Begins another memtable; this one, as `frozen`, only sees its rows die."""
        with self._lock:
            self.frozen = self._mem_rows, self._mem_alive
            self._start_memtable()
            self._publish()

    def seal(self, segment: Segment | None, kept: Int64) -> None:
        """Puts `segment`, which holds the frozen memtable's rows `kept`, in its place."""
        ids = [] if segment is None else segment.decoded_ids()
        with self._lock:
            assert self.frozen is not None
            alive, self.frozen = self.frozen[1][kept], None
            if segment is not None:
                self._adopt(segment, alive, ids)
            self._publish()

    def merge(
        self, old: Sequence[Segment], kept: Sequence[Int64], segment: Segment | None, order: Int64
    ) -> None:
        """Puts `segment` in the place of `old`, of which it holds the rows `kept`, taken in `order`."""
        ids = [] if segment is None else segment.decoded_ids()
        with self._lock:
            alive = self.alive_now(old, kept)[order]
            for part in old:
                del self._segments[part.serial]
            if segment is not None:
                self._adopt(segment, alive, ids)
            self._publish()

    def alive_now(self, old: Sequence[Segment], kept: Sequence[Int64]) -> Bools:
        """Of the rows kept when a merge began, those that still live."""
        masks = [self._segments[part.serial][1][rows] for part, rows in zip(old, kept, strict=True)]
        return np.concatenate(masks)

    def _adopt(self, segment: Segment, alive: Bools, ids: Sequence[str]) -> None:
        self._segments[segment.serial] = (segment, alive)
        places = np.flatnonzero(alive) + pack(segment.serial, 0)
        self._places.update(zip(compress(ids, alive.tolist()), places.tolist(), strict=True))

    def locate(self, ids: Sequence[str]) -> tuple[View, list[int | None]]:
        """A view, and the place in it of each id that lives."""
        with self._lock:
            return self.view, [self._places.get(id) for id in ids]


def _without(alive: Bools, rows: Int64) -> Bools:
    changed = alive.copy()
    changed[rows] = False
    return changed

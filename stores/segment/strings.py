"""A column of byte strings in one buffer: ids, metadata and texts, in the log and in segments alike.

    count u64 | offsets u64[count + 1] | bytes

Little-endian; offsets are relative to the first byte after them. A missing value (None) is the single
byte 0xFF, which no UTF-8 text contains. Reading one value touches only its own bytes, so a column can
be a memory-mapped file of any size.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache

import numpy as np

_COUNT = struct.Struct("<Q")
_NULL = b"\xff"
_AHEAD = 4096
Bytes = bytes | memoryview


def encode_strings(values: Iterable[bytes | None]) -> bytes:
    """The buffer of a column; read it back with `Strings`."""
    listed = values if isinstance(values, list) else list(values)
    if listed.count(None) == len(listed):
        return (_nothing_again if len(listed) <= _AHEAD else _nothing)(len(listed))
    parts = [_NULL if value is None else value for value in listed]
    offsets = np.zeros(len(parts) + 1, "<u8")
    np.cumsum(np.fromiter(map(len, parts), np.int64, len(parts)), out=offsets[1:])
    return b"".join([_COUNT.pack(len(parts)), offsets.tobytes(), *parts])


def _nothing(count: int) -> bytes:
    offsets = np.arange(count + 1, dtype="<u8")
    return b"".join([_COUNT.pack(count), offsets.tobytes(), _NULL * count])


_nothing_again = lru_cache(maxsize=8)(_nothing)
"""Batches tend to be of one size, and most have columns without a value."""


class Strings:
    """Read access to a column; keeps `data` alive, copies nothing but the value asked for.

    ValueError if the buffer's length and its offsets do not agree.
    """

    def __init__(self, data: Bytes) -> None:
        self._data = memoryview(data)
        if len(self._data) < _COUNT.size:
            raise ValueError("a column is cut short")
        (self._count,) = _COUNT.unpack_from(self._data)
        self._start = _COUNT.size + 8 * (self._count + 1)
        if len(self._data) < self._start:
            raise ValueError("a column is cut short")
        # Integers of a memoryview are Python's at once; NumPy's take ten times longer.
        self._offsets = self._data[_COUNT.size : self._start].cast("Q")
        if self._start + self._offsets[-1] != len(self._data):
            raise ValueError("a column's length does not match its offsets")

    def __len__(self) -> int:
        return int(self._count)

    def __getitem__(self, row: int) -> bytes | None:
        begin, end = self._offsets[row], self._offsets[row + 1]
        value = bytes(self._data[self._start + begin : self._start + end])
        return None if value == _NULL else value

    def __iter__(self) -> Iterator[bytes | None]:
        for start in range(0, len(self), _AHEAD):
            yield from self.take(range(start, min(start + _AHEAD, len(self))))

    @cached_property
    def empty(self) -> bool:
        """Whether no row has a value."""
        values = self._data[self._start :]
        return bool(len(values) == self._count) and bytes(values).count(_NULL) == self._count

    def take(self, rows: Sequence[int]) -> list[bytes | None]:
        """Many values at once, in much less time than one after the other."""
        offsets, data = self._offsets, self._data[self._start :]
        values = [bytes(data[offsets[row] : offsets[row + 1]]) for row in rows]
        return [None if value == _NULL else value for value in values]

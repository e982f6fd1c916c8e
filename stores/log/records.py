"""The log's record: its bytes, and how to find the good ones in a damaged file.

    length u32 | crc32 u32 | version u8 | type u8 | term u64 | index u64 | synced u64 | payload

Little-endian. `length` counts the payload. The checksum covers everything but itself. `index` grows by
one with each record; `term` is 0 without replication; a record is one entry of a replicated log.
`synced` is the last index that was durable when this one was written, which tells an unfinished write
from damage: a bad record whose successors say that it had been synced was once good.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from stores.log.checksum import crc32
from stores.log.disk import Buffer

FORMAT_VERSION = 1
MAX_PAYLOAD = 1 << 30

UPSERT = 1
DELETE = 2
UPSERT_SPARSE = 3

_HEADER = struct.Struct("<IIBBQQQ")
_LENGTH = struct.Struct("<I")
HEADER_SIZE = _HEADER.size
_VERSION_AT = 8


@dataclass(frozen=True)
class Record:
    """`parts`: the payload's bytes, in pieces as whoever writes it has them."""

    type: int
    parts: Sequence[Buffer]
    index: int
    term: int = 0
    synced: int = 0

    @cached_property
    def payload(self) -> bytes:
        return b"".join(self.parts)


def head(record: Record) -> bytes:
    """The bytes that the record's payload follows."""
    size, fields = sum(map(len, record.parts)), (record.type, record.term, record.index, record.synced)
    bare = _HEADER.pack(size, 0, FORMAT_VERSION, *fields)
    crc = crc32(bare[_VERSION_AT:], crc32(bare[:4]))
    for part in record.parts:
        crc = crc32(part, crc)
    return _HEADER.pack(size, crc, FORMAT_VERSION, *fields)


def decode(data: memoryview, offset: int) -> tuple[Record, int] | None:
    """The record that starts at `offset` and the offset after it, or None if there is no whole one.

    A record of a newer format version with a good checksum is returned by its fields all the same;
    the caller asks `version_at` before it trusts the payload.
    """
    if offset + HEADER_SIZE > len(data):
        return None
    length, crc, _, kind, term, index, synced = _HEADER.unpack_from(data, offset)
    end = offset + HEADER_SIZE + length
    if length > MAX_PAYLOAD or end > len(data):
        return None
    with data[offset + _VERSION_AT : end] as body:
        if crc32(body, crc32(_LENGTH.pack(length))) != crc:
            return None
    payload = bytes(data[offset + HEADER_SIZE : end])
    return Record(kind, [payload], index, term, synced), end


def version_at(data: memoryview, offset: int) -> int:
    return data[offset + _VERSION_AT]


def find_after(data: memoryview, offset: int, last_index: int) -> Record | None:
    """The first whole record after a bad one at `offset`, wherever it starts, or None.

    Any byte may be its start, so candidates are sifted by version and by an index that could follow
    `last_index` (within 2^24) before a checksum is computed.
    """
    first, count = offset + 1, len(data) - HEADER_SIZE - offset
    if count <= 0:
        return None
    versions = np.frombuffer(data, np.uint8, count, first + _VERSION_AT)
    for start in np.flatnonzero(versions == FORMAT_VERSION).tolist():
        at = first + start
        index = _HEADER.unpack_from(data, at)[5]
        if last_index < index <= last_index + (1 << 24) and (found := decode(data, at)):
            return found[0]
    return None

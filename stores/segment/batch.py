"""The payloads of the log's records: a batch of rows to upsert, a list of ids to delete.

A batch with sparse vectors is a batch with one more column, in a record of its own type.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from stores.log.disk import Buffer
from stores.log.records import UPSERT, UPSERT_SPARSE
from stores.segment.strings import Strings, encode_strings
from stores.segment.view import Float32

_HEAD = struct.Struct("<IIQQQ")
_SIZE = struct.Struct("<Q")


@dataclass(frozen=True)
class Batch:
    """Rows as they are stored: ids and texts in UTF-8, metadata as JSON text; vectors (rows, dim); `sparse`
    one value a row (see `segment.sparse`), or nothing if no row has one."""

    ids: Sequence[bytes]
    metadata: Sequence[bytes | None]
    texts: Sequence[bytes | None]
    vectors: Float32
    sparse: Sequence[bytes | None] = ()

    def to_record(self) -> tuple[int, list[Buffer]]:
        """Its type and payload, whose parts share the memory of the vectors."""
        plain = self._encode()
        if not any(self.sparse):
            return UPSERT, plain
        return UPSERT_SPARSE, [_SIZE.pack(sum(map(len, plain))), *plain, encode_strings(self.sparse)]

    @classmethod
    def of_record(cls, kind: int, payload: bytes) -> "Batch":
        """ValueError if the payload is not what `to_record` makes."""
        if kind == UPSERT:
            return cls._decode(payload)
        (size,) = _SIZE.unpack_from(payload)
        plain = cls._decode(payload[_SIZE.size : _SIZE.size + size])
        return replace(plain, sparse=list(Strings(payload[_SIZE.size + size :])))

    def _encode(self) -> list[Buffer]:
        columns = [encode_strings(column) for column in (self.ids, self.metadata, self.texts)]
        head = _HEAD.pack(*self.vectors.shape, *(len(column) for column in columns))
        vectors = np.ascontiguousarray(self.vectors, "<f4")
        return [head, *columns, vectors.data.cast("B") if vectors.size else b""]

    @classmethod
    def _decode(cls, payload: bytes) -> "Batch":
        data = memoryview(payload)
        rows, dim, *sizes = _HEAD.unpack_from(data)
        offset = _HEAD.size
        columns: list[list[bytes | None]] = []
        for size in sizes:
            columns.append(list(Strings(data[offset : offset + size])))
            offset += size
        vectors = np.frombuffer(data, "<f4", offset=offset).reshape(rows, dim)
        ids, metadata, texts = columns
        return cls([id or b"" for id in ids], metadata, texts, vectors)


def encode_deletion(ids: Sequence[bytes]) -> bytes:
    return encode_strings(ids)


def decode_deletion(payload: bytes) -> list[str]:
    return [(id or b"").decode() for id in Strings(payload)]

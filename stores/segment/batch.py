"""The payloads of the log's records: a batch of rows to upsert, a list of ids to delete."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stores.segment.strings import Strings, encode_strings
from stores.segment.view import Float32

_HEAD = struct.Struct("<IIQQQ")


@dataclass(frozen=True)
class Batch:
    """Rows as they are stored: ids and texts in UTF-8, metadata as JSON text; vectors (rows, dim)."""

    ids: Sequence[bytes]
    metadata: Sequence[bytes | None]
    texts: Sequence[bytes | None]
    vectors: Float32

    def encode(self) -> bytes:
        columns = [encode_strings(column) for column in (self.ids, self.metadata, self.texts)]
        head = _HEAD.pack(*self.vectors.shape, *(len(column) for column in columns))
        return b"".join([head, *columns, self.vectors.astype("<f4", copy=False).tobytes()])

    @classmethod
    def decode(cls, payload: bytes) -> "Batch":
        """ValueError if the payload is not what `encode` makes."""
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

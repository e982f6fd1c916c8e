"""Embeddings already made: a table on disk with the most recent ones in memory.

Derived state: every vector can be made again, so nothing here is synced for its own sake, and a
damaged table is thrown away and begun anew. SQLite, because rows are small, keyed and evicted.
"""

import logging
import sqlite3
import struct
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from types import TracebackType
from typing import Self

import numpy as np

from engine.protocols import Float32
from stores.log.checksum import crc32

_logger = logging.getLogger(__name__)
_FORMAT = 1
_CREATE = """
CREATE TABLE IF NOT EXISTS vectors (
    number INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, data BLOB NOT NULL
)"""
_PARAMETERS = 500
_CRC = struct.Struct("<I")


@dataclass(frozen=True)
class CacheStats:
    """`hits` counts both memory and disk; `rows` are on disk."""

    hits: int
    misses: int
    rows: int
    memory_rows: int


class EmbeddingTable:
    """An `engine.protocols.EmbeddingCache` in the file `path`. Thread-safe; close it when done.

    Keys should name the model's revision and the exact text. The disk holds the `max_rows` written
    last, memory the `max_memory_entries` used last. Any failure of the file is a miss, never an error.
    """

    def __init__(self, path: Path, *, max_memory_entries: int = 10_000, max_rows: int = 1_000_000) -> None:
        self._path, self._max_memory, self._max_rows = path, max_memory_entries, max_rows
        self._lock = RLock()
        self._memory: OrderedDict[str, Float32] = OrderedDict()
        self._hits = self._misses = 0
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._database = self._connect()

    def _connect(self) -> sqlite3.Connection:
        try:
            return self._open()
        except sqlite3.DatabaseError as error:
            _logger.warning("%s: %s; starting an empty embedding cache", self._path, error)
            self._remove_files()
            return self._open()

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path, check_same_thread=False, timeout=5, isolation_level=None)
        try:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=NORMAL")
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version not in (0, _FORMAT):
                raise sqlite3.DatabaseError(f"format {version} is not {_FORMAT}")
            database.execute(_CREATE)
            database.execute(f"PRAGMA user_version={_FORMAT}")
            database.execute("SELECT key, data FROM vectors LIMIT 1").fetchone()
        except BaseException:
            database.close()
            raise
        return database

    def _remove_files(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

    @contextmanager
    def _surviving_damage(self) -> Iterator[None]:
        """A damaged file is replaced by an empty one; a busy or full disk is only a miss."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            _logger.warning("%s: %s", self._path, error)
            if type(error) is sqlite3.DatabaseError:  # its subclasses are misuse, a lock or a full disk
                self._database.close()
                self._remove_files()
                self._database = self._open()

    def get_many(self, keys: Sequence[str]) -> list[Float32 | None]:
        """One vector (dim,), read-only, or None for each key, in order."""
        with self._lock:
            found: dict[str, Float32] = {key: self._memory[key] for key in keys if key in self._memory}
            absent = list(dict.fromkeys(key for key in keys if key not in found))
            if absent:
                with self._surviving_damage():
                    found.update(self._read(absent))
            self._remember({key: found[key] for key in keys if key in found})
            hits = sum(key in found for key in keys)
            self._hits += hits
            self._misses += len(keys) - hits
            return [found.get(key) for key in keys]

    def _read(self, keys: Sequence[str]) -> Iterator[tuple[str, Float32]]:
        for start in range(0, len(keys), _PARAMETERS):
            some = keys[start : start + _PARAMETERS]
            marks = ",".join("?" * len(some))
            query = f"SELECT key, data FROM vectors WHERE key IN ({marks})"
            for key, data in self._database.execute(query, some):
                if crc32(data[_CRC.size :]) == _CRC.unpack_from(data)[0]:
                    yield key, np.frombuffer(data, "<f4", offset=_CRC.size)

    def put_many(self, keys: Sequence[str], vectors: Float32) -> None:
        """Stores vectors (len(keys), dim), replacing those of known keys."""
        copies = np.array(vectors, "<f4")
        if copies.ndim != 2 or len(copies) != len(keys):
            raise ValueError(f"vectors must be ({len(keys)}, dim), not {copies.shape}")
        copies.flags.writeable = False
        with self._lock:
            with self._surviving_damage(), self._transaction():
                rows = [(key, _encode(row)) for key, row in zip(keys, copies, strict=True)]
                self._database.executemany("INSERT OR REPLACE INTO vectors (key, data) VALUES (?, ?)", rows)
                # Numbers only grow, so the oldest are below the newest minus the bound.
                self._database.execute(
                    "DELETE FROM vectors WHERE number <= (SELECT max(number) FROM vectors) - ?",
                    (self._max_rows,),
                )
            self._remember(dict(zip(keys, copies, strict=True)))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def _remember(self, vectors: dict[str, Float32]) -> None:
        for key, vector in vectors.items():
            self._memory[key] = vector
            self._memory.move_to_end(key)
        while len(self._memory) > self._max_memory:
            self._memory.popitem(last=False)

    def stats(self) -> CacheStats:
        with self._lock:
            rows = 0
            with self._surviving_damage():
                (rows,) = self._database.execute("SELECT count(*) FROM vectors").fetchone()
            return CacheStats(self._hits, self._misses, rows, len(self._memory))

    def close(self) -> None:
        with self._lock:
            self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _encode(vector: Float32) -> bytes:
    """SQLite does not checksum its pages; a vector with a flipped bit must not come back."""
    data = vector.tobytes()
    return _CRC.pack(crc32(data)) + data

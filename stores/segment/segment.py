"""A sealed segment: immutable, checksummed files read by memory mapping.

Opening checks the footer and the sizes. Each file's checksum is checked when it is first used, so
damage is named before it can become a wrong answer, and opening does not read everything.
"""

import mmap
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from threading import RLock
from typing import Any, BinaryIO

import jax
import numpy as np

from stores.errors import CorruptStore
from stores.index.codecs.steps import GrowingSteps, Steps
from stores.index.flat import padded_rows, to_blocks
from stores.index.graph import index as graph_files
from stores.index.graph.index import GraphIndex
from stores.log.checksum import crc32
from stores.log.manifest import SegmentEntry, unseal
from stores.query.masks import Masks
from stores.query.postings import Postings
from stores.query.sparse import Inverted
from stores.segment.build import COLUMNS, FOOTER, FORMAT, SPARSE, VECTORS
from stores.segment.columns import Column, field_value
from stores.segment.jsontext import decode_metadata, decode_text
from stores.segment.strings import Strings
from stores.segment.view import Described, Float32, Int64

# A mapped file keeps a descriptor open, of which a process has few: many small segments would use them up.
_SMALL = 256 << 10


class Segment:
    """Rows on disk: a `segment.view.Rows`. Thread-safe. CorruptStore from any method that reads."""

    def __init__(self, folder: Path, entry: SegmentEntry, serial: int, dim: int) -> None:
        self.folder, self.entry, self.serial, self.dim = folder, entry, serial, dim
        self.count = entry.rows
        footer = unseal(folder / FOOTER)
        if crc32((folder / FOOTER).read_bytes()) != entry.footer_crc:
            raise CorruptStore(folder / FOOTER, "it is not the footer that the manifest names")
        if (footer["format"], footer["rows"], footer["dim"]) != (FORMAT, entry.rows, dim):
            raise CorruptStore(folder / FOOTER, "its format, rows or dimension are not the manifest's")
        self._files: dict[str, dict[str, int]] = footer["files"]
        self._graph_facts: dict[str, Any] | None = footer.get("graph")
        # Mapped, read or opened now, so that a reader can go on after a merge has removed the files.
        self._maps = {name: self._map(name) for name in self._files}
        self._read_ahead: dict[str, BinaryIO] = {
            name: (folder / name).open("rb")
            for name in (VECTORS, graph_files.BLOCKS)
            if self.has_graph and name in self._files
        }
        self._lock = RLock()
        self.masks = Masks()
        self._steps = GrowingSteps()
        self._columns: dict[str, Column] = {}
        self._postings: Postings | None = None

    def _map(self, name: str) -> memoryview:
        path, expected = self.folder / name, self._files[name]["bytes"]
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size != expected:
                    raise CorruptStore(path, f"it has {size} bytes instead of {expected}")
                if size <= _SMALL:
                    return memoryview(file.read())
                return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except FileNotFoundError as error:
            raise CorruptStore(path, "the file is missing") from error

    def check(self, name: str) -> None:
        """CorruptStore unless the file holds, byte for byte, what was written."""
        data, crc = self._maps[name][: self._files[name]["data"]], 0
        for start in range(0, len(data), 1 << 20):
            crc = crc32(data[start : start + (1 << 20)], crc)
        if crc != self._files[name]["crc32"]:
            raise CorruptStore(self.folder / name, "its checksum does not match")

    def verify(self) -> None:
        """Checks every file, whether used before or not."""
        for name in self._files:
            self.check(name)

    @property
    def byte_size(self) -> int:
        """Bytes of its data, without padding."""
        return sum(facts["data"] for facts in self._files.values())

    def _open_column(self, name: str) -> Strings:
        self.check(name)
        column = Strings(self._maps[name])
        if len(column) != self.count:
            raise CorruptStore(self.folder / name, f"it has {len(column)} rows instead of {self.count}")
        return column

    @cached_property
    def ids(self) -> Strings:
        return self._open_column(COLUMNS[0])

    @cached_property
    def raw_metadata(self) -> Strings:
        return self._open_column(COLUMNS[1])

    @cached_property
    def raw_texts(self) -> Strings:
        return self._open_column(COLUMNS[2])

    @cached_property
    def raw_sparse(self) -> Strings | list[None]:
        return self._open_column(SPARSE) if SPARSE in self._files else [None] * self.count

    def inverted(self) -> Inverted:
        return self._inverted

    @cached_property
    def _inverted(self) -> Inverted:
        return Inverted(self.raw_sparse)

    @cached_property
    def padded_vectors(self) -> Float32:
        """float32 (padded rows, dim), mapped; zeros after the segment's own rows."""
        self.check(VECTORS)
        return np.frombuffer(self._maps[VECTORS], "<f4").reshape(padded_rows(self.count), self.dim)

    @property
    def vectors(self) -> Float32:
        return self.padded_vectors

    def steps(self) -> Steps:
        return self._steps.upto(self.padded_vectors, self.count)

    @cached_property
    def _blocks(self) -> list[jax.Array]:
        return to_blocks(self.padded_vectors)

    def decoded_ids(self) -> list[str]:
        """All ids, of the dead as well."""
        return [(id or b"").decode() for id in self.ids]

    def id(self, row: int) -> str:
        return (self.ids[row] or b"").decode()

    def metadata(self, row: int) -> dict[str, Any]:
        return decode_metadata(self.raw_metadata[row])

    def text(self, row: int) -> str | None:
        return decode_text(self.raw_texts[row])

    def described(self, rows: Sequence[int]) -> list[Described]:
        nothing: list[bytes | None] = [None] * len(rows)
        ids = [(id or b"").decode() for id in self.ids.take(rows)]
        metadata = nothing if self.raw_metadata.empty else self.raw_metadata.take(rows)
        texts = nothing if self.raw_texts.empty else self.raw_texts.take(rows)
        return list(zip(ids, map(decode_metadata, metadata), map(decode_text, texts), strict=True))

    def gather(self, rows: Int64) -> Float32:
        return self.padded_vectors[rows]

    def blocks(self) -> list[jax.Array]:
        return self._blocks

    def _descriptor(self, name: str) -> int:
        """For reading ahead; -1 where there is no such file."""
        return self._read_ahead[name].fileno() if name in self._read_ahead else -1

    @property
    def has_graph(self) -> bool:
        return self._graph_facts is not None

    def graph(self) -> GraphIndex | None:
        return self._graph

    @cached_property
    def _graph(self) -> GraphIndex | None:
        if self._graph_facts is None:
            return None
        for name in graph_files.FILES:
            self.check(name)
        try:
            descriptors = self._descriptor(VECTORS), self._descriptor(graph_files.BLOCKS)
            return graph_files.from_files(
                self._maps, self._graph_facts, self.padded_vectors, self.count, descriptors
            )
        except (ValueError, KeyError) as error:
            raise CorruptStore(self.folder / FOOTER, f"its graph does not fit its files: {error}") from error

    def column(self, field: str) -> Column:
        with self._lock:
            column = self._columns.get(field)
            if column is None:
                column = Column()
                column.extend(field_value(self.metadata(row), field) for row in range(self.count))
                self._columns[field] = column
            return column

    def postings(self) -> Postings:
        with self._lock:
            if self._postings is None:
                postings = Postings()
                postings.extend(self.text(row) for row in range(self.count))
                self._postings = postings.freeze()
            return self._postings

    @property
    def known_postings(self) -> Postings | None:
        """The postings if some query has asked for them."""
        return self._postings

    def adopt_postings(self, postings: Postings) -> None:
        """Postings that a merge made from its inputs'."""
        self._postings = postings

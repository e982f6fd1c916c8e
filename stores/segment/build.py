"""Writing a segment: all its files, their checksums, and only then its name.

seg/<name>/  vec.f32      float32 rows, padded with a hole to a bucket of rows
             ids  meta  texts     columns of strings (see `segment.strings`)
             footer.json          rows, dimension, and bytes and checksum of each file
             tomb-<version>       the dead, see `segment.tombs`
"""

import uuid
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stores.index.flat import padded_rows
from stores.log.disk import Buffer, Disk, write_new
from stores.log.manifest import SegmentEntry, seal
from stores.segment.strings import encode_strings
from stores.segment.view import Float32

FORMAT = 1
VECTORS = "vec.f32"
COLUMNS = ("ids", "meta", "texts")
FOOTER = "footer.json"
_SLAB = 16_384


@dataclass(frozen=True)
class Content:
    """What goes into a segment. `vectors` yields slabs (n, dim), together one row for each id."""

    dim: int
    ids: list[bytes]
    metadata: Iterable[bytes | None]
    texts: Iterable[bytes | None]
    vectors: Iterable[Float32]


class _Tally:
    """Passes chunks through and keeps their checksum and length."""

    def __init__(self) -> None:
        self.crc = self.size = 0

    def of(self, chunks: Iterable[Buffer]) -> Iterator[Buffer]:
        for chunk in chunks:
            self.crc = zlib.crc32(chunk, self.crc)
            self.size += memoryview(chunk).nbytes
            yield chunk


def write_segment(parent: Path, content: Content, disk: Disk) -> SegmentEntry:
    """A complete, durable segment folder under `parent`, which no manifest names yet.

    After an error, or a crash, what is left of it has no footer or no name and is garbage.
    """
    name = uuid.uuid4().hex
    unfinished = parent / f"{name}.tmp"
    disk.make_folder(unfinished)
    try:
        footer_crc = _write_files(unfinished, content, disk)
        disk.rename(unfinished, parent / name)
        disk.sync_folder(parent)
    except OSError:
        disk.remove_tree(unfinished)
        disk.remove_tree(parent / name)
        raise
    return SegmentEntry(name, len(content.ids), footer_crc)


def _write_files(folder: Path, content: Content, disk: Disk) -> int:
    files = {}
    rows = len(content.ids)
    padded = 4 * content.dim * padded_rows(rows)
    tally = _Tally()
    write_new(disk, folder / VECTORS, tally.of(slab.data for slab in content.vectors), size=padded)
    files[VECTORS] = {"bytes": padded, "data": tally.size, "crc32": tally.crc}
    for name, column in zip(COLUMNS, (content.ids, content.metadata, content.texts), strict=True):
        data = encode_strings(column)
        write_new(disk, folder / name, [data])
        files[name] = {"bytes": len(data), "data": len(data), "crc32": zlib.crc32(data)}
    footer = seal({"format": FORMAT, "rows": rows, "dim": content.dim, "files": files})
    write_new(disk, folder / FOOTER, [footer])
    disk.sync_folder(folder)
    return zlib.crc32(footer)


def slabs(vectors: Float32) -> Iterator[Float32]:
    """`vectors` in C-contiguous little-endian pieces of a bounded size."""
    for start in range(0, len(vectors), _SLAB):
        yield vectors[start : start + _SLAB].astype("<f4", order="C", copy=False)

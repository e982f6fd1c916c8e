"""Writing a segment: all its files, their checksums, and only then its name.

seg/<name>/  vec.f32      float32 rows, padded with a hole to a bucket of rows
             ids  meta  texts     columns of strings (see `segment.strings`)
             sparse               one more column, where a row has a sparse vector
             sq8 rbq1 graph ...   of a segment with a graph (see `index.graph.index`)
             footer.json          rows, dimension, and bytes and checksum of each file
             tomb-<version>       the dead, see `segment.tombs`
"""

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stores.index.flat import padded_rows
from stores.index.graph.arrange import Arrangement
from stores.index.graph.build import Progress, build
from stores.index.graph.calibrate import enough_ef
from stores.index.graph.index import BLOCKS, GraphIndex, blocks_of, facts, to_files
from stores.index.graph.points import Points
from stores.log.checksum import crc32
from stores.log.disk import Buffer, Disk, write_new
from stores.log.manifest import SegmentEntry, seal
from stores.segment.strings import encode_strings
from stores.segment.view import Float32

FORMAT = 1
VECTORS = "vec.f32"
COLUMNS = ("ids", "meta", "texts")
SPARSE = "sparse"
FOOTER = "footer.json"
_SLAB = 16_384


@dataclass(frozen=True)
class Content:
    """What goes into a segment. `vectors` yields slabs (n, dim), together one row for each id.

    With an arrangement, which is the order of all of them already, the segment gets a graph; with
    `blocks` also the file that is searched where memory is too short for the neighbours.
    """

    dim: int
    ids: list[bytes]
    metadata: Iterable[bytes | None]
    texts: Iterable[bytes | None]
    vectors: Iterable[Float32]
    sparse: list[bytes | None]
    arrangement: Arrangement | None = None
    blocks: bool = False


class _Tally:
    """Passes chunks through and keeps their checksum and length."""

    def __init__(self) -> None:
        self.crc = self.size = 0

    def of(self, chunks: Iterable[Buffer]) -> Iterator[Buffer]:
        for chunk in chunks:
            self.crc = crc32(chunk, self.crc)
            self.size += memoryview(chunk).nbytes
            yield chunk


def write_segment(
    parent: Path, content: Content, disk: Disk, progress: Progress = lambda share: None
) -> SegmentEntry:
    """A complete, durable segment folder under `parent`, which no manifest names yet.

    `progress` gets the share of a graph's building that is done, and may raise to stop. After an error,
    or a crash, what is left of it has no footer or no name and is garbage.
    """
    name = uuid.uuid4().hex
    unfinished = parent / f"{name}.tmp"
    disk.make_folder(unfinished)
    try:
        footer_crc = _write_files(unfinished, content, disk, progress)
        disk.rename(unfinished, parent / name)
        disk.sync_folder(parent)
    except BaseException:
        disk.remove_tree(unfinished)
        disk.remove_tree(parent / name)
        raise
    return SegmentEntry(name, len(content.ids), footer_crc)


def _write_files(folder: Path, content: Content, disk: Disk, progress: Progress) -> int:
    files: dict[str, dict[str, int]] = {}
    rows = len(content.ids)
    padded = 4 * content.dim * padded_rows(rows)
    tally = _Tally()
    write_new(disk, folder / VECTORS, tally.of(slab.data for slab in content.vectors), size=padded)
    files[VECTORS] = {"bytes": padded, "data": tally.size, "crc32": tally.crc}
    for name, column in zip(COLUMNS, (content.ids, content.metadata, content.texts), strict=True):
        files[name] = _write(folder / name, encode_strings(column), disk)
    if any(content.sparse):
        files[SPARSE] = _write(folder / SPARSE, encode_strings(content.sparse), disk)
    footer_facts: dict[str, Any] = {"format": FORMAT, "rows": rows, "dim": content.dim, "files": files}
    if content.arrangement is not None:
        footer_facts["graph"] = _write_graph(folder, content, files, disk, progress)
    footer = seal(footer_facts)
    write_new(disk, folder / FOOTER, [footer])
    disk.sync_folder(folder)
    return crc32(footer)


def _write(path: Path, data: Buffer, disk: Disk) -> dict[str, int]:
    """A whole file; what the footer says of it."""
    write_new(disk, path, [data])
    size = memoryview(data).nbytes
    return {"bytes": size, "data": size, "crc32": crc32(data)}


def _write_graph(
    folder: Path, content: Content, files: dict[str, dict[str, int]], disk: Disk, progress: Progress
) -> dict[str, float | int | str]:
    """Builds and writes the graph over the vectors just written, adding to `files`; its facts."""
    arrangement = content.arrangement
    assert arrangement is not None
    vectors = np.memmap(folder / VECTORS, "<f4", "r").reshape(-1, content.dim)
    graph = build(Points(vectors, arrangement.frame, arrangement.nodes), progress=progress)
    for name, array in to_files(graph, arrangement).items():
        files[name] = _write(folder / name, np.ascontiguousarray(array).data, disk)
    if content.blocks:
        tally = _Tally()
        slabs = (slab.data for slab in blocks_of(vectors, graph.neighbours))
        write_new(disk, folder / BLOCKS, tally.of(slabs))
        files[BLOCKS] = {"bytes": tally.size, "data": tally.size, "crc32": tally.crc}
    entry_codes = graph.codes[graph.entries]
    index = GraphIndex(arrangement.frame, vectors, graph, arrangement.repeats, entry_codes)
    return facts(arrangement, graph, enough_ef(index))


def slabs(vectors: Float32) -> Iterator[Float32]:
    """`vectors` in C-contiguous little-endian pieces of a bounded size."""
    for start in range(0, len(vectors), _SLAB):
        yield vectors[start : start + _SLAB].astype("<f4", order="C", copy=False)

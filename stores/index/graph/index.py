"""A graph as it lies in a segment's files, and searching it.

sq8      int8 (nodes, width)        codes
rbq1     uint32 (nodes, words)      1-bit rows, see `codecs.rabitq`
graph    int32 (nodes, degree)      neighbours, ended by -1
entries  int32 (entries,)           where searches start
repeats  int32 (rows - nodes,)      the node that each further row repeats, ascending
centre   float32 (dim or dim + 1,)  the frame's
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import jax
import numpy as np
from numpy.typing import NDArray

from stores.index import kernels
from stores.index.codecs import rabitq
from stores.index.codecs.frame import Frame
from stores.index.codecs.rotation import transposed
from stores.index.graph.arrange import Arrangement
from stores.index.graph.build import Graph

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Bools = NDArray[np.bool_]
FILES = ("sq8", "rbq1", "graph", "entries", "repeats", "centre")
BLOCKS = "blocks"
PAGE = 4096
Tier = Literal["graph", "bits", "blocks"]
_MORE_RANKED = 10
_BITS_RANKED = 0.5
_BEAM = 4
_SLAB = 4096
DEVIATIONS = 1.0
"""How far, in standard deviations, a 1-bit estimate may be off before a node is passed over by it."""


@dataclass(frozen=True)
class Effort:
    """What a search did: nodes expanded, seen, measured by their codes, and ranked by their vectors."""

    expanded: int
    seen: int
    measured: int
    ranked: int


@dataclass(frozen=True)
class OnDisk:
    """How the vectors are read when they are not in memory: descriptors for reading ahead, -1 for none.

    `blocks` float32 (pages, words) are records of a node's vector and neighbours, `per_page` of them in each;
    None if the segment was written without.
    """

    vectors: int = -1
    blocks: Float32 | None = None
    per_page: int = 0
    descriptor: int = -1


@dataclass(frozen=True)
class GraphIndex:
    """An opened graph over the segment's vectors (rows or more, dim)."""

    frame: Frame
    vectors: Float32
    graph: Graph
    repeats: Int32
    entry_codes: NDArray[np.int8]
    disk: OnDisk = OnDisk()
    ef: int = 96
    """Near nodes a search keeps unless told otherwise, see `calibrate`."""

    @property
    def nodes(self) -> int:
        return len(self.graph.codes)

    def node_bytes(self, tier: Tier) -> int:
        """Bytes of memory a node takes in a tier."""
        return node_bytes(self.frame.width, self.graph.neighbours.shape[1], tier)

    def spread(self, allowed: Bools) -> NDArray[np.uint8]:
        """Which nodes stand for an allowed row, of allowed (rows,)."""
        wanted = allowed[: self.nodes].view(np.uint8)
        if len(self.repeats):
            wanted = wanted.copy()
            wanted[self.repeats[allowed[self.nodes :]]] = 1
        return wanted

    def _rotated(self, queries: Float32) -> Float32:
        """queries (q, dim) -> (q, width), in the space of the codes."""
        shifted = self.frame.queries(queries)
        if not kernels.native():
            return self.frame.rotate(shifted)
        out = np.empty((len(queries), self.frame.width), np.float32)
        padded = np.zeros_like(out)
        padded[:, : shifted.shape[1]] = shifted
        kernels.searching().rotate(padded, transposed(shifted.shape[1]), out)
        return out

    @cached_property
    def _arrays(self) -> tuple[Any, ...]:
        """vectors, codes, bits, facts, neighbours, entries and their codes, as the kernels take them."""
        bits, graph = self.graph.bits, self.graph
        views = bits.view(np.uint64), bits.view(np.float32)
        return self.vectors, graph.codes, *views, graph.neighbours, graph.entries, self.entry_codes

    @cached_property
    def _placed(self) -> tuple[Any, ...]:
        """`_arrays` where JAX computes, for the twins; on processors the same memory, if it lies well. An
        array that is handed over with each search would be copied each time."""
        vectors, codes, _, facts, *others = self._arrays
        arrays = vectors, codes, self.graph.bits, facts, *others
        return tuple(jax.device_put(array, may_alias=True) for array in arrays)

    def search(
        self, queries: Float32, allowed: Bools | None, k: int, ef: int, tier: Tier = "graph"
    ) -> tuple[Float32, Int64, Effort]:
        """The k best allowed rows of each query (q, dim), nearly always, with their exact scores.

        allowed (rows,), None for all; ef, how many near nodes a search keeps, at least k. Returns scores
        and rows (q, k), best first, -1 where there are no more. Tiers differ in what they read:
        `graph` has all in memory, `bits` no codes but bits and reads vectors from disk, `blocks` has bits
        alone and reads neighbours as well.
        """
        count, most = len(queries), min(k, self.nodes)
        mask = np.zeros(0, np.uint8) if allowed is None else self.spread(allowed)
        found, scores = np.empty((count, most), np.int32), np.empty((count, most), np.float32)
        counts = np.zeros(3, np.int64)
        visited = np.empty(-(-self.nodes // 64), np.uint64)
        arrays = self._arrays if kernels.native() else self._placed
        vectors, codes, bits, facts, neighbours, entries, entry_codes = arrays
        rotated, squared = self._rotated(queries), self.frame.metric == "l2"
        ef = max(ef, most)
        module = kernels.searching()
        if tier == "graph":
            ranked = max(most, min(ef, 2 * most + _MORE_RANKED))
            module.search_graph(
                *(vectors, codes, bits, facts, neighbours, entries),
                *(entry_codes, mask, queries, rotated, np.float32(self.frame.scale)),
                *(np.float32(DEVIATIONS), squared, ef, ranked, visited, found, scores, counts),
            )
        elif tier == "blocks" and self.disk.blocks is not None and kernels.native():
            ranked = ef
            module.search_blocks(
                *(self.disk.blocks, self.disk.blocks.view(np.int32), self.graph.neighbours.shape[1]),
                *(self.disk.per_page, bits, facts, entries, mask, queries, rotated, squared),
                *(self.disk.descriptor, ef, _BEAM, visited, found, scores, counts),
            )
        else:
            ranked = max(most, min(ef, int(_BITS_RANKED * ef) + most))
            module.search_bits(
                *(vectors, bits, facts, neighbours, entries, mask, queries),
                *(rotated, squared, self.disk.vectors, ef, ranked, visited, found, scores, counts),
            )
        expanded, seen, measured = counts.tolist()
        effort = Effort(expanded, seen, measured, ranked * count)
        return *self._with_repeats(scores, found.astype(np.int64), allowed, k), effort

    def scan(self, queries: Float32, allowed: Bools | None, k: int) -> tuple[Float32, Int64, Effort]:
        """As `search`, by looking at the code of every allowed row."""
        chosen = np.arange(self.nodes) if allowed is None else np.flatnonzero(self.spread(allowed))
        count, most = len(queries), min(k, len(chosen))
        found, scores = np.empty((count, most), np.int32), np.empty((count, most), np.float32)
        ranked = 2 * most + _MORE_RANKED
        kernels.searching().scan_nodes(
            self.vectors,
            self.graph.codes,
            self.graph.bits.view(np.float32),
            chosen.astype(np.int32),
            queries,
            self._rotated(queries),
            np.float32(self.frame.scale),
            self.frame.metric == "l2",
            ranked,
            found,
            scores,
        )
        effort = Effort(0, 0, len(chosen) * count, min(ranked, len(chosen)) * count)
        return *self._with_repeats(scores, found.astype(np.int64), allowed, k), effort

    def _with_repeats(
        self, scores: Float32, rows: Int64, allowed: Bools | None, k: int
    ) -> tuple[Float32, Int64]:
        """Each found node's allowed rows in its place, as many as k leaves room for."""
        repeated = np.searchsorted(self.repeats, rows) < np.searchsorted(self.repeats, rows, side="right")
        if not repeated.any():
            return scores, rows
        most = min(k, rows.shape[1] + len(self.repeats))
        all_scores = np.full((len(rows), most), -np.inf, np.float32)
        all_rows = np.full((len(rows), most), -1, np.int64)
        all_scores[:, : rows.shape[1]], all_rows[:, : rows.shape[1]] = scores, rows
        for number in np.flatnonzero(repeated.any(axis=1)).tolist():
            line, values, filled = rows[number], scores[number], 0
            all_rows[number], all_scores[number] = -1, -np.inf
            for node, score in zip(line.tolist(), values.tolist(), strict=True):
                if node < 0 or filled == most:
                    break
                members = self.members(node, allowed)[: most - filled]
                all_rows[number, filled : filled + len(members)] = members
                all_scores[number, filled : filled + len(members)] = score
                filled += len(members)
        return all_scores, all_rows

    def members(self, node: int, allowed: Bools | None) -> Int64:
        """The allowed rows with a node's vector, itself first."""
        first, last = np.searchsorted(self.repeats, [node, node + 1]) + self.nodes
        rows = np.concatenate([[node], np.arange(first, last)]).astype(np.int64)
        return rows if allowed is None else rows[allowed[rows]]


def node_bytes(width: int, degree: int, tier: Tier) -> int:
    """Bytes of memory that a tier needs for a node of `width` rotated dimensions."""
    links = 4 * degree
    return 4 * rabitq.row_words(width) + {"graph": links + width, "bits": links, "blocks": 0}[tier]


def to_files(graph: Graph, arrangement: Arrangement) -> dict[str, NDArray[Any]]:
    """What is stored, by file."""
    parts = (graph.codes, graph.bits, graph.neighbours, graph.entries)
    return dict(zip(FILES, (*parts, arrangement.repeats, arrangement.frame.centre), strict=True))


def blocks_of(vectors: Float32, neighbours: Int32) -> Iterator[Float32]:
    """The blocks file of all nodes, some pages at a time."""
    step = _SLAB * block_shape(vectors.shape[1], neighbours.shape[1])[0]
    for start in range(0, len(neighbours), step):
        yield to_blocks(vectors, neighbours, start, min(start + step, len(neighbours)))


def to_blocks(vectors: Float32, neighbours: Int32, start: int, stop: int) -> Float32:
    """Pages for nodes [start, stop), start the first of a page: float32 (pages, words)."""
    per_page, words = block_shape(vectors.shape[1], neighbours.shape[1])
    pages = -(-(stop - start) // per_page)
    records = np.zeros((pages * per_page, vectors.shape[1] + neighbours.shape[1]), np.float32)
    records[: stop - start, : vectors.shape[1]] = vectors[start:stop]
    records[: stop - start, vectors.shape[1] :] = neighbours[start:stop].view(np.float32)
    found: Float32 = np.zeros((pages, words), np.float32)
    found[:, : per_page * records.shape[1]] = records.reshape(pages, -1)
    return found


def block_shape(dim: int, degree: int) -> tuple[int, int]:
    """Records per block, and float32 words of a block: whole pages, so that a record is one read."""
    record = 4 * (dim + degree)
    per_page = max(1, PAGE // record)
    return per_page, -(-record * per_page // PAGE) * PAGE // 4


def facts(arrangement: Arrangement, graph: Graph, ef: int) -> dict[str, float | int | str]:
    """What the files do not say themselves, for the segment's footer."""
    frame = arrangement.frame
    return {
        "nodes": arrangement.nodes,
        "degree": graph.neighbours.shape[1],
        "metric": frame.metric,
        "reach": frame.reach,
        "scale": frame.scale,
        "ef": ef,
    }


def from_files(
    data: Mapping[str, memoryview],
    facts: Mapping[str, Any],
    vectors: Float32,
    rows: int,
    descriptors: tuple[int, int] = (-1, -1),
) -> GraphIndex:
    """A graph from its mapped files; `descriptors` of the vectors' file and of the blocks'.

    ValueError if the files do not fit each other.
    """
    nodes, degree = int(facts["nodes"]), int(facts["degree"])
    centre = np.frombuffer(data["centre"], "<f4")
    frame = Frame(str(facts["metric"]), centre, float(facts["reach"]), float(facts["scale"]))
    graph = Graph(
        np.frombuffer(data["sq8"], np.int8).reshape(nodes, frame.width),
        np.frombuffer(data["rbq1"], "<u4").reshape(nodes, rabitq.row_words(frame.width)),
        np.frombuffer(data["graph"], "<i4").reshape(nodes, degree),
        np.frombuffer(data["entries"], "<i4"),
    )
    repeats = np.frombuffer(data["repeats"], "<i4")
    if len(repeats) != rows - nodes:
        raise ValueError(f"{len(repeats)} repeats for {rows} rows of {nodes} vectors")
    if graph.neighbours.max() >= nodes or graph.entries.max() >= nodes or graph.entries.min() < 0:
        raise ValueError("a neighbour is not a row")
    disk = OnDisk(descriptors[0])
    if BLOCKS in data:
        per_page, words = block_shape(vectors.shape[1], degree)
        blocks = np.frombuffer(data[BLOCKS], "<f4").reshape(-(-nodes // per_page), words)
        disk = OnDisk(descriptors[0], blocks, per_page, descriptors[1])
    return GraphIndex(frame, vectors, graph, repeats, graph.codes[graph.entries], disk, int(facts["ef"]))

"""The indexes that `experiments.bench.ann` compares: each is built, searched at several settings, weighed."""

import atexit
import mmap
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

K = 10
Search = Callable[[np.ndarray, int], np.ndarray]


@dataclass(frozen=True)
class Built:
    """`search(queries, setting)` gives ids (q, 10); `resident`: bytes that searches walk through;
    `forget` drops what is cached of its files."""

    search: Search
    resident: int
    forget: Callable[[], None] | None = None


@dataclass(frozen=True)
class Contender:
    name: str
    build: Callable[[np.ndarray, str], Built]
    settings: Sequence[int]


@lru_cache(maxsize=1)
def _graph(key: int) -> dict[str, Any]:
    """Kept for the tiers, which differ in what they read and not in what is built."""
    return {}


def _built(vectors: np.ndarray, metric: str) -> tuple[Any, Any, np.ndarray]:
    from stores.index.graph.arrange import arrange
    from stores.index.graph.build import build
    from stores.index.graph.points import Points

    kept = _graph(id(vectors))
    if not kept:
        arrangement = arrange(vectors, metric)
        ordered = np.ascontiguousarray(vectors[arrangement.order])
        kept["graph"] = build(Points(ordered, arrangement.frame, arrangement.nodes))
        kept["arrangement"], kept["ordered"] = arrangement, ordered
    return kept["arrangement"], kept["graph"], kept["ordered"]


def tarsia(vectors: np.ndarray, metric: str) -> Built:
    from stores.index.graph.index import GraphIndex

    arrangement, graph, ordered = _built(vectors, metric)
    codes = graph.codes[graph.entries]
    index = GraphIndex(arrangement.frame, ordered, graph, arrangement.repeats, codes)
    return _tier(index, arrangement.order, "graph")


def tarsia_bits(vectors: np.ndarray, metric: str) -> Built:
    """Bits and neighbours in memory, vectors in a file."""
    return _on_disk(vectors, metric, "bits")


def tarsia_blocks(vectors: np.ndarray, metric: str) -> Built:
    """Bits in memory, vectors with their neighbours in pages of a file."""
    return _on_disk(vectors, metric, "blocks")


def _tier(index: Any, order: np.ndarray, tier: str, forget: Callable[[], None] | None = None) -> Built:
    def search(queries: np.ndarray, ef: int) -> np.ndarray:
        return order[index.search(queries, None, K, ef, tier)[1]]

    return Built(search, index.nodes * index.node_bytes(tier), forget)


def _on_disk(vectors: np.ndarray, metric: str, tier: str) -> Built:
    from stores.index.graph.index import GraphIndex, OnDisk, block_shape, blocks_of

    arrangement, graph, ordered = _built(vectors, metric)
    folder = Path(tempfile.mkdtemp(prefix="tarsia-ann-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    ordered.tofile(folder / "vectors")
    with (folder / "blocks").open("wb") as file:
        for part in blocks_of(ordered, graph.neighbours):
            file.write(part.tobytes())
    per_page, words = block_shape(vectors.shape[1], graph.neighbours.shape[1])
    mapped = np.memmap(folder / "vectors", np.float32, "r", shape=ordered.shape)
    blocks = np.memmap(folder / "blocks", np.float32, "r").reshape(-1, words)
    files = [os.open(folder / name, os.O_RDONLY) for name in ("vectors", "blocks")]
    disk = OnDisk(files[0], blocks, per_page, files[1])
    codes = graph.codes[graph.entries]
    index = GraphIndex(arrangement.frame, mapped, graph, arrangement.repeats, codes, disk)

    def forget() -> None:
        """Drops the files' pages from memory, as far as the system lets us."""
        for file, pages in zip(files, (mapped, blocks), strict=True):
            os.fsync(file)
            pages._mmap.madvise(mmap.MADV_DONTNEED)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)

    return _tier(index, arrangement.order, tier, forget)


def hnswlib(vectors: np.ndarray, metric: str) -> Built:
    import hnswlib as peer

    index = peer.Index("l2" if metric == "l2" else "ip", vectors.shape[1])
    index.init_index(len(vectors), M=16, ef_construction=200)
    index.set_num_threads(1)
    index.add_items(vectors)

    def search(queries: np.ndarray, ef: int) -> np.ndarray:
        index.set_ef(ef)
        return index.knn_query(queries, K)[0]

    return Built(search, index.index_file_size())


def _faiss_metric(faiss: Any, metric: str) -> int:
    return faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT


def _faiss_size(faiss: Any, index: Any) -> int:
    return faiss.serialize_index(index).nbytes


def faiss_hnsw(vectors: np.ndarray, metric: str) -> Built:
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.IndexHNSWFlat(vectors.shape[1], 16, _faiss_metric(faiss, metric))
    index.hnsw.efConstruction = 200
    index.add(vectors)

    def search(queries: np.ndarray, ef: int) -> np.ndarray:
        index.hnsw.efSearch = ef
        return index.search(queries, K)[1]

    return Built(search, _faiss_size(faiss, index))


def faiss_ivf(vectors: np.ndarray, metric: str) -> Built:
    """Inverted lists of 4-bit product codes scanned in registers, the best 100 refined by 8-bit codes."""
    import faiss

    faiss.omp_set_num_threads(1)
    dim = vectors.shape[1]
    lists = 2 ** round(np.log2(max(16, 1.6 * len(vectors) ** 0.5)))
    description = f"IVF{lists},PQ{dim // 2}x4fs,Refine(SQ8)"
    index = faiss.index_factory(dim, description, _faiss_metric(faiss, metric))
    index.train(vectors[:: max(1, len(vectors) // 50_000)])
    index.add(vectors)
    index.k_factor = 10
    inverted = faiss.extract_index_ivf(index.base_index)

    def search(queries: np.ndarray, probes: int) -> np.ndarray:
        inverted.nprobe = probes
        return index.search(queries, K)[1]

    return Built(search, _faiss_size(faiss, index))


def usearch(vectors: np.ndarray, metric: str) -> Built:
    from usearch.index import Index

    name = "l2sq" if metric == "l2" else "ip"
    index = Index(ndim=vectors.shape[1], metric=name, dtype="f32", connectivity=16, expansion_add=200)
    index.add(np.arange(len(vectors)), vectors, threads=1)

    def search(queries: np.ndarray, expansion: int) -> np.ndarray:
        index.expansion_search = expansion
        return index.search(queries, K, threads=1).keys

    return Built(search, index.serialized_length)


_WIDTHS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384)
CONTENDERS = (
    Contender("tarsia", tarsia, (12, 16, 20, 24, 32, 48, 64, 96, 128, 192, 256)),
    Contender("tarsia, disk", tarsia_bits, (32, 48, 64, 96, 128, 192, 256)),
    Contender("tarsia, blocks", tarsia_blocks, (24, 32, 48, 64, 96, 128, 192)),
    Contender("hnswlib", hnswlib, _WIDTHS),
    Contender("faiss HNSW", faiss_hnsw, _WIDTHS),
    Contender("faiss IVF-PQ", faiss_ivf, (2, 4, 8, 16, 24, 32, 48, 64)),
    Contender("usearch", usearch, _WIDTHS),
)

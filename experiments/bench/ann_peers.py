"""The indexes that `experiments.bench.ann` compares: each is built, searched at several settings, weighed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

K = 10
Search = Callable[[np.ndarray, int], np.ndarray]


@dataclass(frozen=True)
class Built:
    """`search(queries, setting)` gives ids (q, 10); `resident`: bytes that searches walk through."""

    search: Search
    resident: int


@dataclass(frozen=True)
class Contender:
    name: str
    build: Callable[[np.ndarray, str], Built]
    settings: Sequence[int]


def tarsia(vectors: np.ndarray, metric: str) -> Built:
    from stores.index.graph.arrange import arrange
    from stores.index.graph.build import build
    from stores.index.graph.index import GraphIndex
    from stores.index.graph.points import Points

    arrangement = arrange(vectors, metric)
    ordered = np.ascontiguousarray(vectors[arrangement.order])
    graph = build(Points(ordered, arrangement.frame, arrangement.nodes))
    codes = graph.codes[graph.entries]
    index = GraphIndex(arrangement.frame, ordered, graph, arrangement.repeats, codes)
    arrays: list[np.ndarray[Any, Any]] = [graph.codes, graph.bits, graph.neighbours]

    def search(queries: np.ndarray, ef: int) -> np.ndarray:
        found = index.search(queries, None, K, ef)[1]
        return arrangement.order[found]

    return Built(search, sum(array.nbytes for array in arrays))


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
    Contender("hnswlib", hnswlib, _WIDTHS),
    Contender("faiss HNSW", faiss_hnsw, _WIDTHS),
    Contender("faiss IVF-PQ", faiss_ivf, (2, 4, 8, 16, 24, 32, 48, 64)),
    Contender("usearch", usearch, _WIDTHS),
)

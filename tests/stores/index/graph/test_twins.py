"""The kernels and their twins in JAX and NumPy do the same."""

import numpy as np
import pytest

from stores.index.graph import prune
from stores.index.graph.arrange import arrange
from stores.index.graph.build import build
from stores.index.graph.points import Points
from stores.index.kernels import prune as native_prune
from tests.stores.index.graph.test_graph import opened
from tests.stores.index.vectors import clustered, exact, recall

K = 10


def a_graph(rng: np.random.Generator, nodes: int, degree: int) -> np.ndarray:
    graph = np.full((nodes, degree), -1, np.int32)
    for node in range(nodes):
        others = rng.permutation(nodes)[: rng.integers(1, degree + 1)]
        others = others[others != node]
        graph[node, : len(others)] = others
    return graph


@pytest.mark.parametrize("most", [12, 40])
def test_reverse_edges(most: int) -> None:
    graph = a_graph(np.random.default_rng(0), 120, 8)
    results = []
    for module in (prune, native_prune):
        candidates, counts = np.full((120, most), -1, np.int32), np.zeros(120, np.int32)
        module.add_reverse(graph, candidates, counts)
        results.append([line[:count].tolist() for line, count in zip(candidates, counts, strict=True)])
    assert results[0] == results[1]


def test_lists_of_candidates_over_several_leaves() -> None:
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((300, 8)).astype(np.float32)
    results = []
    leaves = [np.sort(rng.permutation(300)[:size]).astype(np.int32) for size in (2, 30, 64, 150, 150, 7)]
    for module in (prune, native_prune):
        candidates, scores = np.zeros((300, 20), np.int32), np.zeros((300, 20), np.float32)
        counts = np.zeros(300, np.int32)
        for rows in leaves:
            near = vectors[rows] @ vectors[rows].T
            np.fill_diagonal(near, -np.inf)
            module.merge_leaf(rows, np.pad(near, ((0, 9), (0, 9))), 12, candidates, scores, counts)
        results.append([line[:count].tolist() for line, count in zip(candidates, counts, strict=True)])
    assert results[0] == results[1]


@pytest.mark.parametrize("few_stay", [False, True])
def test_pruned_neighbours(few_stay: bool) -> None:
    rng = np.random.default_rng(2)
    codes = rng.integers(-127, 128, (150, 64)).astype(np.int8)
    codes[40] = codes[41]
    squares = np.einsum("nd,nd->n", codes, codes, dtype=np.float32)
    candidates = np.stack([rng.permutation(150)[:30] for _ in range(150)]).astype(np.int32)
    counts = rng.integers(1, 31, 150).astype(np.int32)
    results = []
    for module in (prune, native_prune):
        graph = np.zeros((150, 10), np.int32)
        module.prune_rows(codes, squares, candidates, counts, np.float32(1.2), few_stay, 0, 150, graph)
        results.append(graph)
    assert (results[0] == results[1]).all()


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("share", [1.0, 0.2])
def test_searches(metric: str, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = clustered(2500, 40) * np.random.default_rng(4).uniform(0.5, 2, (2500, 1)).astype(np.float32)
    index, vectors = opened(rows if metric != "cosine" else clustered(2500, 40), metric)
    queries = clustered(2600, 40)[2500:]
    allowed = None if share == 1 else np.random.default_rng(3).random(2500) < share
    expected = exact(vectors, queries, metric)
    if allowed is not None:
        expected = np.where(allowed, expected, -np.inf)
    native = index.search(queries, allowed, K, 48)
    scanned = index.scan(queries, allowed, K)
    monkeypatch.setenv("TARSIA_OPS", "xla")
    portable = index.search(queries, allowed, K, 48)
    for scores, found, _ in (native, portable):
        assert recall([set(line.tolist()) for line in found], expected, K) > 0.95
        np.testing.assert_allclose(scores, np.take_along_axis(expected, found, 1), rtol=1e-5, atol=1e-5)
    assert np.mean(native[1] == portable[1]) > 0.95
    assert np.mean(index.scan(queries, allowed, K)[1] == scanned[1]) > 0.99


@pytest.mark.parametrize("metric", ["l2", "dot"])
def test_a_graph_built_without_kernels_is_the_same(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = clustered(900, 24) * np.random.default_rng(1).lognormal(0, 0.5, (900, 1)).astype(np.float32)
    points = Points(rows, arrange(rows, metric).frame, 900)
    native = build(points)
    monkeypatch.setenv("TARSIA_OPS", "xla")
    portable = build(points)
    assert np.mean(native.neighbours == portable.neighbours) > 0.99


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_searches_by_bits(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    index, vectors = opened(clustered(2500, 100), metric)
    queries = clustered(2600, 100)[2500:]
    native = index.search(queries, None, K, 120, "bits")
    monkeypatch.setenv("TARSIA_OPS", "xla")
    portable = index.search(queries, None, K, 120, "bits")
    assert recall([set(line.tolist()) for line in portable[1]], exact(vectors, queries, metric), K) > 0.95
    assert np.mean(native[1] == portable[1]) > 0.95

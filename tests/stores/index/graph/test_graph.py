import numpy as np
import pytest

from stores.index.graph.arrange import arrange
from stores.index.graph.build import build
from stores.index.graph.index import GraphIndex, Tier, block_shape, blocks_of, facts, from_files, to_files
from stores.index.graph.points import Points
from tests.stores.index.vectors import clustered, exact, recall

COUNT = 6000
K = 10


def opened(rows: np.ndarray, metric: str, *, blocks: bool = False) -> tuple[GraphIndex, np.ndarray]:
    """A graph over the rows by way of its files, and the rows in its order."""
    arrangement = arrange(rows, metric)
    vectors = np.ascontiguousarray(rows[arrangement.order])
    graph = build(Points(vectors, arrangement.frame, arrangement.nodes))
    data = {name: array.tobytes() for name, array in to_files(graph, arrangement).items()}
    maps = {name: memoryview(content) for name, content in data.items()}
    if blocks:
        maps["blocks"] = memoryview(b"".join(part.tobytes() for part in blocks_of(vectors, graph.neighbours)))
    return from_files(maps, facts(arrangement, graph, 96), vectors, len(rows)), vectors


def found_by(index: GraphIndex, queries: np.ndarray, allowed: np.ndarray | None = None, ef: int = 64):
    scores, rows, _ = index.search(queries, allowed, K, ef)
    return scores, [set(line.tolist()) - {-1} for line in rows]


DATA = {
    "cosine": lambda: clustered(COUNT, 96),
    "l2": lambda: clustered(COUNT, 96) * np.random.default_rng(5).uniform(0.5, 2, (COUNT, 1)).astype("f4"),
    "dot": lambda: clustered(COUNT, 96) * np.random.default_rng(5).uniform(0.2, 3, (COUNT, 1)).astype("f4"),
}


@pytest.mark.parametrize("metric", DATA)
def test_nearly_all_of_the_best_rows_are_found_with_their_exact_scores(metric: str) -> None:
    index, vectors = opened(DATA[metric](), metric)
    queries = clustered(200, 96, seed=0)[:200]
    expected = exact(vectors, queries, metric)
    scores, found = found_by(index, queries)
    assert recall(found, expected, K) > 0.95
    rows = index.search(queries, None, K, 64)[1]
    np.testing.assert_allclose(scores, np.take_along_axis(expected, rows, 1), atol=1e-5)


@pytest.mark.parametrize("spread", [0.4, 1.0])
def test_the_largest_inner_products_are_found_where_lengths_differ(spread: float) -> None:
    factors = np.random.default_rng(3).lognormal(0, spread, (20_000, 1)).astype(np.float32)
    index, vectors = opened(clustered(20_000, 64) * factors, "dot")
    queries = clustered(20_100, 64)[20_000:]
    assert recall(found_by(index, queries, ef=48)[1], exact(vectors, queries, "dot"), K) > 0.95


@pytest.mark.parametrize("dim", [7, 50, 700])
def test_few_and_many_dimensions(dim: int) -> None:
    index, vectors = opened(clustered(2500, dim), "cosine")
    queries = clustered(2600, dim)[2500:]
    assert recall(found_by(index, queries)[1], exact(vectors, queries, "cosine"), K) > 0.95


@pytest.mark.parametrize("share", [0.5, 0.1, 0.02])
def test_only_allowed_rows_are_found_and_nearly_all_of_the_best(share: float) -> None:
    index, vectors = opened(DATA["cosine"](), "cosine")
    queries = clustered(100, 96, seed=0)[:100]
    allowed = np.random.default_rng(3).random(COUNT) < share
    expected = np.where(allowed, exact(vectors, queries, "cosine"), -np.inf)
    _, found = found_by(index, queries, allowed, ef=int(64 / share**0.5))
    assert all(allowed[sorted(rows)].all() for rows in found)
    assert recall(found, expected, K) > 0.95
    scanned = index.scan(queries, allowed, K)[1]
    assert recall([set(line.tolist()) for line in scanned], expected, K) > 0.999


def test_a_thousand_copies_of_a_vector_neither_trap_a_search_nor_hide_each_other() -> None:
    rows = np.concatenate([clustered(2000, 32), np.repeat(clustered(3, 32, seed=9), 1000, axis=0)])
    index, vectors = opened(rows, "cosine")
    assert index.nodes == 2003
    queries = clustered(60, 32, seed=0)
    _, found = found_by(index, queries)
    assert recall(found, exact(vectors, queries, "cosine"), K) > 0.9
    copies = clustered(3, 32, seed=9)
    _, rows_found, _ = index.search(copies, None, 40, 64)
    assert all(len(set(line.tolist())) == 40 for line in rows_found)
    assert all((vectors[line] == copy).all() for line, copy in zip(rows_found, copies, strict=True))
    # One living copy is found among a thousand dead.
    allowed = np.zeros(len(rows), np.bool_)
    last = np.flatnonzero((vectors == copies[1]).all(axis=1))[-1]
    allowed[last] = True
    assert index.search(copies[1:2], allowed, 5, 64)[1].tolist() == [[last, -1, -1, -1, -1]]


def test_the_same_rows_give_the_same_graph() -> None:
    rows = clustered(1500, 24)
    first, second = (opened(rows, "l2")[0] for _ in range(2))
    assert (first.graph.neighbours == second.graph.neighbours).all()
    assert (first.graph.codes == second.graph.codes).all()


@pytest.mark.parametrize("rows", [np.ones((20, 4), "f4"), np.eye(8, dtype="f4"), clustered(9, 3)])
def test_tiny_and_alike_rows(rows: np.ndarray) -> None:
    index, vectors = opened(rows, "dot")
    scores, found, _ = index.search(rows[:1], None, 5, 16)
    expected = -np.sort(-exact(vectors, rows[:1], "dot"))[:, :5]
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    assert len(set(found[0].tolist())) == 5


def test_a_graph_stops_when_its_progress_raises() -> None:
    class Stop(Exception):
        pass

    def progress(share: float) -> None:
        shares.append(share)
        if share > 0.3:
            raise Stop

    shares: list[float] = []
    rows = clustered(3000, 16)
    with pytest.raises(Stop):
        build(Points(rows, arrange(rows, "cosine").frame, 3000), progress=progress)
    assert shares == sorted(shares)


def test_files_that_do_not_fit_are_refused() -> None:
    rows = clustered(300, 8)
    arrangement = arrange(rows, "cosine")
    graph = build(Points(rows[arrangement.order], arrangement.frame, arrangement.nodes))
    files = {name: array.copy() for name, array in to_files(graph, arrangement).items()}
    known = facts(arrangement, graph, 96)
    files["graph"][5, 0] = 300
    maps = {name: memoryview(array.tobytes()) for name, array in files.items()}
    with pytest.raises(ValueError, match="not a row"):
        from_files(maps, known, rows, 300)
    with pytest.raises(ValueError, match="repeats"):
        from_files(maps, known, rows, 301)


@pytest.mark.parametrize("metric", DATA)
@pytest.mark.parametrize("tier", ["bits", "blocks"])
@pytest.mark.parametrize("share", [1.0, 0.3])
def test_disk_tiers_find_what_the_graph_in_memory_finds(metric: str, tier: Tier, share: float) -> None:
    index, vectors = opened(DATA[metric](), metric, blocks=True)
    queries = clustered(200, 96, seed=0)[:200]
    allowed = None if share == 1 else np.random.default_rng(3).random(COUNT) < share
    expected = exact(vectors, queries, metric)
    if allowed is not None:
        expected = np.where(allowed, expected, -np.inf)
    scores, rows, effort = index.search(queries, allowed, K, 200, tier)
    assert recall([set(line.tolist()) for line in rows], expected, K) > 0.95
    np.testing.assert_allclose(scores, np.take_along_axis(expected, rows, 1), atol=1e-4)
    assert effort.ranked < 0.1 * COUNT * len(queries)


def test_a_block_is_whole_pages_and_holds_what_the_graph_does() -> None:
    for dim, degree in ((8, 48), (384, 48), (1536, 48)):
        vectors = np.random.default_rng(dim).standard_normal((301, dim)).astype(np.float32)
        links = np.random.default_rng(1).integers(-1, 301, (301, degree)).astype(np.int32)
        [blocks] = list(blocks_of(vectors, links))
        per_page, words = block_shape(dim, degree)
        assert words % 1024 == 0 and len(blocks) == -(-301 // per_page)
        records = blocks[:, : per_page * (dim + degree)].reshape(-1, dim + degree)[:301]
        assert (records[:, :dim] == vectors).all()
        assert (records[:, dim:].copy().view(np.int32) == links).all()

from pathlib import Path

import numpy as np
import pytest

from stores import Database, Options
from stores.collection import Collection
from stores.index import dispatch
from stores.index.trace import PartTrace
from tests.stores.index.vectors import clustered, exact, recall

COUNT = 3000
OPTIONS = Options(seal_rows=500, graph_rows=1000, background=False)


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return clustered(COUNT + 100, 48)


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory, rows: np.ndarray):
    with Database.open(tmp_path_factory.mktemp("db"), options=OPTIONS) as database:
        made = database.collection("rows", dim=48)
        for start in range(0, COUNT, 100):
            ids = [str(row) for row in range(start, start + 100)]
            made.upsert(ids, rows[start : start + 100], metadata=[{"n": int(id)} for id in ids])
        made.upsert(["-1", *map(str, range(5))], np.concatenate([rows[-1:], rows[:5]]))
        made.delete(["-1"])
        yield made


def planned(collection: Collection, queries: np.ndarray, allowed=None, **options) -> tuple[np.ndarray, list]:
    """Ids found by each query, and the tiers that answered."""
    view = collection._tree.view
    masks = [part.alive for part in view]
    if allowed is not None:
        for at, part in enumerate(view):
            passing = [allowed(int(part.rows.id(row))) for row in range(part.rows.count)]
            masks[at] = part.alive & np.array(passing)
    trace: list[PartTrace] = []
    _, places = dispatch.search(queries, view, masks, "cosine", 10, trace=trace, **options)
    parts = {part.rows.serial: part.rows for part in view}
    ids = [{int(parts[place >> 32].id(place & (2**32 - 1))) for place in line} for line in places.tolist()]
    return ids, trace


def test_graphs_and_flat_parts_answer_together(
    collection: Collection, rows: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "_FEWEST_TO_TRAVERSE", 500)
    monkeypatch.setattr(dispatch, "_MATCH_NS", 1e4)
    queries = rows[COUNT:]
    found, trace = planned(collection, queries)
    assert {part.tier for part in trace} == {"graph", "flat"}
    assert sum(part.allowed for part in trace) == COUNT == collection.count()
    assert recall(found, exact(rows[:COUNT], queries, "cosine"), 10) > 0.98


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("seal_rows", [200, 2000])
def test_codes_of_rows_without_a_graph_tell_the_best(tmp_path: Path, metric: str, seal_rows: int) -> None:
    made = clustered(1120, 100) * np.random.default_rng(2).uniform(0.5, 2, (1120, 1)).astype(np.float32)
    with Database.open(tmp_path, options=Options(seal_rows=seal_rows, background=False)) as database:
        collection = database.collection("rows", dim=100, metric=metric)
        for start in range(0, 1100, 100):
            collection.upsert([str(row) for row in range(start, start + 100)], made[start : start + 100])
            collection.search(made[0], 1)
        collection.delete([str(row) for row in range(0, 1100, 3)])
        for filter_ in (None, lambda id: id % 5 == 0):
            queries = made[1100:1108] if metric != "cosine" else made[1100:1108] / 7
            view = collection._tree.view
            ids = [np.array([int(part.rows.id(row)) for row in range(part.rows.count)]) for part in view]
            masks = [
                part.alive if filter_ is None else part.alive & np.array([filter_(id) for id in own])
                for part, own in zip(view, ids, strict=True)
            ]
            trace: list[PartTrace] = []
            scores, places = dispatch.search(queries, view, masks, metric, 10, trace=trace)
            assert {part.tier for part in trace} == {"codes"}
            expected, best = dispatch.search(queries, view, masks, metric, 10, exact=True)
            assert np.mean(places == best) > 0.99
            np.testing.assert_allclose(scores, expected, rtol=1e-4)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_where_codes_are_too_coarse_rows_without_a_graph_are_compared_exactly(
    tmp_path: Path, metric: str
) -> None:
    made = 10 + np.random.default_rng(0).standard_normal((1030, 128)).astype(np.float32)
    made[:, 3] *= 30
    with Database.open(tmp_path) as database:
        collection = database.collection("rows", dim=128, metric=metric)
        collection.upsert([str(row) for row in range(1000)], made[:1000])
        for query in made[1000:]:
            best = [hit.id for hit in collection.search(query, 10, exact=True)]
            assert [hit.id for hit in collection.search(query, 10)] == best


def test_exact_looks_at_every_row(collection: Collection, rows: np.ndarray) -> None:
    queries = rows[COUNT:]
    found, trace = planned(collection, queries, exact=True)
    assert {part.tier for part in trace} == {"flat"}
    assert recall(found, exact(rows[:COUNT], queries, "cosine"), 10) == 1


@pytest.mark.parametrize("match_ns", [1.0, 1e9], ids=["matches", "graph"])
@pytest.mark.parametrize("share", [0.5, 0.1, 0.01, 0.001])
def test_filters_keep_recall_at_every_selectivity(
    collection: Collection, rows: np.ndarray, share: float, match_ns: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "_FEWEST_TO_TRAVERSE", 1)
    monkeypatch.setattr(dispatch, "_MATCH_NS", match_ns)
    queries, step = rows[COUNT:], round(1 / share)
    found, trace = planned(collection, queries, lambda id: id % step == 0)
    expected = exact(rows[:COUNT], queries, "cosine")
    expected[:, np.arange(COUNT) % step != 0] = -np.inf
    k = min(10, COUNT // step)
    assert all(len(line) == k for line in found)
    assert recall(found, expected, k) > 0.97
    # With fewer than two matches for each of the k they are all looked at.
    by_graph = match_ns > 1 and share >= 0.1
    assert ("graph" in {part.tier for part in trace}) == by_graph


def test_a_filter_that_the_graph_leads_away_from_still_gives_every_row_there_is(
    collection: Collection, rows: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "_FEWEST_TO_TRAVERSE", 10)
    monkeypatch.setattr(dispatch, "_MATCH_NS", 1e9)
    # The farthest 60 rows: none of them is near what the search meets.
    far = set(np.argsort(rows[:COUNT] @ rows[COUNT])[:60].tolist())
    found, trace = planned(collection, rows[COUNT : COUNT + 1], lambda id: id in far, ef=16)
    assert len(found[0]) == 10 and found[0] <= far
    assert any("found too few" in part.reason for part in trace)


def test_more_than_there_are(collection: Collection) -> None:
    hits = collection.search(np.ones(48), k=10_000)
    assert len({hit.id for hit in hits}) == len(hits) == COUNT
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)

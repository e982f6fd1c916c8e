from pathlib import Path

import numpy as np
import pytest

from stores import Database, Options
from stores.index.graph.calibrate import WIDTHS, enough_ef
from stores.query.recall import Recall, Shadow
from stores.segment.view import Part
from tests.stores.index.graph.test_graph import opened
from tests.stores.index.test_flat import make_part
from tests.stores.index.vectors import clustered, exact, recall
from tests.stores.test_maintenance import wait_until


def run_at_once(job) -> None:
    job()


@pytest.fixture
def part() -> Part:
    vectors = clustered(500, 16)
    return make_part(1, vectors, np.ones(500, np.bool_))


def scores_of(part: Part, query: np.ndarray, ranks: list[int]) -> np.ndarray:
    return np.sort(part.rows.gather(np.arange(500)) @ query)[::-1][ranks].astype(np.float32)


def test_the_share_of_rows_as_good_as_the_last_is_measured(part: Part) -> None:
    shadow = Shadow(2, run_at_once)
    assert shadow.recall is None
    for number, query in enumerate(clustered(100, 16, seed=4)):
        ranks = [*range(8), 30, 31] if number % 8 == 1 else list(range(10))
        shadow.offer([part], [part.alive], query, "cosine", scores_of(part, query, ranks))
    found = shadow.recall
    assert found is not None and found.queries == 50
    assert found.recall == pytest.approx(0.948) and found.low < 0.948 < found.high
    assert found.high - found.low < 0.08


def test_searches_widen_until_recall_is_enough(part: Part) -> None:
    shadow = Shadow(1, run_at_once)
    factors = []
    for query in clustered(200, 16, seed=5):
        scores = scores_of(part, query, [0, 1, 2, 3, 4, 40, 41, 42, 43, 44])
        shadow.offer([part], [part.alive], query, "cosine", scores)
        factors.append(shadow.ef_factor)
    assert factors == sorted(factors) and factors[-1] == 8
    assert shadow.recall is not None and "larger ef" in str(shadow.recall.advice)
    assert Recall(1.0, 0.99, 1.0, 500, 1.0).advice is None


def test_stats_tell_recall_as_measured_in_the_background(tmp_path: Path) -> None:
    rows = clustered(1300, 24)
    options = Options(seal_rows=500, graph_rows=1000, shadow_every=1)
    with Database.open(tmp_path, options=options) as database:
        collection = database.collection("rows", dim=24)
        collection.upsert([str(row) for row in range(1200)], rows[:1200])
        collection.compact()
        assert collection.stats().recall is None

        def measured() -> bool:
            for query in rows[1200:]:
                collection.search(query, 10)
            found = collection.stats().recall
            return found is not None and found.queries >= 5 and found.recall > 0.9

        wait_until(measured)


def test_calibration_finds_what_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    index, vectors = opened(clustered(6000, 96), "cosine")
    ef = enough_ef(index)
    assert ef in WIDTHS
    queries = clustered(6200, 96)[6000:]
    found = [set(line.tolist()) for line in index.search(queries, None, 10, ef)[1]]
    assert recall(found, exact(vectors, queries, "cosine"), 10) > 0.95
    # Without structure all rows are about as far from each other: more must be kept.
    noise = np.random.default_rng(0).standard_normal((12_000, 256)).astype(np.float32)
    hard, vectors = opened(noise, "l2")
    assert enough_ef(hard) > ef

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.ops.distance import max_sim
from stores import Database, Options
from stores.collection import Collection
from stores.errors import InvalidQuery
from stores.query.hybrid import weigh
from stores.query.masks import Masks
from tests.stores.index.vectors import clustered

DIM = 32
COUNT = 1500
COLOURS = ["red", "green", "blue", None]


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return clustered(COUNT + 20, DIM)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory, vectors: np.ndarray):
    """A graph, a flat segment and a memtable."""
    options = Options(seal_rows=400, graph_rows=600, background=False)
    with Database.open(tmp_path_factory.mktemp("db"), options=options) as database:
        made = database.collection("rows", dim=DIM)
        for start, stop in ((0, 800), (800, COUNT)):
            for first in range(start, stop, 100):
                ids = range(first, min(first + 100, stop))
                made.upsert(
                    [str(id) for id in ids],
                    vectors[ids.start : ids.stop],
                    metadata=[metadata_of(id) for id in ids],
                    texts=[f"row number {id} of {COLOURS[id % 4]} things" for id in ids],
                )
            made.flush() if stop == COUNT else made.compact()
        made.upsert(["7"], vectors[7:8], metadata=[metadata_of(7)], texts=["the seventh row"])
        yield made


def metadata_of(id: int) -> dict:
    colour = COLOURS[id % 4]
    return {"n": id, "size": {"height": id % 7}} | ({"colour": colour} if colour else {})


def best(vectors: np.ndarray, query: np.ndarray, keep=lambda id: True) -> list[int]:
    scores = vectors[:COUNT] @ query
    return [id for id in np.argsort(-scores, kind="stable").tolist() if keep(id)]


def ids(hits) -> list[int]:
    return [int(hit.id) for hit in hits]


def test_pages_are_one_order_cut_up(rows: Collection, vectors: np.ndarray) -> None:
    query = vectors[COUNT]
    whole = ids(rows.search(query, 60, exact=True))
    pages = [ids(rows.search(query, 20, offset=offset, exact=True)) for offset in (0, 20, 40)]
    assert [id for page in pages for id in page] == whole == best(vectors, query)[:60]
    assert rows.search(query, 5, offset=COUNT) == []


def test_the_first_dimensions_choose_and_all_score(rows: Collection, vectors: np.ndarray) -> None:
    query = vectors[COUNT + 1]
    hits = rows.search(query, 10, dims=8, candidates=COUNT)
    assert ids(hits) == best(vectors, query)[:10]
    np.testing.assert_allclose([hit.score for hit in hits], vectors[ids(hits)] @ query, atol=1e-6)
    # Few candidates by 8 of 32 dimensions are not those of all.
    narrow = vectors[:COUNT, :8] / np.linalg.norm(vectors[:COUNT, :8], axis=1, keepdims=True)
    by_eight = set(np.argsort(-narrow @ query[:8])[:20].tolist())
    flat = {int(id) for id in rows.ids() if int(id) >= 800}
    found = set(ids(rows.search(query, 20, dims=8, candidates=20, exact=True)))
    assert found == by_eight and flat


def test_any_function_of_jax_orders_the_candidates(rows: Collection, vectors: np.ndarray) -> None:
    weights = jnp.arange(DIM, dtype=jnp.float32)

    def weighted(query: jax.Array, rows: jax.Array) -> jax.Array:
        return -jnp.sum(weights * (rows - query) ** 2, axis=1)

    query = vectors[COUNT + 2]
    hits = rows.search(query, 10, score=weighted, candidates=COUNT)
    expected = -(np.arange(DIM) * (vectors[:COUNT] - query) ** 2).sum(axis=1)
    assert ids(hits) == np.argsort(-expected)[:10].tolist()
    np.testing.assert_allclose([hit.score for hit in hits], np.sort(-expected)[:10] * -1, rtol=1e-5)
    np.testing.assert_allclose([hit.vector_score for hit in hits], vectors[ids(hits)] @ query, atol=1e-6)
    # Of the 40 nearest only.
    assert set(ids(rows.search(query, 10, score=weighted, candidates=40))) <= set(best(vectors, query)[:50])


def test_late_interaction_is_such_a_function(rows: Collection, vectors: np.ndarray) -> None:
    def tokens(query: jax.Array, rows: jax.Array) -> jax.Array:
        split = rows.reshape(len(rows), 4, -1)
        return max_sim(query.reshape(4, -1), split, jnp.ones(split.shape[:2], bool))

    query = vectors[3]
    assert ids(rows.search(query, 1, score=tokens)) == [3]


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (lambda query, rows: rows, "one number a row"),
        (lambda query, rows: jnp.sum(rows), "one number a row"),
        (lambda query, rows: rows @ query[:3], "failed"),
        (lambda query, rows: rows[:, 0] * jnp.nan, "NaN"),
        ("cosine", "must be a function"),
    ],
)
def test_a_score_that_is_none_is_refused(rows: Collection, vectors: np.ndarray, score, message: str) -> None:
    with pytest.raises(InvalidQuery, match=message):
        rows.search(vectors[0], 5, score=score)


@pytest.mark.parametrize("size", [1, 3])
def test_groups_are_those_of_the_best_rows(rows: Collection, vectors: np.ndarray, size: int) -> None:
    query = vectors[COUNT + 3]
    hits = rows.search(query, 5, group_by="size.height", group_size=size, exact=True)
    expected: dict[int, list[int]] = {}
    for id in best(vectors, query):
        expected.setdefault(id % 7, []).append(id)
    assert ids(hits) == [id for group in list(expected.values())[:5] for id in group[:size]]
    assert [hit.group for hit in hits] == [group for group in list(expected)[:5] for _ in range(size)]


def test_rows_without_the_field_are_in_no_group(rows: Collection, vectors: np.ndarray) -> None:
    hits = rows.search(vectors[COUNT + 4], 10, group_by="colour", group_size=2)
    assert sorted({hit.group for hit in hits}) == ["blue", "green", "red"]
    assert len(hits) == 6
    assert rows.search(vectors[0], 3, group_by="nothing") == []
    assert len(rows.search(None, 2, text="row", group_by="colour")) == 2


@pytest.mark.parametrize("limit", [5, 100, 10_000])
def test_a_range_is_all_rows_at_least_that_near(rows: Collection, vectors: np.ndarray, limit: int) -> None:
    query = vectors[COUNT + 5]
    scores = vectors[:COUNT] @ query
    least = float(np.sort(scores)[-130])
    hits = rows.search_range(query, min_score=least, limit=limit, exact=True)
    assert ids(hits) == best(vectors, query)[: min(130, limit)]
    near = rows.search_range(query, min_score=least, limit=limit)
    assert len(set(ids(near)) & set(ids(hits))) > 0.95 * len(hits)
    assert rows.search_range(query, min_score=2.0) == []


def test_weights_lean_to_words_or_to_vectors(rows: Collection, vectors: np.ndarray) -> None:
    query = vectors[COUNT + 6]
    lean = {
        weight: ids(rows.search(query, 5, text="seventh", fusion="weighted", text_weight=weight))
        for weight in (0.0, 1.0)
    }
    assert lean[1.0][0] == 7
    assert lean[0.0] == ids(rows.search(query, 5))


@given(
    st.lists(
        st.tuples(st.floats(0, 1), st.dictionaries(st.integers(0, 9), st.floats(-5, 5), max_size=8)),
        max_size=3,
    )
)
def test_weighing_keeps_an_order_that_all_lists_agree_on(lists) -> None:
    fused = dict(weigh(lists, 100))
    assert set(fused) == {item for _, scores in lists for item in scores}
    for first in fused:
        for second in fused:
            if all(scores.get(first, -9) >= scores.get(second, -9) for _, scores in lists) and all(
                (first in scores) or (second not in scores) for _, scores in lists
            ):
                assert fused[first] >= fused[second] - 1e-9


def test_an_explanation_says_what_was_looked_at(rows: Collection, vectors: np.ndarray) -> None:
    plain = rows.search(vectors[COUNT], 5, filter={"colour": "red"})
    hits = rows.search(vectors[COUNT], 5, filter={"colour": "red"}, explain=True)
    assert plain == hits and plain.explanation is None
    told = hits.explanation
    assert told is not None
    assert told.rows == COUNT and told.allowed == sum(1 for id in range(COUNT) if id % 4 == 0)
    assert {part.tier for part in told.parts} <= {"flat", "matches", "graph"} and len(told.parts) == 3
    assert sum(part.allowed for part in told.parts) == told.allowed
    assert 0 < told.search_milliseconds <= told.milliseconds
    assert "rows allowed" in str(told)
    scored = rows.search(vectors[0], 5, score=lambda q, v: v @ q, candidates=33, explain=True)
    assert scored.explanation is not None and scored.explanation.rescored == 33


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k must be"),
        ({"k": True}, "k must be"),
        ({"k": 10**9}, "the most is"),
        ({"offset": -1}, "offset"),
        ({"ef": 0}, "ef"),
        ({"dims": 0}, "dims"),
        ({"dims": DIM + 1}, "dims"),
        ({"candidates": 0}, "candidates"),
        ({"group_by": ""}, "group_by"),
        ({"group_size": 0}, "group_size"),
        ({"fusion": "sum"}, "rrf, weighted"),
        ({"text_weight": 1.5}, "text_weight"),
        ({"text_weight": "much"}, "text_weight"),
    ],
)
def test_options_that_mean_nothing_are_refused(rows: Collection, options: dict, message: str) -> None:
    with pytest.raises(InvalidQuery, match=message):
        rows.search(np.ones(DIM), **options)


def test_what_is_about_vectors_needs_one(rows: Collection) -> None:
    for options in ({"dims": 4}, {"score": lambda query, rows: rows[:, 0]}):
        with pytest.raises(InvalidQuery, match="give a vector"):
            rows.search(None, text="row", **options)


def test_filters_are_remembered_by_what_they_say(rows: Collection, vectors: np.ndarray) -> None:
    for filter in ({"n": 1}, {"n": 1.0}, {"n": True}, {"n": "1"}, {"n": {"$in": [1]}}):
        for _ in range(2):
            found = [hit.id for hit in rows.search(vectors[1], 3, filter=filter)]
            assert found == ([] if filter["n"] in ("1",) or filter["n"] is True else ["1"]), filter


def test_the_least_used_masks_are_forgotten() -> None:
    masks = Masks(most_bytes=250)
    for name in "abc":
        masks.put(name, np.ones(100, np.bool_))
        masks.get("a")
    assert masks.get("a") is not None and masks.get("b") is None and masks.get("c") is not None


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 6))
def test_iterating_by_a_filter(rows: Collection, height: int) -> None:
    found = sorted(int(row.id) for row in rows.iterate(filter={"size.height": height}))
    assert found == [id for id in range(COUNT) if id % 7 == height]


def test_deleting_by_a_filter_is_durable_and_whole(tmp_path) -> None:
    with Database.open(tmp_path) as database:
        made = database.collection("rows", dim=2)
        made.upsert([str(id) for id in range(50)], np.ones((50, 2)), metadata=[{"n": id} for id in range(50)])
        assert made.delete(filter={"n": {"$gte": 30}}) == 20
        assert made.delete(filter={"n": {"$gte": 30}}) == 0
        for wrong in ({}, {"ids": ["1"], "filter": {}}):
            with pytest.raises(InvalidQuery, match="ids or a filter"):
                made.delete(**wrong)
        with pytest.raises(InvalidQuery, match="unknown operator"):
            made.delete(filter={"n": {"$near": 1}})
    with Database.open(tmp_path) as database:
        assert sorted(int(id) for id in database.collection("rows").ids()) == list(range(30))

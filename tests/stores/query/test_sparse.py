from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stores import Database, Options
from stores.collection import Collection
from stores.errors import InvalidQuery, InvalidRow
from stores.interchange import export_rows, import_rows
from stores.query.sparse import Inverted
from stores.segment.batch import Batch
from stores.segment.sparse import as_mapping, encode_sparse

OPTIONS = Options(seal_rows=100, graph_rows=150, background=False)
ENTRIES = st.dictionaries(
    st.integers(0, 2**32 - 1), st.floats(-8, 8, width=32, allow_subnormal=False).filter(bool), max_size=8
)


def some_sparse(count: int) -> list[dict[int, float] | None]:
    rng = np.random.default_rng(count)
    made: list[dict[int, float] | None] = []
    for row in range(count):
        indices = rng.choice(60, 6, replace=False).tolist()
        made.append(dict(zip(indices, rng.integers(1, 9, 6).tolist(), strict=True)) if row % 5 else None)
    return made


@pytest.fixture
def rows(tmp_path: Path):
    with Database.open(tmp_path, options=OPTIONS) as database:
        made = database.collection("rows", dim=4)
        sparse = some_sparse(330)
        vectors = np.random.default_rng(0).standard_normal((330, 4))
        for start in range(0, 330, 30):
            part = slice(start, start + 30)
            ids = [str(row) for row in range(start, start + 30)]
            texts = [f"word{row % 7}" for row in range(start, start + 30)]
            made.upsert(ids, vectors[part], texts=texts, sparse=sparse[part])
        made.delete(["7"])
        yield made


def products(query: dict[int, float]) -> dict[str, float]:
    sparse = some_sparse(330)
    found = {
        str(row): sum(weight * query.get(index, 0) for index, weight in entries.items())
        for row, entries in enumerate(sparse)
        if entries and row != 7
    }
    return {id: score for id, score in found.items() if score > 0}


def check_search(rows: Collection) -> None:
    query = {3: 2.0, 17: 1.0, 59: 0.5, 100: 9.0}
    expected = products(query)
    hits = rows.search(None, 400, sparse=query)
    assert {hit.id: hit.score for hit in hits} == pytest.approx(expected)
    assert [hit.score for hit in hits] == sorted(expected.values(), reverse=True)
    assert all(hit.sparse_score == hit.score and hit.vector_score is None for hit in hits)


def test_the_inner_product_orders_rows_wherever_they_are_stored(rows: Collection) -> None:
    check_search(rows)
    rows.compact()
    check_search(rows)
    rows.verify()
    [row] = rows.get(["11"])
    assert row.sparse == some_sparse(330)[11] and rows.get(["10"])[0].sparse is None


def test_it_survives_reopening_and_snapshots(tmp_path: Path) -> None:
    for _ in range(2):
        with Database.open(tmp_path, options=OPTIONS) as database:
            rows = database.collection("rows", dim=2)
            if not rows.count():
                rows.upsert(["a", "b"], np.eye(2), sparse=[{5: 1.5}, None])
            assert rows.get(["a"])[0].sparse == {5: 1.5}
    with Database.open(tmp_path, options=OPTIONS) as database:
        database.collection("rows").snapshot("s")
        assert database.restore("rows", "s", into="again").get(["a"])[0].sparse == {5: 1.5}


def test_it_is_fused_with_vectors_and_words(rows: Collection) -> None:
    query = np.ones(4)
    hits = rows.search(query, 20, sparse={3: 1.0}, text="word3")
    assert any(hit.sparse_score and hit.text_score for hit in hits)
    assert all(hit.vector_score is not None for hit in hits)
    lexical = rows.search(None, 5, sparse={3: 1.0}, text="word3", fusion="weighted")
    assert all((hit.sparse_score or 0) > 0 or (hit.text_score or 0) > 0 for hit in lexical)
    only = rows.search(query, 5, sparse={3: 1.0}, fusion="weighted", text_weight=1.0)
    alone = rows.search(None, 5, sparse={3: 1.0})
    assert [hit.sparse_score for hit in only] == [hit.score for hit in alone]


def test_jsonl_carries_it(rows: Collection, tmp_path: Path) -> None:
    export_rows(rows, tmp_path / "out.jsonl")
    with Database.open(tmp_path / "other") as database:
        import_rows(lambda dim: database.collection("rows", dim=dim), tmp_path / "out.jsonl")
        again = database.collection("rows")
        assert {row.id: row.sparse for row in again} == {row.id: row.sparse for row in rows}


@pytest.mark.parametrize(
    "wrong",
    [
        *([1, 2], {"a": 1.0}, {-1: 1.0}, {2**32: 1.0}, {True: 1.0}),
        *({1: "x"}, {1: float("nan")}, {1: 1e39}, {1: None}),
    ],
)
def test_what_is_no_sparse_vector_is_refused(rows: Collection, wrong) -> None:
    with pytest.raises(InvalidRow, match="row 1"):
        rows.upsert(["x", "y"], np.ones((2, 4)), sparse=[None, wrong])
    with pytest.raises(InvalidQuery, match="sparse"):
        rows.search(None, sparse=wrong)
    assert "x" not in rows


@settings(deadline=None)
@given(st.lists(st.none() | ENTRIES, max_size=6))
def test_bytes_and_postings_hold_what_went_in(entries: list) -> None:
    stored = [encode_sparse(row, value) for row, value in enumerate(entries)]
    assert [as_mapping(data) for data in stored] == [value or None for value in entries]
    inverted = Inverted(stored)
    for index in {index for value in entries if value for index in value}:
        rows, weights = inverted.find(index)
        expected = [(row, value[index]) for row, value in enumerate(entries) if value and index in value]
        assert list(zip(rows.tolist(), weights.tolist(), strict=True)) == expected
    assert len(inverted.find(12345)[0]) == sum(1 for value in entries if value and 12345 in value)
    ids = [str(row).encode() for row in range(len(entries))]
    none = [None] * len(entries)
    batch = Batch(ids, none, none, np.zeros((len(ids), 2), np.float32), stored)
    kind, parts = batch.to_record()
    again = Batch.of_record(kind, b"".join(parts))
    assert list(again.sparse or none) == stored and again.ids == ids

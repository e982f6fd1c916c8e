"""What a collection refuses, and by which name."""

from pathlib import Path

import numpy as np
import pytest

from stores import Database, Options
from stores.errors import DimensionMismatch, InvalidQuery, InvalidRow, InvalidVector, ModelMismatch

DIM = 12


@pytest.fixture
def database(tmp_path: Path):
    with Database.open(tmp_path / "db", options=Options(seal_rows=100, background=False)) as opened:
        yield opened


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39])
def test_a_row_that_is_not_finite_is_named_and_nothing_is_stored(database: Database, bad: float) -> None:
    collection = database.collection("docs", dim=2)
    with pytest.raises(InvalidVector, match="row 1") as caught:
        collection.upsert(["a", "b", "c"], [[1, 0], [0, bad], [1, 1]])
    assert caught.value.row == 1
    assert collection.count() == 0
    with pytest.raises(InvalidVector):
        collection.search([bad, 1])


def test_a_zero_vector_has_no_cosine(database: Database) -> None:
    with pytest.raises(InvalidVector, match="row 1: the vector is all zeros"):
        database.collection("cosine", dim=2).upsert(["a", "b"], [[1, 0], [0, 0]])
    dots = database.collection("dots", dim=2, metric="dot")
    dots.upsert(["a", "b"], [[1, 0], [0, 0]])
    assert [hit.id for hit in dots.search([1, 1])] == ["a", "b"]


@pytest.mark.parametrize(
    ("ids", "arguments", "error", "message"),
    [
        (["a", "a"], {}, InvalidRow, "row 1: id 'a' is also row 0's"),
        (["a", ""], {}, InvalidRow, "row 1"),
        (["a", 7], {}, InvalidRow, "the id must be text, not int"),
        (["a", "x" * 1025], {}, InvalidRow, "1 to 1024 bytes"),
        (["a", "\ud800"], {}, InvalidRow, "surrogate"),
        ("ab", {}, InvalidQuery, "a list of texts"),
        (["a"], {}, InvalidQuery, "vectors has 2 rows, ids has 1"),
        (["a", "b"], {"texts": ["x"]}, InvalidQuery, "texts has 1 rows"),
        (["a", "b"], {"texts": ["x", b"y"]}, InvalidRow, "row 1: text must be text"),
        (["a", "b"], {"metadata": [{}, {"x": object()}]}, InvalidRow, "row 1: metadata must be JSON"),
        (["a", "b"], {"metadata": [{"x": float("nan")}, {}]}, InvalidRow, "row 0: metadata must be JSON"),
        (["a", "b"], {"metadata": [{1: 2}, {}]}, InvalidRow, "text keys"),
        (["a", "b"], {"metadata": [[], {}]}, InvalidRow, "must be an object"),
    ],
)
def test_a_bad_batch_is_refused_whole(database: Database, ids, arguments, error, message) -> None:
    collection = database.collection("docs", dim=2)
    with pytest.raises(error, match=message):
        collection.upsert(ids, [[1, 0], [0, 1]], **arguments)
    assert collection.count() == 0
    assert collection.stats().records == 0


@pytest.mark.parametrize("vectors", [[[1, 2, 3]], [1, 2], [[[1, 2]]], [["a", "b"]], [[1, 2], [3]]])
def test_vectors_of_another_shape_are_refused(database: Database, vectors) -> None:
    with pytest.raises((DimensionMismatch, InvalidQuery)):
        database.collection("docs", dim=2).upsert(["a"], vectors)


def test_queries_that_mean_nothing_are_refused(database: Database) -> None:
    collection = database.collection("docs", dim=2, model="one")
    for k in (0, -1, 1.5, True):
        with pytest.raises(InvalidQuery, match="k must be"):
            collection.search([1, 0], k)
    with pytest.raises(InvalidQuery, match="a vector, a text or a sparse"):
        collection.search(None)
    with pytest.raises(InvalidQuery, match="search_batch"):
        collection.search([[1, 0]])
    with pytest.raises(DimensionMismatch, match="3 dimensions, the collection 2"):
        collection.search([1, 0, 0])
    with pytest.raises(ModelMismatch, match="reembed"):
        collection.search([1, 0], model="two")
    with pytest.raises(ModelMismatch):
        collection.upsert(["a"], [[1, 0]], model="two")
    assert collection.upsert(["a"], [[1, 0]], model="one") == 1

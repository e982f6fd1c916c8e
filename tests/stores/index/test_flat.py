import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stores.index import flat
from stores.index.flat import BLOCK_ROWS, padded_rows, scores_of, search
from stores.segment.batch import Batch
from stores.segment.memtable import Memtable
from stores.segment.view import Part, unpack


def make_part(serial: int, vectors: np.ndarray, alive: np.ndarray) -> Part:
    ids = [str(row).encode() for row in range(len(vectors))]
    none = [None] * len(ids)
    return Part(Memtable(serial, vectors.shape[1]).append(Batch(ids, none, none, vectors)), alive)


@given(st.integers(1, 5 * BLOCK_ROWS))
def test_padding_is_a_bucket_that_wastes_at_most_a_quarter(count: int) -> None:
    size = padded_rows(count)
    assert size >= count and size % 32 == 0
    assert size <= max(256, count * 1.34)
    assert padded_rows(size) == size


def test_buckets_are_few() -> None:
    sizes = {padded_rows(count) for count in range(1, BLOCK_ROWS + 1)}
    assert len(sizes) <= 4 * 8 + 1
    assert max(sizes) == BLOCK_ROWS


def test_inserting_row_by_row_compiles_no_program_per_row() -> None:
    rng = np.random.default_rng(0)
    flat._scan.clear_cache()
    for count in range(1, 200, 3):
        vectors = rng.standard_normal((count, 7)).astype(np.float32)
        part = make_part(1, vectors, np.ones(count, np.bool_))
        search(vectors[:1], [part], [part.alive], "dot", 10)
    assert flat._scan._cache_size() == 1


@pytest.mark.parametrize("count", [1, 256, 257, BLOCK_ROWS, BLOCK_ROWS + 1, BLOCK_ROWS + 700])
def test_rows_in_any_block_are_found(count: int) -> None:
    vectors = np.zeros((count, 2), np.float32)
    vectors[-1] = [5, 0]
    vectors[0] = [3, 0] if count > 1 else [5, 0]
    part = make_part(4, vectors, np.ones(count, np.bool_))
    scores, places = search(np.array([[1, 0]], np.float32), [part], [part.alive], "dot", 2)
    found = [unpack(place) for place in places[0].tolist()]
    assert found == [(4, count - 1), (4, 0)][: min(2, count)]
    assert scores[0].tolist() == [5, 3][: min(2, count)]


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_the_best_of_all_parts_and_only_of_allowed_rows(data) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    parts, allowed, expected = [], [], []
    for serial in range(1, data.draw(st.integers(1, 4)) + 1):
        count = data.draw(st.sampled_from([1, 20, 300]))
        vectors = rng.integers(-5, 6, (count, 3)).astype(np.float32)
        mask = rng.random(count) < data.draw(st.sampled_from([0, 0.05, 0.9]))
        parts.append(make_part(serial, vectors, mask))
        allowed.append(mask)
        expected += [(vectors[row], (serial, row)) for row in np.flatnonzero(mask)]
    queries = rng.integers(-5, 6, (data.draw(st.integers(1, 5)), 3)).astype(np.float32)
    k = data.draw(st.integers(1, 40))
    scores, places = search(queries, parts, allowed, "l2", k)
    assert scores.shape == places.shape == (len(queries), min(k, len(expected)))
    for query, row_scores, row_places in zip(queries, scores, places, strict=True):
        true = {place: -float(((vector - query) ** 2).sum()) for vector, place in expected}
        assert row_scores.tolist() == sorted(true.values(), reverse=True)[:k]
        found = [unpack(place) for place in row_places.tolist()]
        assert len(set(found)) == len(found)
        assert [true[place] for place in found] == row_scores.tolist()


def test_many_queries_are_answered_in_chunks() -> None:
    vectors = np.eye(8, dtype=np.float32)
    part = make_part(1, vectors, np.ones(8, np.bool_))
    queries = np.tile(vectors, (75, 1))
    _, places = search(queries, [part], [part.alive], "cosine", 1)
    assert [unpack(place)[1] for place in places[:, 0].tolist()] == list(range(8)) * 75


def test_scores_of_known_rows_are_the_metric() -> None:
    queries, vectors = np.array([[1, 2]], np.float32), np.array([[3, 4], [0, 0]], np.float32)
    assert scores_of(queries, vectors, "dot").tolist() == [[11, 0]]
    assert scores_of(queries, vectors, "l2").tolist() == [[-8, -5]]

from pathlib import Path

import numpy as np
import pytest

from stores import Database, Options
from stores.errors import DimensionMismatch, InvalidQuery
from stores.interchange import export_rows, import_rows

OPTIONS = Options(seal_rows=200, graph_rows=300, background=False)


@pytest.mark.parametrize("bits", [8, 40, 96, 384])
def test_search_counts_differing_bits(tmp_path: Path, bits: int) -> None:
    rng = np.random.default_rng(bits)
    rows = rng.integers(0, 256, (700, bits // 8), np.uint8)
    queries = rng.integers(0, 256, (5, bits // 8), np.uint8)
    with Database.open(tmp_path, options=OPTIONS) as database:
        collection = database.collection("bits", dim=bits, metric="hamming")
        for start in range(0, 700, 100):
            collection.upsert([str(row) for row in range(start, start + 100)], rows[start : start + 100])
        collection.compact()
        collection.upsert(["0"], rows[:1])
    with Database.open(tmp_path, options=OPTIONS) as database:
        collection = database.collection("bits", metric="hamming")
        apart = np.bitwise_count(rows[None] ^ queries[:, None]).sum(axis=2, dtype=np.int64)
        for query, distances in zip(queries, apart, strict=True):
            hits = collection.search(query, 20)
            assert [hit.score for hit in hits] == sorted((-distances).tolist(), reverse=True)[:20]
            assert all(-distances[int(hit.id)] == hit.score for hit in hits)
        [first, other] = collection.get(["0", "699"])
        assert first.vector.dtype == np.uint8
        assert (first.vector == rows[0]).all() and (other.vector == rows[699]).all()
        export_rows(collection, tmp_path / "bits.jsonl")
        again = database.collection("again", dim=bits, metric="hamming")
        import_rows(lambda dim: again, tmp_path / "bits.jsonl")
        assert (again.get(["37"])[0].vector == rows[37]).all()


@pytest.mark.parametrize("wrong", [[[0.5, 1]], [[-1, 0]], [[256, 0]], [[np.nan, 0]], [["a", "b"]], [1, 2]])
def test_what_is_no_matrix_of_bytes_is_refused(tmp_path: Path, wrong) -> None:
    with Database.open(tmp_path) as database:
        collection = database.collection("bits", dim=16, metric="hamming")
        with pytest.raises(InvalidQuery, match="bytes"):
            collection.upsert(["a"], wrong)


def test_bits_are_whole_bytes_of_the_right_number(tmp_path: Path) -> None:
    with Database.open(tmp_path) as database:
        with pytest.raises(InvalidQuery, match="multiple of 8"):
            database.collection("odd", dim=12, metric="hamming")
        collection = database.collection("bits", dim=16, metric="hamming")
        with pytest.raises(DimensionMismatch, match="3 bytes"):
            collection.upsert(["a"], np.zeros((1, 3), np.uint8))
        collection.upsert(["a"], [[1, 255]])
        for options in ({"dims": 8}, {"score": lambda query, rows: rows[:, 0]}):
            with pytest.raises(InvalidQuery, match="not of bits"):
                collection.search([1, 255], **options)
        assert collection.search([1, 254])[0].score == -1

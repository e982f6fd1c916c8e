import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stores import Database
from stores.collection import Collection
from stores.errors import InvalidQuery, StoreError
from stores.interchange import export_rows, import_rows

DIM = 5
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PLAIN = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT
JSON = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3))
ROW = st.tuples(
    st.lists(st.floats(-(2.0**60), 2.0**60, width=32, allow_subnormal=False), min_size=DIM, max_size=DIM),
    st.none() | st.dictionaries(TEXT, JSON, max_size=3),
    st.none() | TEXT,
)
IDS = TEXT.filter(lambda id: 1 <= len(id.encode()) <= 60)


@pytest.fixture
def database(tmp_path: Path):
    with Database.open(tmp_path / "db") as opened:
        yield opened


def filled(database: Database, count: int = 2500) -> Collection:
    rows = database.collection("rows", dim=DIM, metric="l2")
    vectors = np.random.default_rng(0).standard_normal((count, DIM)).astype(np.float32)
    ids = [f"id {number}" for number in range(count)]
    nested = {"list": [1, None, "ü"]}
    metadata = [{"n": number, "nested": nested} if number % 3 else None for number in range(count)]
    texts = [f"text\n{number} 星" if number % 2 else None for number in range(count)]
    sparse = [{number: 0.5, 2**32 - 1: -1.25} if number % 5 == 1 else None for number in range(count)]
    rows.upsert(ids, vectors, metadata=metadata, texts=texts, sparse=sparse)
    return rows


def content(rows: Collection) -> dict[str, tuple]:
    return {row.id: (row.vector.tolist(), row.metadata, row.text, row.sparse) for row in rows}


@pytest.mark.parametrize("format", ["jsonl", "npz", "parquet"])
def test_everything_comes_back(database: Database, tmp_path: Path, format: str) -> None:
    rows = filled(database)
    seen: list[int] = []
    report = export_rows(rows, tmp_path / f"out.{format}", progress=seen.append)
    assert (report.rows, report.dim, report.format) == (2500, DIM, format) and seen == [1000, 2000, 2500]
    report = import_rows(
        lambda dim: database.collection("again", dim=dim, metric="l2"), tmp_path / f"out.{format}"
    )
    assert report.rows == 2500
    assert content(database.collection("again")) == content(rows)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["db", f"out.{format}"]


@pytest.mark.parametrize("format", ["npy", "fvecs"])
def test_vectors_alone_come_back_by_number(database: Database, tmp_path: Path, format: str) -> None:
    rows = filled(database)
    export_rows(rows, tmp_path / f"out.{format}", filter={"n": {"$lt": 1500}})
    import_rows(lambda dim: database.collection("again", dim=dim, metric="l2"), tmp_path / f"out.{format}")
    expected = [row.vector.tolist() for row in rows.iterate(filter={"n": {"$lt": 1500}})]
    again = database.collection("again").get([str(number) for number in range(len(expected))])
    assert [row.vector.tolist() for row in again] == expected
    if format == "npy":
        assert np.load(tmp_path / "out.npy").tolist() == expected


@settings(deadline=None, max_examples=40)
@given(st.dictionaries(IDS, ROW, min_size=1, max_size=5))
def test_any_rows_go_through_jsonl(tmp_path_factory: pytest.TempPathFactory, rows: dict[str, tuple]) -> None:
    folder = tmp_path_factory.mktemp("any")
    with Database.open(folder / "db") as database:
        made = database.collection("rows", dim=DIM, metric="dot")
        vectors, metadata, texts = (list(column) for column in zip(*rows.values(), strict=True))
        made.upsert(list(rows), vectors, metadata=metadata, texts=texts)
        export_rows(made, folder / "out.jsonl")
        import_rows(lambda dim: database.collection("again", dim=dim, metric="dot"), folder / "out.jsonl")
        assert content(database.collection("again")) == content(made)


@pytest.mark.parametrize(
    "kind",
    [
        pyarrow.list_(pyarrow.float64()),
        pyarrow.list_(pyarrow.float32(), DIM),
        pyarrow.large_list(pyarrow.float16()),
        pyarrow.list_(pyarrow.int8()),
    ],
    ids=str,
)
def test_parquet_of_others(database: Database, tmp_path: Path, kind: pyarrow.DataType) -> None:
    vectors = [[1, 2, 3, 4, number] for number in range(5)]
    values = np.array(vectors, np.float16) if "half" in str(kind) else vectors
    table = pyarrow.table(
        {
            "_id": list(range(5)),
            "embedding": pyarrow.array(list(values) if "half" in str(kind) else vectors, kind),
            "year": [2020, None, 2022, 2023, 2024],
            "tags": [["a"], [], None, ["b", "c"], ["d"]],
            "document": ["eins", None, "drei", "vier", "fünf"],
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "in.parquet", row_group_size=2)
    import_rows(lambda dim: database.collection("rows", dim=dim, metric="l2"), tmp_path / "in.parquet")
    [first, second] = database.collection("rows").get(["0", "1"])
    assert (first.vector.tolist(), first.text) == ([1, 2, 3, 4, 0], "eins")
    assert first.metadata == {"year": 2020, "tags": ["a"]}
    assert (second.metadata, second.text) == ({"tags": []}, None)


@pytest.mark.parametrize("kind", ["text", "list", "weights"])
def test_parquet_whose_sparse_column_is_something_else_is_refused(
    database: Database, tmp_path: Path, kind: str
) -> None:
    values = {
        "text": ["a"],
        "list": [[1.0]],
        "weights": pyarrow.array([[("a", 1.0)]], pyarrow.map_("string", "float")),
    }
    table = pyarrow.table({"vector": [[1.0, 2.0]], "sparse": values[kind]})
    pyarrow.parquet.write_table(table, tmp_path / "in.parquet")
    with pytest.raises(InvalidQuery, match=r"sparse must be maps|a sparse index is"):
        import_rows(lambda dim: database.collection("rows", dim=dim, metric="l2"), tmp_path / "in.parquet")


@pytest.mark.parametrize(
    "changed",
    [
        {"sparse_indptr": np.array([0, 1])},
        {"sparse_indptr": np.array([0, 2, 1])},
        {"sparse_indptr": np.array([0.0, 1, 1])},
        {"sparse_indices": np.array([3, 4])},
        {"sparse_indices": np.array(["3"])},
        {"sparse_data": None},
    ],
    ids=str,
)
def test_compressed_rows_that_are_none_are_refused(database: Database, tmp_path: Path, changed) -> None:
    whole = {"sparse_indptr": np.array([0, 1, 1]), "sparse_indices": np.array([3]), "sparse_data": np.ones(1)}
    for arrays, good in ((whole, True), (whole | changed, False)):
        kept = {name: array for name, array in arrays.items() if array is not None}
        np.savez(tmp_path / "in.npz", vectors=np.ones((2, 2)), **kept)
        opened = lambda dim: database.collection("rows", dim=dim, metric="l2")  # noqa: E731
        if good:
            import_rows(opened, tmp_path / "in.npz")
            assert [row.sparse for row in database.collection("rows").get(["0", "1"])] == [{3: 1.0}, None]
        else:
            with pytest.raises(InvalidQuery, match="sparse"):
                import_rows(opened, tmp_path / "in.npz")


def test_ivecs_and_bvecs(database: Database, tmp_path: Path) -> None:
    for suffix, kind in ((".ivecs", "<i4"), (".bvecs", "u1")):
        parts = [np.int32(3).tobytes() + np.array([1, 2, number], kind).tobytes() for number in range(4)]
        (tmp_path / f"in{suffix}").write_bytes(b"".join(parts))
        name = suffix[1:]
        made = database.collection(name, dim=3, metric="l2")
        import_rows(lambda dim, made=made: made, tmp_path / f"in{suffix}")
        assert made.get(["3"])[0].vector.tolist() == [1, 2, 3]


LINE = {"id": "a", "vector": [1, 2]}
BAD = {
    "a.jsonl": [
        (json.dumps(LINE) + "\n\nnot json\n", "line 3: not JSON"),
        (json.dumps(LINE) + "\n" + json.dumps({**LINE, "vector": [1]}), "line 2: the vector has 1 numbers"),
        (json.dumps({**LINE, "vector": [1, "2"]}), "line 1: the vector must be a list of numbers"),
        (json.dumps({**LINE, "vector": None}), "line 1: the vector must be a list"),
        (json.dumps(LINE) + '\n{"id": "b", "vector": [1, 1e39]}', "line 2: the vector holds NaN"),
        (json.dumps({"vector": [1]}), "line 1: id must be a text"),
        (json.dumps({**LINE, "colour": 1}), "line 1: unknown key 'colour'"),
        ("[1, 2]", "line 1: a row is an object"),
        ("[" * 100_000, "line 1: not JSON"),
        ("", "no rows"),
    ],
    "a.fvecs": [
        (b"\x02\0\0\0" + bytes(7), "not whole vectors"),
        (b"\xff\xff\xff\x7f" + bytes(8), "dimension is"),
        (b"\x01\0\0\0" + bytes(4) + b"\x02\0\0\0" + bytes(4), "row 1: it has 2 dimensions"),
        (b"\x01", "dimension is"),
    ],
    "a.npy": [
        (
            b"\x93NUMPY\x01\0v\0{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 9), }\n",
            "not a NumPy",
        ),
        (b"hello", "not a NumPy"),
        (b"", "not a NumPy"),
    ],
    "a.npz": [(b"PK\x03\x04 no zip", "not NumPy arrays")],
    "a.parquet": [(b"PAR1 no parquet PAR1", "not a Parquet file"), (b"", "not a Parquet file")],
    "a.csv": [(b"1,2", "There are: jsonl, npy")],
}


CASES = [(name, *case) for name, cases in BAD.items() for case in cases]


@pytest.mark.parametrize(("name", "data", "message"), CASES)
def test_what_is_wrong_is_named(database: Database, tmp_path: Path, name: str, data, message: str) -> None:
    (tmp_path / name).write_bytes(data.encode() if isinstance(data, str) else data)
    with pytest.raises(StoreError, match=message):
        import_rows(lambda dim: database.collection("rows", dim=dim, metric="l2"), tmp_path / name)


def test_pickles_are_not_opened(database: Database, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], object))
    np.savez(tmp_path / "b.npz", vectors=np.ones((1, 2)), ids=np.array([{}], object))
    for name in ("a.npy", "b.npz"):
        with pytest.raises(InvalidQuery, match=r"not (a )?NumPy"):
            import_rows(lambda dim: database.collection("rows", dim=dim), tmp_path / name)


def test_rows_before_a_bad_one_stay_and_the_corrected_file_replaces_them(
    database: Database, tmp_path: Path
) -> None:
    lines = [json.dumps({"id": str(number), "vector": [number, 1]}) for number in range(1500)]
    (tmp_path / "a.jsonl").write_text("\n".join([*lines, "{"]))
    with pytest.raises(InvalidQuery, match="line 1501"):
        import_rows(lambda dim: database.collection("rows", dim=dim, metric="l2"), tmp_path / "a.jsonl")
    assert database.collection("rows").count() == 1000
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    assert import_rows(lambda dim: database.collection("rows"), tmp_path / "a.jsonl").rows == 1500
    assert database.collection("rows").count() == 1500


def test_another_dimension_and_a_missing_file(database: Database, tmp_path: Path) -> None:
    database.collection("rows", dim=3)
    (tmp_path / "a.jsonl").write_text(json.dumps(LINE))
    with pytest.raises(StoreError, match="dimensions"):
        import_rows(lambda dim: database.collection("rows"), tmp_path / "a.jsonl")
    with pytest.raises(InvalidQuery, match="no such file"):
        import_rows(lambda dim: database.collection("rows"), tmp_path / "b.jsonl")
    with pytest.raises(InvalidQuery, match=r"written as \.fvecs"):
        export_rows(database.collection("rows"), tmp_path / "a.ivecs")
    with pytest.raises(StoreError, match="could not be written"):
        export_rows(database.collection("rows"), tmp_path / "nowhere" / "a.jsonl")

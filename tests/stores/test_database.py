import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stores import Database
from stores.errors import (
    CollectionNotFound,
    CorruptStore,
    DimensionMismatch,
    InvalidQuery,
    MetricMismatch,
    ModelMismatch,
    StoreClosed,
    StoreError,
    StoreLocked,
)

ROOT = Path(__file__).parents[2]


def test_a_second_opener_is_refused_with_the_process_that_has_it(tmp_path: Path) -> None:
    with Database.open(tmp_path), pytest.raises(StoreLocked, match=f"in use by process {os.getpid()}"):
        Database.open(tmp_path)
    Database.open(tmp_path).close()


def test_another_process_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    code = "import sys; from stores import Database; Database.open(sys.argv[1])"
    command = [sys.executable, "-c", code, str(tmp_path)]
    with Database.open(tmp_path):
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 1
    assert f"StoreLocked: {tmp_path} is in use by process {os.getpid()}" in ran.stderr
    assert subprocess.run(command, cwd=ROOT).returncode == 0


def test_folders_are_made_private_and_home_is_expanded(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with Database.open("~/deep/papers") as database:
        database.collection("docs", dim=2).upsert(["a"], [[1, 0]])
        assert database.path == tmp_path / "deep" / "papers"
    for path in (tmp_path / "deep" / "papers").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
    assert stat.S_IMODE((tmp_path / "deep" / "papers").stat().st_mode) == 0o700


def test_a_path_that_cannot_be_a_folder_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be opened as a database"):
        Database.open(tmp_path / "file")


def test_collections_persist_with_their_schema(tmp_path: Path) -> None:
    with Database.open(tmp_path) as database:
        database.collection("b", dim=2, metric="l2", model="m")
        database.collection("a.tmp", dim=3)
        assert database.collection("b") is database.collection("b")
    with Database.open(tmp_path) as database:
        assert database.collections() == ["a.tmp", "b"]
        schema = database.collection("b").schema
        assert (schema.dim, schema.metric, schema.model) == (2, "l2", "m")
        assert database.collection("a.tmp").schema.metric == "cosine"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"dim": 3}, DimensionMismatch, "holds 2-dimensional vectors, not 3"),
        ({"metric": "dot"}, MetricMismatch, "made with metric='l2', not 'dot'"),
        ({"model": "n"}, ModelMismatch, "of model 'm', not of 'n'"),
    ],
)
@pytest.mark.parametrize("reopened", [False, True])
def test_opening_with_another_schema_says_what_to_do(tmp_path, arguments, error, message, reopened) -> None:
    with Database.open(tmp_path) as database:
        database.collection("docs", dim=2, metric="l2", model="m")
        if not reopened:
            with pytest.raises(error, match=message):
                database.collection("docs", **arguments)
            return
    with Database.open(tmp_path) as database, pytest.raises(error, match=message):
        database.collection("docs", **arguments)


def test_an_unknown_collection_is_created_only_with_a_dimension(tmp_path: Path) -> None:
    with Database.open(tmp_path) as database:
        with pytest.raises(CollectionNotFound, match="give dim= to create it"):
            database.collection("docs")
        for bad in (0, -1, 2.5, True, 65_537):
            with pytest.raises(InvalidQuery, match="dim must be"):
                database.collection("docs", dim=bad)
        with pytest.raises(InvalidQuery, match="use one of cosine, dot, l2"):
            database.collection("docs", dim=2, metric="manhattan")
        assert database.collections() == []


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../up", "a/b", ".hidden", "-x", "a" * 101, "é", "a\0b", "a.", 7]
)
def test_names_that_could_leave_the_folder_are_refused(tmp_path: Path, name) -> None:
    with Database.open(tmp_path / "db") as database:
        for use in (lambda: database.collection(name, dim=2), lambda: database.drop(name)):
            with pytest.raises(InvalidQuery, match="collection name"):
                use()


def test_a_dropped_collection_is_gone_with_its_files(tmp_path: Path) -> None:
    with Database.open(tmp_path) as database:
        docs = database.collection("docs", dim=2)
        docs.upsert(["a"], [[1, 0]])
        database.drop("docs")
        with pytest.raises(StoreClosed):
            docs.count()
        assert database.collections() == []
        assert list((tmp_path / "collections").iterdir()) == []
        with pytest.raises(CollectionNotFound):
            database.drop("docs")
        assert database.collection("docs", dim=3).count() == 0


def test_half_made_and_half_dropped_collections_are_removed_at_opening(tmp_path: Path) -> None:
    with Database.open(tmp_path) as database:
        database.collection("docs", dim=2)
    for leftover in (".other.new", ".docs.dropped"):
        (tmp_path / "collections" / leftover / "seg").mkdir(parents=True)
    with Database.open(tmp_path) as database:
        assert database.collections() == ["docs"]
    assert [path.name for path in (tmp_path / "collections").iterdir()] == ["docs"]


def test_one_damaged_collection_does_not_take_the_others_with_it(tmp_path: Path) -> None:
    with Database.open(tmp_path) as database:
        for name in ("good", "bad"):
            database.collection(name, dim=2).upsert(["a"], [[1, 0]])
    (tmp_path / "collections" / "bad" / "CURRENT").unlink()
    with Database.open(tmp_path) as database:
        with pytest.raises(CorruptStore, match="CURRENT: the file is missing"):
            database.collection("bad", dim=2)
        assert database.collection("good").ids() == ["a"]


def test_a_batch_reopens_as_it_was_written(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)
    ids = [f"row/{number} é" for number in range(50)]
    metadata = [{"n": number, "nested": {"list": [number, None, True]}} for number in range(50)]
    texts = [None if number % 3 == 0 else "日本 " * number for number in range(50)]
    for step in range(3):
        with Database.open(tmp_path) as database:
            docs = database.collection("docs", dim=4, metric="dot")
            if step == 0:
                docs.upsert(ids, vectors, metadata=metadata, texts=texts)
            rows = list(docs)
            assert [row.id for row in rows] == ids
            assert [row.metadata for row in rows] == metadata
            assert [row.text for row in rows] == texts
            np.testing.assert_array_equal(np.stack([row.vector for row in rows]), vectors)
            if step == 1:
                docs.flush()

"""Snapshots and restoring, also when the disk fails or the process dies on the way."""

import contextlib
import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from stores import Database, Options
from stores.errors import CollectionNotFound, CorruptStore, InvalidQuery, StoreError
from stores.log.disk import Disk
from tests.stores.faults import Crash, FaultyDisk

OPTIONS = Options(seal_rows=10, graph_rows=15, background=False)
DIM = 4


def fill(database: Database, first: int, count: int) -> None:
    collection = database.collection("rows", dim=DIM)
    ids = range(first, first + count)
    vectors = np.random.default_rng(first).standard_normal((count, DIM))
    collection.upsert([str(id) for id in ids], vectors, metadata=[{"n": id} for id in ids])


def contents(database: Database, name: str = "rows") -> dict[str, tuple]:
    collection = database.collection(name)
    collection.verify()
    return {row.id: (row.vector.tolist(), row.metadata["n"]) for row in collection}


def test_a_snapshot_is_the_rows_of_its_moment_and_survives_everything_after(tmp_path: Path) -> None:
    with Database.open(tmp_path / "db", options=OPTIONS) as database:
        fill(database, 0, 25)
        database.collection("rows").delete(["3"])
        before = contents(database)
        made = database.collection("rows").snapshot("first")
        assert (made.collection, made.name) == ("rows", "first") and made.bytes > 0
        fill(database, 20, 30)
        database.collection("rows").compact()
        after = contents(database)
        assert [snapshot.name for snapshot in database.snapshots("rows")] == ["first"]
        assert contents(database.restore("rows", "first", into="old") and database, "old") == before
        database.drop("rows")
    with Database.open(tmp_path / "db", options=OPTIONS) as database:
        assert database.collections() == ["old"]
        database.restore("rows", "first")
        assert contents(database) == before != after
        # What was restored is written to without touching the snapshot.
        fill(database, 100, 40)
        database.collection("rows").compact()
        database.restore("rows", "first", overwrite=True)
        assert contents(database) == before
        database.delete_snapshot("rows", "first")
        assert database.snapshots() == [] and contents(database) == before


def test_a_snapshot_shares_its_files_with_the_collection(tmp_path: Path) -> None:
    with Database.open(tmp_path, options=OPTIONS) as database:
        fill(database, 0, 40)
        made = database.collection("rows").snapshot("s")
        links = [path.stat().st_nlink for path in made.path.glob("seg/*/vec.f32")]
        assert links and set(links) == {2}


def test_where_there_are_no_links_files_are_copied(tmp_path: Path) -> None:
    class NoLinks(Disk):
        def link(self, source: Path, target: Path) -> None:
            raise OSError(errno.EXDEV, "another file system")

    with Database.open(tmp_path, options=OPTIONS, disk=NoLinks()) as database:
        fill(database, 0, 25)
        database.collection("rows").snapshot("s")
        before = contents(database)
        database.restore("rows", "s", into="again")
        assert contents(database, "again") == before


def test_a_folder_from_elsewhere_is_restored(tmp_path: Path) -> None:
    with Database.open(tmp_path / "one", options=OPTIONS) as database:
        fill(database, 0, 25)
        before = contents(database)
        shutil.copytree(database.collection("rows").snapshot("s").path, tmp_path / "backup")
    with Database.open(tmp_path / "two", options=OPTIONS) as database:
        database.restore("rows", tmp_path / "backup")
        assert contents(database) == before


def test_what_is_there_is_not_replaced_unasked_and_names_are_checked(tmp_path: Path) -> None:
    with Database.open(tmp_path, options=OPTIONS) as database:
        fill(database, 0, 5)
        rows = database.collection("rows")
        rows.snapshot("s")
        with pytest.raises(InvalidQuery, match="another name, or overwrite"):
            database.restore("rows", "s")
        with pytest.raises(InvalidQuery, match="already"):
            rows.snapshot("s")
        for name in ("", "../x", ".hidden", "a/b"):
            with pytest.raises(InvalidQuery, match="snapshot name"):
                rows.snapshot(name)
        with pytest.raises(CollectionNotFound, match="there are: s"):
            database.restore("rows", "t")
        with pytest.raises(CollectionNotFound):
            database.delete_snapshot("rows", "t")


def test_a_damaged_snapshot_is_refused_and_replaces_nothing(tmp_path: Path) -> None:
    with Database.open(tmp_path, options=OPTIONS) as database:
        fill(database, 0, 25)
        made = database.collection("rows").snapshot("s")
        database.collection("rows").delete(["0"])
        database.collection("rows").compact()
        fill(database, 30, 5)
        before = contents(database)
        victim = max(made.path.glob("seg/*/vec.f32"))
        data = bytearray(victim.read_bytes())
        data[5] ^= 1
        victim.write_bytes(data)
        with pytest.raises(CorruptStore):
            database.restore("rows", "s", overwrite=True)
        assert contents(database) == before


@pytest.mark.parametrize("fault", ["crash", errno.ENOSPC])
def test_a_snapshot_is_whole_or_not_there(tmp_path: Path, fault: str | int) -> None:
    def work(folder: Path, disk: Disk) -> None:
        with Database.open(folder, options=OPTIONS, disk=disk) as database:
            fill(database, 50, 3)
            database.collection("rows").snapshot("s")

    for step, folder in every_step(tmp_path, work, fault):
        with Database.open(folder, options=OPTIONS) as database:
            assert len(contents(database)) in (25, 28), step
            assert not list((folder / "snapshots").glob("*/.*"))
            for snapshot in database.snapshots():
                database.restore("rows", snapshot.name, into=f"again-{snapshot.name}")
                expected = 20 if snapshot.name == "base" else 28
                assert len(contents(database, f"again-{snapshot.name}")) == expected


@pytest.mark.parametrize("fault", ["crash", errno.ENOSPC])
def test_restoring_gives_the_old_rows_or_the_new(tmp_path: Path, fault: str | int) -> None:
    def work(folder: Path, disk: Disk) -> None:
        with Database.open(folder, options=OPTIONS, disk=disk) as database:
            database.restore("rows", "base", overwrite=True)

    for step, folder in every_step(tmp_path, work, fault):
        with Database.open(folder, options=OPTIONS) as database:
            assert len(contents(database)) in (20, 25), step


def every_step(tmp_path: Path, work, fault: str | int):
    """A prepared database for each step that `work` takes, after that step has failed."""
    prepared = tmp_path / "prepared"
    with Database.open(prepared, options=OPTIONS) as database:
        fill(database, 0, 20)
        database.collection("rows").snapshot("base")
        fill(database, 20, 5)
    counter = FaultyDisk(only="changes")
    shutil.copytree(prepared, tmp_path / "count")
    work(tmp_path / "count", counter)
    assert counter.steps > 10
    for step in range(1, counter.steps + 1):
        folder = tmp_path / f"step-{step}"
        shutil.copytree(prepared, folder)
        with contextlib.suppress(Crash, OSError, StoreError):
            work(folder, FaultyDisk(step, fault, "changes"))
        unlock(folder)
        yield step, folder
        shutil.rmtree(folder)


def unlock(folder: Path) -> None:
    """The lock of the database that died goes with its process; here its descriptor is closed."""
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if link.readlink() == folder / "LOCK":
                os.close(int(link.name))

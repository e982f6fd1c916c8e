"""A crash, a torn write, a full disk or a power cut at every single step of a working life."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stores.collection import Collection
from stores.errors import LogFailed, StoreError
from stores.log.disk import Disk
from stores.maintenance import Workers
from stores.options import Options
from stores.schema import Schema
from stores.tree import Tree, create_tree
from tests.stores.faults import IO_ERROR, NO_SPACE, Crash, FaultyDisk, LosingDisk

DIM = 4
OPTIONS = Options(seal_rows=6, rotate_bytes=700, graph_rows=8, background=False)
Model = dict[str, int]
"""Each id's version, which is in its vector, metadata and text."""


def make_row(version: int, id: str) -> tuple[list[float], dict, str]:
    return [version, 1, 2, sum(map(ord, id))], {"version": version}, f"text {version}"


class Life:
    """A fixed history of writes, sealing, merging and reopening; `acknowledged` is what must survive."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self.folder, self.disk = folder, disk
        self.acknowledged: Model = {}
        self.pending: Model = {}
        self.version = 0
        self.refused = 0

    def live(self, *, days: int = 2, tolerate: tuple[type[BaseException], ...] = ()) -> None:
        if not self.folder.exists():
            create_tree(self.folder, Schema(DIM, "l2"), self.disk)
        for day in range(days):
            tree = Tree(self.folder, self.disk, OPTIONS, Workers())
            collection = Collection("life", tree)
            try:
                self._day(day, collection, tolerate)
            finally:
                if not getattr(self.disk, "dead", False):
                    tree.close()

    def _day(self, day: int, collection: Collection, tolerate: tuple[type[BaseException], ...]) -> None:
        steps: list[Callable[[], None]] = [
            lambda: self.upsert(collection, [f"{day}-1", f"{day}-2", "x", "y"]),
            lambda: self.delete(collection, ["x", f"{day}-2", "0-0"]),
            lambda: self.upsert(collection, [f"{day}-big-{i}" for i in range(9)]),
            lambda: self.delete(collection, [f"{day}-big-{i}" for i in range(0, 9, 2)]),
            collection.compact,
            lambda: self.upsert(collection, ["y", "z"]),
            lambda: freeze(collection),
            lambda: self.delete(collection, ["z", f"{day}-big-3"]),
            lambda: self.upsert(collection, ["y", "w"]),
            collection.flush,
        ]
        for step in steps:
            try:
                step()
            except tolerate:
                self.refused += 1
                self.pending = dict(self.acknowledged)

    def upsert(self, collection: Collection, ids: list[str]) -> None:
        self.version += 1
        self.pending = {**self.acknowledged, **dict.fromkeys(ids, self.version)}
        vectors, metadata, texts = zip(*(make_row(self.version, id) for id in ids), strict=True)
        collection.upsert(ids, vectors, metadata=metadata, texts=texts)
        self.acknowledged = self.pending

    def delete(self, collection: Collection, ids: list[str]) -> None:
        self.pending = {id: version for id, version in self.acknowledged.items() if id not in ids}
        collection.delete(ids)
        self.acknowledged = self.pending


def freeze(collection: Collection) -> None:
    """Rows wait to be sealed, as they do where that is left to another thread."""
    tree = collection._tree
    with tree._sealing:
        tree._seal_frozen()
        tree._freeze()


def contents(folder: Path) -> Model:
    """What a collection holds when it is opened again, after every file and row has been checked."""
    tree = Tree(folder, Disk(), OPTIONS, Workers())
    try:
        collection = Collection("life", tree)
        collection.verify()
        rows = list(collection)
        for row in rows:
            vector, metadata, text = make_row(row.metadata["version"], row.id)
            assert (row.vector.tolist(), row.metadata, row.text) == (vector, metadata, text)
        assert len({row.id for row in rows}) == len(rows)
        return {row.id: row.metadata["version"] for row in rows}
    finally:
        tree.close()


def total_steps(tmp_path: Path) -> int:
    disk = FaultyDisk()
    (tmp_path / "lives").mkdir()
    Life(tmp_path / "lives" / "count", disk).live()
    shutil.rmtree(tmp_path / "lives" / "count")
    return disk.steps


def check_after_crash(life: Life) -> None:
    if not life.folder.exists():
        assert not life.acknowledged
        return
    assert contents(life.folder) in (life.acknowledged, life.pending)
    life.pending = life.acknowledged = contents(life.folder)
    life.disk = FaultyDisk()
    life.live(days=1)
    assert contents(life.folder) == life.acknowledged


@pytest.mark.parametrize("fault", ["crash", "torn"])
def test_a_crash_at_any_step_loses_nothing_acknowledged_and_tears_no_batch(
    tmp_path: Path, fault: str
) -> None:
    only = "write" if fault == "torn" else "changes"
    counter = FaultyDisk(only=only)
    Life(tmp_path / "count", counter).live()
    assert counter.steps > 50
    for step in range(1, counter.steps + 1):
        life = Life(tmp_path / f"{step}", FaultyDisk(step, fault, only))
        with pytest.raises(Crash):
            life.live()
        check_after_crash(life)
        shutil.rmtree(life.folder, ignore_errors=True)


def cut_power_at(tmp_path: Path, step: int, seed: int) -> None:
    disk = LosingDisk(tmp_path / f"grave{seed}", seed, step, "crash")
    life = Life(tmp_path / f"{seed}", disk)
    with pytest.raises(Crash):
        life.live()
    disk.lose(tmp_path)
    check_after_crash(life)
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()


def test_a_power_cut_loses_nothing_acknowledged(tmp_path: Path) -> None:
    for step in range(1, total_steps(tmp_path) + 1, 4):
        cut_power_at(tmp_path / "lives", step, seed=step)


@pytest.mark.soak
def test_a_power_cut_at_any_step_loses_nothing_acknowledged(tmp_path: Path) -> None:
    steps = total_steps(tmp_path)
    for seed in range(10 * steps):
        cut_power_at(tmp_path / "lives", 1 + seed % steps, seed)


@pytest.mark.parametrize("kind", ["write", "create", "rename", "sync_folder", "truncate", "make_folder"])
def test_a_full_disk_at_any_step_refuses_or_postpones_and_recovers(tmp_path: Path, kind: str) -> None:
    counter = FaultyDisk(only=kind)
    Life(tmp_path / "count", counter).live()
    for step in range(1, counter.steps + 1):
        folder = tmp_path / f"{step}"
        create_tree(folder, Schema(DIM, "l2"), FaultyDisk())
        life = Life(folder, FaultyDisk(step, NO_SPACE, kind))
        try:
            life.live(tolerate=(StoreError,))
        except OSError:
            life.refused += 1  # refused while opening: the days after it never came
        assert contents(folder) == life.acknowledged


def test_a_failed_sync_is_never_acknowledged_and_stops_further_writes(tmp_path: Path) -> None:
    counter = FaultyDisk(only="sync")
    Life(tmp_path / "count", counter).live()
    refused = 0
    for step in range(1, counter.steps + 1):
        folder = tmp_path / f"{step}"
        create_tree(folder, Schema(DIM, "l2"), FaultyDisk())
        life = Life(folder, FaultyDisk(step, IO_ERROR, "sync"))
        try:
            life.live(tolerate=(StoreError,))
        except OSError:
            life.refused += 1
        assert contents(folder) == life.acknowledged
        refused += life.refused
    assert refused > counter.steps / 2


def test_after_a_failed_sync_the_log_refuses_until_it_is_reopened(tmp_path: Path) -> None:
    create_tree(tmp_path / "c", Schema(DIM, "l2"), Disk())
    disk = FaultyDisk(only="sync", fault=IO_ERROR)
    tree = Tree(tmp_path / "c", disk, OPTIONS, Workers())
    collection = Collection("c", tree)
    collection.upsert(["a"], np.ones((1, DIM)))
    disk.fail_at = disk.steps + 1
    for _ in range(2):
        with pytest.raises(LogFailed, match="reopen the database"):
            collection.upsert(["b"], np.ones((1, DIM)))
    assert [hit.id for hit in collection.search(np.ones(DIM))] == ["a"]
    tree.close()
    tree = Tree(tmp_path / "c", Disk(), OPTIONS, Workers())
    assert Collection("c", tree).upsert(["b"], np.ones((1, DIM))) == 1
    tree.close()

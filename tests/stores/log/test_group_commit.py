import threading
from pathlib import Path

import pytest

from stores.errors import LogFailed
from stores.log.commit import GroupCommit
from stores.log.records import Record
from stores.log.wal import Log
from tests.stores.faults import FaultyDisk


class SlowSync(FaultyDisk):
    """The first sync waits until it is let go."""

    def __init__(self) -> None:
        super().__init__(only="sync")
        self.syncing, self.go = threading.Event(), threading.Event()

    def sync(self, fd: int) -> None:
        super().sync(fd)
        self.syncing.set()
        assert self.go.wait(30)


def open_commit(tmp_path: Path, disk: FaultyDisk, apply) -> GroupCommit:
    Log.create(tmp_path / "wal", FaultyDisk())
    log = Log(tmp_path / "wal", disk)
    assert list(log.replay(0)) == []
    return GroupCommit(log, apply)


def test_writers_that_wait_share_one_sync_and_get_their_own_results(tmp_path: Path) -> None:
    disk, applied = SlowSync(), []
    disk.go.set()

    def apply(record: Record, meaning: object) -> int:
        applied.append(record.index)
        return int(record.payload)

    commit = open_commit(tmp_path, disk, apply)
    disk.go.clear()
    disk.syncing.clear()
    results: dict[int, int] = {}
    threads = [
        threading.Thread(target=lambda n=n: results.update({n: commit.submit(1, [str(n).encode()])}))
        for n in range(20)
    ]
    threads[0].start()
    assert disk.syncing.wait(30)
    for thread in threads[1:]:
        thread.start()
    while len(commit._queue) < 19:
        threading.Event().wait(0.001)
    syncs = disk.steps
    disk.go.set()
    for thread in threads:
        thread.join(30)
    assert results == {n: n for n in range(20)}
    assert applied == list(range(1, 21))
    assert disk.steps == syncs + 1
    assert (commit.groups, commit.entries) == (2, 20)


def test_a_record_that_cannot_be_applied_stops_the_log(tmp_path: Path) -> None:
    def apply(record: Record, meaning: object) -> int:
        raise ValueError("no")

    commit = open_commit(tmp_path, FaultyDisk(), apply)
    with pytest.raises(ValueError, match="no"):
        commit.submit(1, [b""])
    with pytest.raises(LogFailed):
        commit.submit(1, [b""])

import errno
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from stores import Database, Options
from stores.collection import Collection
from stores.index import dispatch
from stores.index.graph.build import DEGREE
from stores.index.graph.index import node_bytes
from stores.index.trace import PartTrace
from stores.log.disk import Disk
from stores.maintenance import Cancelled, Pace, Worker
from tests.stores.index.vectors import clustered

DIM = 16
OPTIONS = Options(seal_rows=200, graph_rows=400)


def fill(collection: Collection, rows: np.ndarray, first: int = 0) -> None:
    for start in range(0, len(rows), 50):
        part = rows[start : start + 50]
        collection.upsert([str(first + start + row) for row in range(len(part))], part)


def wait_until(holds, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_merging_happens_by_itself_while_rows_are_written_and_read(tmp_path: Path) -> None:
    rows = clustered(3000, DIM)
    with Database.open(tmp_path, options=OPTIONS) as database:
        collection = database.collection("rows", dim=DIM)
        fill(collection, rows)
        wait_until(lambda: any(segment.has_graph for segment, _ in collection._tree.state.segments))
        wait_until(lambda: collection.stats().segments < 8)
        assert collection.count() == 3000
        assert collection.search(rows[7], 1)[0].id == "7"
    with Database.open(tmp_path, options=OPTIONS) as database:
        collection = database.collection("rows")
        collection.verify()
        assert collection.count() == 3000
        assert collection.search(rows[2999], 1)[0].id == "2999"


def test_a_segment_that_is_left_alone_gets_a_graph_once_if_it_can(tmp_path: Path) -> None:
    options = Options(seal_rows=200, graph_rows=150)
    with Database.open(tmp_path, options=options) as database:
        near, alike = database.collection("near", dim=DIM), database.collection("alike", dim=DIM)
        fill(near, clustered(200, DIM))
        fill(alike, np.ones((200, DIM), np.float32))
        wait_until(lambda: any(segment.has_graph for segment, _ in near._tree.state.segments))
        wait_until(lambda: alike._tree._graphless)
        time.sleep(0.1)
        [(segment, _)] = alike._tree.state.segments
        assert segment.entry.name in alike._tree._graphless and not segment.has_graph


def test_rows_that_change_during_a_merge_stay_changed(tmp_path: Path) -> None:
    rows = clustered(1000, DIM)
    with Database.open(tmp_path, options=OPTIONS) as database:
        collection = database.collection("rows", dim=DIM)
        fill(collection, rows)

        def meddle(share: float) -> None:
            if not changed:
                changed.append(collection.delete([str(row) for row in range(0, 1000, 2)]))
                changed.append(collection.upsert(["1", "new"], rows[[5, 6]] * -1))

        changed: list[int] = []
        collection.compact(progress=meddle)
        assert changed == [500, 2]
        assert collection.count() == 501
        assert not collection.get(["0"])[0] and collection.get(["new"])[0]
        np.testing.assert_allclose(collection.get(["1"])[0].vector, -rows[5], atol=1e-6)
        assert all(int(hit.id) % 2 for hit in collection.search(rows[4], 50) if hit.id != "new")


def test_rows_that_wait_to_be_sealed_are_found_replaced_and_deleted(tmp_path: Path) -> None:
    rows = clustered(310, DIM)
    released = threading.Event()
    with Database.open(tmp_path, options=OPTIONS) as database:
        collection = database.collection("rows", dim=DIM)
        database._workers.sealing.ask(lambda: released.wait(60))
        fill(collection, rows[:250])
        assert collection._tree.state.frozen is not None
        assert collection.delete(["0", "1", "249"]) == 3
        collection.upsert(["2", "new"], rows[250:252])
        assert collection.search(rows[7], 1)[0].id == "7"
        assert collection.search(rows[250], 1)[0].id == "2"
        stats = collection.stats()
        assert (stats.rows, stats.segments, stats.unsealed_rows) == (248, 0, 252)
        released.set()
        wait_until(lambda: collection.stats().segments == 1)
        assert (collection.count(), collection.stats().unsealed_rows) == (248, 52)
        assert collection.get(["0", "2", "7"])[0] is None
    with Database.open(tmp_path, options=OPTIONS) as database:
        collection = database.collection("rows")
        assert collection.verify().rows == 248
        assert collection.search(rows[250], 1)[0].id == "2"
        assert collection.search(rows[7], 1)[0].id == "7"


def test_a_seal_that_the_disk_refuses_is_told_and_tried_again(tmp_path: Path) -> None:
    class Full(Disk):
        full = True

        def make_folder(self, path: Path) -> None:
            if self.full and path.parent.name == "seg":
                raise OSError(errno.ENOSPC, "No space left on device")
            super().make_folder(path)

    disk = Full()
    rows = clustered(1000, DIM)
    with Database.open(tmp_path, options=OPTIONS, disk=disk) as database:
        collection = database.collection("rows", dim=DIM)
        fill(collection, rows[:450])
        wait_until(lambda: "No space" in (collection.stats().maintenance_error or ""))
        assert collection.stats().segments == 0 and collection.search(rows[7], 1)[0].id == "7"
        disk.full = False
        fill(collection, rows[450:], first=450)
        wait_until(lambda: collection.stats().segments > 0 and collection.stats().maintenance_error is None)
        assert collection.verify().rows == 1000


def test_compacting_can_be_stopped_and_leaves_everything_as_it_was(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(share: float) -> None:
        raise Stop

    rows = clustered(1000, DIM)
    options = Options(seal_rows=200, graph_rows=400, background=False)
    with Database.open(tmp_path, options=options) as database:
        collection = database.collection("rows", dim=DIM)
        fill(collection, rows)
        with pytest.raises(Stop):
            collection.compact(progress=stop)
        folders = {path.name for path in (tmp_path / "collections" / "rows" / "seg").iterdir()}
        assert folders == {segment.entry.name for segment, _ in collection._tree.state.segments}
        collection.verify()
        shares: list[float] = []
        collection.compact(progress=shares.append)
        assert shares == sorted(shares) and shares[-1] == 1
        assert collection.stats().segments == 1 and collection.count() == 1000


def test_reindexing_leaves_what_has_a_graph_alone(tmp_path: Path) -> None:
    rows = clustered(1700, DIM)
    options = Options(seal_rows=500, graph_rows=600, background=False)
    with Database.open(tmp_path, options=options) as database:
        collection = database.collection("rows", dim=DIM)
        fill(collection, rows[:800])
        collection.compact()
        [(first, _)] = collection._tree.state.segments
        fill(collection, rows[800:], first=800)
        collection.reindex()
        segments = [segment for segment, _ in collection._tree.state.segments]
        assert [segment.has_graph for segment in segments] == [True, True]
        assert segments[0] is first and segments[1].count == 900
        again = [segment.entry.name for segment in segments]
        collection.reindex()
        assert [segment.entry.name for segment, _ in collection._tree.state.segments] == again


def test_closing_stops_a_merge_within_a_step_of_it(tmp_path: Path) -> None:
    database = Database.open(tmp_path, options=Options(seal_rows=1000, graph_rows=1000))
    collection = database.collection("rows", dim=64)
    fill(collection, clustered(8000, 64))
    database.close()
    with Database.open(tmp_path) as database:
        assert database.collection("rows").count() == 8000


@pytest.mark.parametrize("metric", ["dot", "l2"])
def test_numbers_too_large_for_codes_are_searched_exactly(tmp_path: Path, metric: str) -> None:
    rows = clustered(500, DIM)
    rows[::7] *= np.float32(1e17)
    with Database.open(tmp_path, options=OPTIONS) as database:
        collection = database.collection("rows", dim=DIM, metric=metric)
        fill(collection, rows)
        collection.compact()
        [(segment, _)] = collection._tree.state.segments
        assert not segment.has_graph
        query = rows[8] / np.float32(3)
        scores = rows.astype(np.float64) @ query
        if metric == "l2":
            scores = -((rows.astype(np.float64) - query) ** 2).sum(axis=1)
        assert collection.search(query, 1)[0].id == str(np.argmax(scores))


def test_a_worker_runs_each_job_once_and_none_after_it_is_closed() -> None:
    worker, done, held = Worker("test"), [], threading.Event()

    def first() -> None:
        held.wait(10)
        done.append("first")

    def second() -> None:
        done.append("second")

    for job in (first, second, second):
        worker.ask(job)
    time.sleep(0.05)
    worker.ask(second)
    held.set()
    wait_until(lambda: done == ["first", "second"])
    worker.close()
    worker.ask(first)
    worker.close()
    assert done == ["first", "second"]


def test_pace_stops_and_steps_aside() -> None:
    stopping, read = [False], [0.0]
    pace = Pace(lambda: stopping[0], lambda: read[0])
    time.sleep(0.05)
    started = time.monotonic()
    pace(0.1)
    assert time.monotonic() - started < 0.03
    time.sleep(0.05)
    read[0] = time.monotonic()
    started = time.monotonic()
    pace(0.2)
    assert time.monotonic() - started >= 0.04
    stopping[0] = True
    with pytest.raises(Cancelled):
        pace(0.3)


@pytest.mark.parametrize(("share", "tier"), [(0.5, "bits"), (0.2, "blocks")])
def test_graphs_larger_than_the_memory_they_may_take_are_searched_on_disk(
    tmp_path: Path, share: float, tier: str
) -> None:
    rows = clustered(2600, 384)
    everything = 2000 * node_bytes(384, DEGREE, "graph")
    options = Options(seal_rows=500, graph_rows=1000, background=False, memory_bytes=int(share * everything))
    with Database.open(tmp_path, options=options) as database:
        collection = database.collection("rows", dim=384)
        fill(collection, rows[:2000])
        collection.compact()
        collection.verify()
        trace: list[PartTrace] = []
        view = collection._tree.view
        dispatch.search(
            rows[2000:],
            view,
            [part.alive for part in view],
            "cosine",
            10,
            memory=options.memory_bytes,
            trace=trace,
        )
        assert [part.tier for part in trace] == [tier]
        best = np.argsort(-rows[2000:2100] @ rows[:2000].T, axis=1)[:, :10]
        found = [{int(hit.id) for hit in collection.search(query, 10)} for query in rows[2000:2100]]
        assert (
            np.mean([len(ids & set(line.tolist())) / 10 for ids, line in zip(found, best, strict=True)])
            > 0.95
        )

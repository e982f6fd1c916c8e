"""Eight readers beside a writer that inserts, replaces, deletes and compacts: no answer is ever wrong.

A row's vector and metadata say which version of which id it is, so a reader knows from a hit alone whether
it may see it: not older than what was acknowledged before it asked, not newer than what was being written
when it had its answer.
"""

import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pytest

from stores import Database, Options
from stores.collection import Collection

DIM = 32
IDS = 6000
READERS = 8
OPTIONS = Options(seal_rows=1000, graph_rows=2500, shadow_every=200)
GONE = -1


def vector_of(id: int, version: int) -> np.ndarray:
    """Unit rows; versions of an id are near each other."""
    own, shift = np.random.default_rng(id), np.random.default_rng((id, version))
    made = own.standard_normal(DIM) + 0.05 * shift.standard_normal(DIM)
    return made / np.linalg.norm(made)


@dataclass
class Model:
    """For each id the version last acknowledged and the one being written: GONE for none."""

    acknowledged: np.ndarray = field(default_factory=lambda: np.full(IDS, GONE))
    begun: np.ndarray = field(default_factory=lambda: np.full(IDS, GONE))
    changing: np.ndarray = field(default_factory=lambda: np.zeros(IDS, np.int64))
    """Counts begun and ended changes of an id: odd while one is in progress."""


class Work:
    def __init__(self, collection: Collection, seconds: float) -> None:
        self.collection, self.deadline = collection, time.monotonic() + seconds
        self.model = Model()
        self.errors: list[str] = []
        self.latencies: list[float] = []
        self.written = self.answers = 0
        self.most_segments = 0

    def going(self) -> bool:
        return time.monotonic() < self.deadline and not self.errors

    def write(self) -> None:
        rng, version = np.random.default_rng(0), 0
        try:
            while self.going():
                version += 1
                ids = rng.choice(IDS, rng.integers(1, 60), replace=False)
                self.change(ids, version if rng.random() < 0.85 else GONE)
                self.most_segments = max(self.most_segments, self.collection.stats().segments)
                if version % 400 == 0:
                    self.collection.compact()
                time.sleep(0.001)
        except BaseException as error:
            self.errors.append(f"writer: {error!r}")

    def change(self, ids: np.ndarray, version: int) -> None:
        model = self.model
        model.changing[ids] += 1
        model.begun[ids] = version
        names = [str(id) for id in ids]
        if version == GONE:
            self.collection.delete(names)
        else:
            metadata = [{"id": int(id), "version": version} for id in ids]
            self.collection.upsert(names, [vector_of(id, version) for id in ids.tolist()], metadata=metadata)
        model.acknowledged[ids] = version
        model.changing[ids] += 1
        self.written += len(ids)

    def read(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            while self.going():
                self.check(int(rng.integers(0, IDS)), filtered=rng.random() < 0.2)
        except BaseException as error:
            self.errors.append(f"reader: {error!r}")

    def check(self, id: int, *, filtered: bool) -> None:
        model = self.model
        changes = model.changing.copy()
        before = model.acknowledged.copy()
        query = vector_of(id, 0)
        started = time.perf_counter()
        hits = self.collection.search(query, 10, filter={"id": {"$gte": id}} if filtered else None)
        self.latencies.append(time.perf_counter() - started)
        untouched = (model.changing == changes) & (changes % 2 == 0)
        self.answers += 1
        if len({hit.id for hit in hits}) != len(hits):
            self.errors.append(f"an id twice: {[hit.id for hit in hits]}")
        for hit in hits:
            other, version = hit.metadata["id"], hit.metadata["version"]
            if untouched[other] and version != before[other]:
                self.errors.append(f"row {other}: version {version}, acknowledged was {before[other]}")
            if not np.isclose(hit.score, query @ vector_of(other, version), atol=1e-5):
                self.errors.append(f"row {other}: its score {hit.score} is not its vector's")
            if filtered and other < id:
                self.errors.append(f"row {other} does not pass the filter")
        if untouched[id] and before[id] != GONE and (not hits or hits[0].metadata["id"] != id):
            self.errors.append(f"row {id} was not found by its own vector")


def run(folder: Path, seconds: float) -> Work:
    with Database.open(folder, options=OPTIONS) as database:
        collection = database.collection("rows", dim=DIM)
        work = Work(collection, seconds)
        threads = [threading.Thread(target=work.write)]
        threads += [threading.Thread(target=work.read, args=(seed,)) for seed in range(READERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not work.errors, work.errors[:3]
        collection.compact()
        collection.verify()
        found = {int(row.id): row.metadata["version"] for row in collection}
        expected = enumerate(work.model.acknowledged.tolist())
        assert found == {id: version for id, version in expected if version != GONE}
        stats = collection.stats()
        assert stats.segments == 1 and stats.dead == 0
        assert stats.disk_bytes < 4 * (4 * DIM + 400) * stats.rows + (4 << 20)
    return work


def test_no_answer_is_wrong_beside_a_writer_and_compaction(tmp_path: Path) -> None:
    work = run(tmp_path, 6)
    assert work.answers > 200 and work.written > 500 and work.most_segments <= 24


@pytest.mark.soak
def test_no_answer_is_wrong_for_ten_minutes_and_memory_does_not_grow(tmp_path: Path) -> None:
    run(tmp_path / "warm", 30)
    before = psutil.Process().memory_info().rss
    work = run(tmp_path / "long", float(os.environ.get("TARSIA_SOAK_SECONDS", "600")))
    grown = psutil.Process().memory_info().rss - before
    p50, p99 = np.quantile(work.latencies, [0.5, 0.99]) * 1e3
    print(
        f"{work.answers} answers, {work.written} rows written, p50 {p50:.1f} ms, p99 {p99:.1f} ms, "
        f"at most {work.most_segments} segments, memory grew by {grown >> 20} MiB"
    )
    assert grown < 300 << 20

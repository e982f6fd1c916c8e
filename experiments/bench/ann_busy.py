"""Searching while rows come in: the store beside hnswlib, threads of queries and one that inserts, in turns.

Run: `python -m experiments.bench.ann_busy [--rows 1000000] [--rate 500] [--threads 4] [--keep FOLDER]`.
Both get the same rows at the same rate; the store's are durable. Each searches at the least width that
finds 95 % of the ten nearest when nothing else goes on; recall is measured again among all rows at the
end. hnswlib does not promise searches beside inserts: here it does both without a lock, which is the best
it can do, and searches that it refuses are counted.
"""

import argparse
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.bench.ann_data import DATA
from experiments.bench.measure import machine
from stores import Database

K = 10
BATCH = 32
INSERTED = 50
WIDTHS = (10, 12, 16, 20, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
ROUNDS = 3


@dataclass
class Contender:
    """`search(queries, width)` gives ids (q, 10), `insert(first, rows)` adds rows with ids from `first`."""

    name: str
    search: Callable[[np.ndarray, int], np.ndarray]
    insert: Callable[[int, np.ndarray], None]
    build_wall: float
    build_cpu: float
    width: int = 0
    rows: int = 0
    refused: int = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=DATA, default="clustered")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rate", type=int, default=500, help="rows inserted each second")
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--keep", type=Path, help="a folder for what is built, to be used again")
    options = parser.parse_args()
    more = int(options.rate * options.seconds * (ROUNDS + 1))
    data = DATA[options.data](options.rows + more)
    rows, queries = data.vectors, data.queries
    print(f"ann_busy: {data.name}, {options.rows:,} x {rows.shape[1]}, {machine()}", flush=True)
    with tempfile.TemporaryDirectory() as temporary, Database.open(options.keep or temporary) as database:
        ours = store(database, rows[: options.rows])
        theirs = hnswlib(rows, options.rows, database.path / "hnswlib")
        for one in (ours, theirs):
            one.rows = options.rows
            one.width = least_width(one, rows, queries)
            built = f"built in {one.build_wall:.0f} s, {one.build_cpu:.0f} s of CPU"
            print(f"  {one.name}: {built}, width {one.width}")
        print(f"  build: {ours.build_cpu / theirs.build_cpu:.2f} of hnswlib's CPU time", flush=True)
        for rate in (0, options.rate):
            speeds: dict[str, list[float]] = {ours.name: [], theirs.name: []}
            for _ in range(ROUNDS):
                for one in (ours, theirs):
                    speeds[one.name].append(busy(one, rows, queries, rate, options.threads, options.seconds))
            ratios = np.array(speeds[ours.name]) / np.array(speeds[theirs.name])
            shown = ", ".join(f"{name} {np.median(found):,.0f} q/s" for name, found in speeds.items())
            print(f"  {options.threads} threads, {rate} rows/s in: {shown}, ratio {np.median(ratios):.2f}")
        for one in (ours, theirs):
            found = recall(one, rows, queries)
            print(f"  {one.name}: recall {found:.3f} of {one.rows:,} rows at the end, {one.refused} refused")
        print(f"  {database.collection('rows').stats()}")


def store(database: Database, rows: np.ndarray) -> Contender:
    wall, cpu = time.perf_counter(), time.process_time()
    if database.snapshots("rows"):
        collection = database.restore("rows", "built", overwrite=True)
    else:
        collection = database.collection("rows", dim=rows.shape[1])
        for start in range(0, len(rows), 10_000):
            part = rows[start : start + 10_000]
            collection.upsert([str(start + at) for at in range(len(part))], part)
        print(f"  tarsia: rows written after {time.perf_counter() - wall:.0f} s", flush=True)
        collection.compact()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if not database.snapshots("rows"):
        collection.snapshot("built")

    def search(queries: np.ndarray, width: int) -> np.ndarray:
        return np.array(
            [[int(hit.id) for hit in hits] for hits in collection.search_batch(queries, K, ef=width)]
        )

    def insert(first: int, made: np.ndarray) -> None:
        collection.upsert([str(first + at) for at in range(len(made))], made)

    return Contender("tarsia", search, insert, wall, cpu)


def hnswlib(rows: np.ndarray, count: int, kept: Path) -> Contender:
    import hnswlib as peer

    index = peer.Index("ip", rows.shape[1])
    wall, cpu = time.perf_counter(), time.process_time()
    if kept.exists():
        index.load_index(str(kept), max_elements=len(rows))
    else:
        index.init_index(len(rows), M=16, ef_construction=200)
        index.add_items(rows[:count])
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if not kept.exists():
        index.save_index(str(kept))

    def search(queries: np.ndarray, width: int) -> np.ndarray:
        index.set_ef(width)
        return index.knn_query(queries, K, num_threads=1)[0].astype(np.int64)

    def insert(first: int, made: np.ndarray) -> None:
        index.add_items(made, np.arange(first, first + len(made)), num_threads=1)

    return Contender("hnswlib", search, insert, wall, cpu)


def recall(one: Contender, rows: np.ndarray, queries: np.ndarray, width: int | None = None) -> float:
    """recall@10 of all queries among the rows that are in."""
    best = np.empty((len(queries), 0))
    for start in range(0, one.rows, 100_000):
        scores = np.concatenate([best, queries @ rows[start : min(start + 100_000, one.rows)].T], axis=1)
        best = -np.partition(-scores, K - 1, axis=1)[:, :K]
    found = one.search(queries, width or one.width)
    scores = np.einsum("qd,qkd->qk", queries, rows[found])
    return float(np.mean(scores >= best.min(axis=1)[:, None] - 1e-6))


def least_width(one: Contender, rows: np.ndarray, queries: np.ndarray) -> int:
    return next((width for width in WIDTHS if recall(one, rows, queries, width) >= 0.95), WIDTHS[-1])


def busy(
    one: Contender, rows: np.ndarray, queries: np.ndarray, rate: int, threads: int, seconds: float
) -> float:
    """Queries answered a second by all threads, while `rate` rows a second are added."""
    stop, answered = time.monotonic() + seconds, [0] * threads

    def ask(number: int) -> None:
        rng = np.random.default_rng(number)
        while time.monotonic() < stop:
            try:
                one.search(queries[rng.integers(0, len(queries), BATCH)], one.width)
                answered[number] += BATCH
            except RuntimeError:
                one.refused += BATCH

    def add() -> None:
        due = time.monotonic()
        while (due := due + INSERTED / rate) < stop:
            time.sleep(max(0.0, due - time.monotonic()))
            one.insert(one.rows, rows[one.rows : one.rows + INSERTED])
            one.rows += INSERTED

    workers = [threading.Thread(target=ask, args=(number,)) for number in range(threads)]
    workers += [threading.Thread(target=add)] if rate else []
    started = time.monotonic()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(answered) / (time.monotonic() - started)


if __name__ == "__main__":
    main()

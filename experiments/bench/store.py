"""Durable upserts beside a bare append + fdatasync of the same bytes, SQLite and LanceDB; exact search beside
NumPy.

Run: `python -m experiments.bench.store [--rows N]`. LanceDB is left out where it is not installed, and gets a
twentieth of the batches.
"""

import argparse
import os
import sqlite3
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from experiments.bench.measure import Span, interleaved, machine, timed
from stores import Collection, Database

DIM = 384
BATCH = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=40_000)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((options.rows, DIM), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    print(f"store: {options.rows} rows of {DIM} float32, {machine()}")
    with tempfile.TemporaryDirectory() as folder, Database.open(folder) as database:
        collection = database.collection("bench", dim=DIM)
        writes(collection, Path(folder), vectors)
        searches(collection, vectors, rng)


def writes(collection: Collection, folder: Path, vectors: np.ndarray) -> None:
    """Batches of 100, in turn: into the store, as many bytes into a bare file, and into the others; then four
    threads that share the store's syncs."""
    spans: dict[str, list[Span]] = {"bare append": [], "store": [], "SQLite": []}
    lance = lance_table(folder)
    if lance is not None:
        spans["LanceDB"] = []
    table = sqlite3.connect(folder / "rows.sqlite", isolation_level=None)
    table.execute("PRAGMA journal_mode=WAL")
    table.execute("PRAGMA synchronous=FULL")
    table.execute("CREATE TABLE rows (id TEXT PRIMARY KEY, vector BLOB) WITHOUT ROWID")
    with (folder / "bare.log").open("ab", buffering=0) as log:
        for start in range(0, len(vectors), BATCH):
            rows = vectors[start : start + BATCH]
            ids = [f"{row:08d}" for row in range(start, start + len(rows))]
            payload = rows.tobytes() + "".join(ids).encode()
            spans["bare append"].append(timed(lambda data=payload: append(log.fileno(), data)))
            spans["store"].append(timed(lambda ids=ids, rows=rows: collection.upsert(ids, rows)))
            spans["SQLite"].append(timed(lambda ids=ids, rows=rows: insert(table, ids, rows)))
            if lance is not None and start % (20 * BATCH) == 0:
                made = [{"id": id, "vector": row} for id, row in zip(ids, rows, strict=True)]
                spans["LanceDB"].append(timed(lambda made=made: lance.add(made)))
    rates = {name: len(runs) * BATCH / total(runs).wall for name, runs in spans.items()}
    rates["store, 4 threads"] = len(vectors) / timed(lambda: by_threads(collection, vectors, 4)).wall
    for name, rate in rates.items():
        share = rate / rates["bare append"]
        print(f"  durable batches of {BATCH}: {name} {rate:,.0f} rows/s, {share:.2f} of a bare append")


def insert(table: sqlite3.Connection, ids: list[str], rows: np.ndarray) -> None:
    table.execute("BEGIN")
    values = zip(ids, (row.tobytes() for row in rows), strict=True)
    table.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?)", values)
    table.execute("COMMIT")


def lance_table(folder: Path) -> Any | None:
    try:
        import lancedb
    except ImportError:
        return None
    first = [{"id": "first", "vector": np.zeros(DIM, np.float32)}]
    return lancedb.connect(folder / "lance").create_table("rows", first)


def by_threads(collection: Collection, vectors: np.ndarray, threads: int) -> None:
    def write(start: int) -> None:
        rows = vectors[start : start + BATCH]
        collection.upsert([f"{row:08d}" for row in range(start, start + len(rows))], rows)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(write, range(0, len(vectors), BATCH)))


def append(descriptor: int, data: bytes) -> None:
    os.write(descriptor, data)
    os.fdatasync(descriptor)


def total(spans: list[Span]) -> Span:
    return Span(sum(span.wall for span in spans), sum(span.cpu for span in spans))


def searches(collection: Collection, vectors: np.ndarray, rng: np.random.Generator) -> None:
    """The ten nearest of one query: the store's exact search and a NumPy product with argpartition."""
    collection.compact()
    queries = rng.standard_normal((50, DIM), dtype=np.float32)

    def numpy_search(query: np.ndarray) -> np.ndarray:
        scores = vectors @ query
        best = np.argpartition(-scores, 10)[:10]
        return best[np.argsort(-scores[best])]

    spans = interleaved(
        {
            "store": lambda: [collection.search(query, k=10, exact=True) for query in queries],
            "NumPy": lambda: [numpy_search(query) for query in queries],
        },
        rounds=5,
    )
    shown = ", ".join(f"{name} {span.wall / len(queries) * 1e3:.2f} ms" for name, span in spans.items())
    print(f"  exact search, k = 10: {shown}, ratio {spans['NumPy'].wall / spans['store'].wall:.2f}")


if __name__ == "__main__":
    main()

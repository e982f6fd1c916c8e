"""The store in less memory than its vectors: a child process in a memory cgroup opens it and answers.

Run as root on Linux: `python -m experiments.bench.ann_small [--rows 300000] [--share 0.8]`. The limit is that
share of the vectors' bytes, for everything the child has and caches. For each tier: recall@10, milliseconds
a query, and the most memory that the group had. Single queries, from the second hundred on.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from experiments.bench.ann_data import DATA
from experiments.bench.measure import machine
from stores import Database, Options
from stores.index.graph.build import DEGREE
from stores.index.graph.index import Tier, node_bytes

K = 10
QUERIES = 600
CGROUP = Path("/sys/fs/cgroup")
TIERS: tuple[tuple[Tier, int], ...] = (("bits", 64), ("blocks", 48))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=DATA, default="clustered")
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--share", type=float, default=0.8)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        folder, limit, width = options.child
        answer(Path(folder), int(limit), int(width))
        return
    data = DATA[options.data](options.rows)
    limit = int(options.share * data.vectors.nbytes)
    size = data.vectors.nbytes >> 20
    print(f"ann_small: {data.name}, {data.vectors.shape}, {size} MiB of vectors, {machine()}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "queries.npy", data.queries[:QUERIES])
        np.save(folder / "best.npy", tenth_best(data.vectors, data.queries[:QUERIES]))
        with Database.open(folder / "db", options=Options(memory_bytes=0)) as database:
            collection = database.collection("rows", dim=data.vectors.shape[1])
            for start in range(0, options.rows, 10_000):
                part = data.vectors[start : start + 10_000]
                collection.upsert([str(start + at) for at in range(len(part))], part)
            collection.compact()
        for tier, width in TIERS:
            allowed = options.rows * node_bytes(data.vectors.shape[1], DEGREE, tier)
            with memory_group(limit) as (group, most):
                command = [sys.executable, "-m", "experiments.bench.ann_small", "--child"]
                child = subprocess.run(
                    [*command, str(folder), str(allowed), str(width)],
                    preexec_fn=lambda group=group: (group / "cgroup.procs").write_text(str(os.getpid())),
                    capture_output=True,
                    text=True,
                    check=False,
                )
                shown = child.stdout.strip() or f"failed ({child.returncode}): {child.stderr[-300:]}"
                peak = most()
            print(
                f"  {tier}, width {width}, limit {limit >> 20} MiB: {shown}, peak {peak >> 20} MiB",
                flush=True,
            )


def answer(folder: Path, allowed: int, width: int) -> None:
    queries, best = np.load(folder / "queries.npy"), np.load(folder / "best.npy")
    options = Options(memory_bytes=allowed, shadow_every=None)
    with Database.open(folder / "db", options=options) as database:
        collection = database.collection("rows")
        right, spent = [], []
        for number, query in enumerate(queries):
            started = time.perf_counter()
            hits = collection.search(query, K, ef=width, explain=number == 0)
            spent.append(time.perf_counter() - started)
            right.append(np.mean([hit.score >= best[number] - 1e-6 for hit in hits]))
            if number == 0 and hits.explanation is not None:
                tiers = ", ".join(part.tier for part in hits.explanation.parts)
    p50, p99 = np.quantile(spent[100:], [0.5, 0.99]) * 1e3
    print(f"{tiers}, recall {np.mean(right):.3f}, p50 {p50:.2f} ms, p99 {p99:.2f} ms")


def tenth_best(vectors: np.ndarray, queries: np.ndarray) -> np.ndarray:
    best = np.empty((len(queries), 0), np.float32)
    for start in range(0, len(vectors), 100_000):
        scores = np.concatenate([best, queries @ vectors[start : start + 100_000].T], axis=1)
        best = -np.partition(-scores, K - 1, axis=1)[:, :K]
    return best.min(axis=1)


@contextmanager
def memory_group(limit: int) -> Iterator[tuple[Path, Callable[[], int]]]:
    """A cgroup (of version 1 or 2) with this memory limit, and a function for the most it has had."""
    second = (CGROUP / "cgroup.controllers").exists()
    group = (CGROUP if second else CGROUP / "memory") / f"tarsia-bench-{os.getpid()}"
    names = (
        ("memory.max", "memory.peak") if second else ("memory.limit_in_bytes", "memory.max_usage_in_bytes")
    )
    try:
        group.mkdir()
        (group / names[0]).write_text(str(limit))
    except OSError as error:
        raise SystemExit(f"no memory cgroup can be made here ({error}): run it as root on Linux") from error
    try:
        yield group, lambda: int((group / names[1]).read_text())
    finally:
        group.rmdir()


if __name__ == "__main__":
    main()

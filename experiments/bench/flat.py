"""Exact search by the flat tier: beside faiss and NumPy on processors, beside a copy on an accelerator.

Run: `python -m experiments.bench.flat [--rows N] [--dim D]`. On an accelerator `floor` is the time in which
the vectors can be read once at the rate of a large copy.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench.measure import machine
from stores.index import flat
from stores.segment.batch import Batch
from stores.segment.memtable import Memtable
from stores.segment.view import Part

K = 10
BATCHES = (1, 32, 256)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=384)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((options.rows, options.dim), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = rng.standard_normal((max(BATCHES), options.dim), np.float32)
    part = held(vectors)
    allowed = [np.ones(len(vectors), np.bool_)]
    print(f"flat: {vectors.shape} float32, {jax.devices()[0].device_kind}, {machine()}")
    floor = read_seconds(vectors.nbytes) if jax.default_backend() != "cpu" else None
    peers = {} if floor else faiss_and_numpy(vectors)
    for batch in BATCHES:
        own = median(lambda batch=batch: flat.search(queries[:batch], [part], allowed, "cosine", K))
        line = f"  {batch:4} queries: {own * 1e3:8.2f} ms"
        if floor:
            line += f", floor {floor * 1e3:.2f} ms ({floor / own:.2f} of it)"
        for name, search in peers.items():
            theirs = median(lambda search=search, batch=batch: search(queries[:batch]))
            line += f", {name} {theirs * 1e3:.2f} ms ({theirs / own:.2f}x)"
        print(line, flush=True)
    found = flat.search(queries[:8], [part], allowed, "cosine", K)[1] & 0xFFFFFFFF
    expected = np.argsort(-(queries[:8].astype(np.float64) @ vectors.T.astype(np.float64)), axis=1)[:, :K]
    same = np.mean([len(set(a) & set(b)) / K for a, b in zip(found.tolist(), expected.tolist(), strict=True)])
    print(f"  recall@{K} {same:.3f}")


def held(vectors: np.ndarray) -> Part:
    """The vectors as a part of a collection, in memory."""
    ids = [b"%d" % row for row in range(len(vectors))]
    none = [None] * len(ids)
    rows = Memtable(1, vectors.shape[1]).append(Batch(ids, none, none, vectors))
    return Part(rows, np.ones(len(ids), np.bool_))


def median(work: Callable[[], object]) -> float:
    """Seconds of a call: the median of many after two that do not count."""
    for _ in range(2):
        work()
    spent = []
    while len(spent) < 5 or (len(spent) < 50 and sum(spent) < 1.0):
        started = time.perf_counter()
        work()
        spent.append(time.perf_counter() - started)
    return statistics.median(spent)


def read_seconds(size: int) -> float:
    """Seconds to read `size` bytes, by a copy of them, which reads and writes."""
    source = jnp.ones(size // 4, jnp.float32)
    copy = jax.jit(lambda array: array + 1)
    return median(lambda: copy(source).block_until_ready()) / 2


def faiss_and_numpy(vectors: np.ndarray) -> dict[str, Callable[[np.ndarray], object]]:
    found: dict[str, Callable[[np.ndarray], object]] = {}
    try:
        import faiss

        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        found["faiss"] = lambda queries: index.search(queries, K)
    except ImportError:
        print("  faiss is missing: pip install 'tarsia[bench]'")

    def by_numpy(queries: np.ndarray) -> np.ndarray:
        scores = queries @ vectors.T
        return np.argpartition(-scores, K, axis=1)[:, :K]

    found["NumPy"] = by_numpy
    return found


if __name__ == "__main__":
    main()

"""The store beside other databases that live in the process: LanceDB, Chroma and zvec, whole calls, durable.

Run: `python -m experiments.bench.databases [--data texts] [--rows 100000] [--peers NAME...]`. Each gets the
same vectors in batches of 5,000 and builds its index as its documentation has it (HNSW: M 16, efConstruction
200); then single queries in turn, one caller, at several widths. What is not installed is left out
(`pip install lancedb chromadb zvec`). A wall clock: all of them use threads of their own.
"""

import argparse
import importlib.util
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.bench.ann import Curve, nearest, recall
from experiments.bench.ann_data import DATA
from experiments.bench.measure import machine

K = 10
BATCH = 5000
WIDTHS = (24, 32, 64, 128, 256)
ROUNDS = 3
Search = Callable[[np.ndarray, int], list[int]]


@dataclass(frozen=True)
class Contender:
    """`build(folder, vectors)` gives search(query, width) -> ids."""

    name: str
    module: str
    build: Callable[[Path, np.ndarray], Search]


def batches(vectors: np.ndarray) -> Iterator[tuple[list[str], np.ndarray]]:
    for start in range(0, len(vectors), BATCH):
        part = vectors[start : start + BATCH]
        yield [str(start + at) for at in range(len(part))], part


def tarsia(folder: Path, vectors: np.ndarray) -> Search:
    from stores import Database

    collection = Database.open(folder).collection("rows", dim=vectors.shape[1])
    for ids, part in batches(vectors):
        collection.upsert(ids, part)
    collection.compact()
    return lambda query, width: [int(hit.id) for hit in collection.search(query, K, ef=width)]


def lancedb(folder: Path, vectors: np.ndarray) -> Search:
    import lancedb as peer
    import pyarrow

    kind = pyarrow.list_(pyarrow.float32(), vectors.shape[1])
    schema = pyarrow.schema([("id", pyarrow.int64()), ("vector", kind)])
    table = peer.connect(folder).create_table("rows", schema=schema)
    for ids, part in batches(vectors):
        rows = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(part.ravel()), vectors.shape[1])
        table.add(
            pyarrow.table({"id": pyarrow.array([int(id) for id in ids]), "vector": rows}, schema=schema)
        )
    table.create_index(metric="dot", index_type="IVF_HNSW_SQ", num_partitions=1, m=16, ef_construction=200)

    def search(query: np.ndarray, width: int) -> list[int]:
        asked = (
            table.search(query)
            .distance_type("dot")
            .ef(width)
            .refine_factor(2)
            .limit(K)
            .select(["id", "_distance"])
        )
        return asked.to_arrow()["id"].to_pylist()

    return search


def chroma(folder: Path, vectors: np.ndarray) -> Search:
    import chromadb as peer

    client = peer.PersistentClient(str(folder), peer.Settings(anonymized_telemetry=False))
    made = {"hnsw": {"space": "ip", "ef_construction": 200, "max_neighbors": 16}}
    collection = client.create_collection("rows", configuration=made, embedding_function=None)
    for ids, part in batches(vectors):
        collection.add(ids=ids, embeddings=part)
    now = [0]

    def search(query: np.ndarray, width: int) -> list[int]:
        if now[0] != width:
            collection.modify(configuration={"hnsw": {"ef_search": width}})
            now[0] = width
        found = collection.query(query_embeddings=[query], n_results=K, include=[])
        return [int(id) for id in found["ids"][0]]

    return search


def zvec(folder: Path, vectors: np.ndarray) -> Search:
    import zvec as peer

    index = peer.HnswIndexParam(metric_type=peer.MetricType.IP, m=16, ef_construction=200)
    field = peer.VectorSchema("v", peer.DataType.VECTOR_FP32, vectors.shape[1], index)
    collection = peer.create_and_open(str(folder / "zvec"), peer.CollectionSchema("rows", vectors=field))
    for ids, part in batches(vectors):
        for start in range(0, len(ids), 1000):
            pairs = zip(ids[start : start + 1000], part[start : start + 1000], strict=True)
            collection.insert([peer.Doc(id=id, vectors={"v": row}) for id, row in pairs])
    collection.optimize()

    def search(query: np.ndarray, width: int) -> list[int]:
        asked = peer.Query("v", vector=query, param=peer.HnswQueryParam(ef=width))
        return [int(doc.id) for doc in collection.query(asked, topk=K)]

    return search


CONTENDERS = (
    Contender("tarsia", "stores", tarsia),
    Contender("LanceDB", "lancedb", lancedb),
    Contender("Chroma", "chromadb", chroma),
    Contender("zvec", "zvec", zvec),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=DATA, default="texts")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--peers", nargs="*", default=[one.name for one in CONTENDERS[1:]])
    parser.add_argument("--queries", type=int, default=300)
    options = parser.parse_args()
    data = DATA[options.data](options.rows)
    best = nearest(data)
    print(f"databases: {data.name}, {data.vectors.shape}, {machine()}")
    chosen = [one for one in CONTENDERS if one.name in ("tarsia", *options.peers)]
    there = [one for one in chosen if importlib.util.find_spec(one.module)]
    with tempfile.TemporaryDirectory() as temporary:
        searches, built = {}, {}
        for one in there:
            folder = Path(temporary) / one.name
            folder.mkdir()
            started = time.perf_counter()
            searches[one.name] = one.build(folder, data.vectors)
            built[one.name] = time.perf_counter() - started
            size = sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
            share = size / data.vectors.nbytes
            print(
                f"  {one.name}: built in {built[one.name]:.0f} s, {share:.2f} of the vectors' bytes on disk"
            )
        curves = measure(searches, built, data, best, options.queries)
    ours = curves[0]
    for curve in curves:
        points = "  ".join(f"{at}: {found:.3f} {speed:,.0f}" for at, found, speed in curve.points)
        speed, own = curve.at(0.95), ours.at(0.95)
        told = (
            f"{speed:,.0f} q/s at 0.95, ours is {own / speed:.1f} times that"
            if speed and own
            else "never 0.95"
        )
        print(f"  {curve.name}: {points}; {told}")


def measure(
    searches: dict[str, Search], built: dict[str, float], data: Any, best: np.ndarray, queries: int
) -> list[Curve]:
    times: dict[tuple[str, int], float] = {}
    recalls: dict[tuple[str, int], float] = {}
    for turn in range(ROUNDS):
        for width in WIDTHS:
            for name, search in searches.items():
                search(data.queries[-1], width)
                started = time.perf_counter()
                found = [search(query, width) for query in data.queries[:queries]]
                spent = time.perf_counter() - started
                key = name, width
                times[key] = min(spent, times.get(key, np.inf))
                if turn == 0:
                    padded = np.array([(ids + [-1] * K)[:K] for ids in found])
                    part = type(data)(data.name, data.metric, data.vectors, data.queries[:queries])
                    recalls[key] = recall(part, best[:queries], padded)
    return [
        Curve(name, built[name], 0, [(at, recalls[name, at], queries / times[name, at]) for at in WIDTHS])
        for name in searches
    ]


if __name__ == "__main__":
    main()

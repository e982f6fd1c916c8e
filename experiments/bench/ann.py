"""Recall and speed of the graph index beside hnswlib, faiss and usearch: one thread, one run, same vectors.

Run: `python -m experiments.bench.ann [--data texts|glove|clustered|unlike|lengths|wide|repeated] [--rows N]
[--peers NAME...] [--disk] [--xla] [--picture FILE]`. Searches take turns, so that a slow minute hits each
alike; times are of the processor. Speeds "at recall 0.95" are read off each one's curve, between its two
nearest settings.
"""

import argparse
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.bench.ann_data import DATA, Data
from experiments.bench.ann_peers import CONTENDERS, Built, Contender, K
from experiments.bench.measure import machine

ROUNDS = 5


@dataclass(frozen=True)
class Curve:
    """Of one contender: seconds to build, bytes a vector; points are (setting, recall@10, queries/s)."""

    name: str
    build: float
    bytes: float
    points: list[tuple[int, float, float]]

    def at(self, recall: float) -> float | None:
        """Queries per second at a recall: between the settings around it; None if it is never reached."""
        best = sorted((found, speed) for _, found, speed in self.points)
        if best[-1][0] < recall:
            return None
        # A setting that is both slower and worse than another says nothing.
        kept = [
            point for point in best if all(other[1] <= point[1] for other in best if other[0] >= point[0])
        ]
        recalls, speeds = zip(*kept, strict=True)
        return float(np.exp(np.interp(recall, recalls, np.log(speeds))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=DATA, default="texts")
    parser.add_argument("--rows", type=int, default=100_000)
    peers = [one.name for one in CONTENDERS if not one.name.startswith("tarsia")]
    parser.add_argument("--peers", nargs="*", default=peers)
    parser.add_argument("--xla", action="store_true", help="search by JAX alone")
    parser.add_argument("--disk", action="store_true", help="also with vectors on disk")
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    pin_to_one_core()
    data = DATA[options.data](options.rows)
    print(f"ann: {data.name}, {data.vectors.shape}, {data.metric}, one thread, {machine()}")
    best = nearest(data)
    wanted = {"tarsia", *options.peers}
    if options.disk:
        wanted |= {"tarsia, disk", "tarsia, blocks"}
    curves = compare(data, best, [one for one in CONTENDERS if one.name in wanted], xla=options.xla)
    show(curves)
    if options.picture:
        draw(curves, f"{data.name}, {len(data.vectors):,} x {data.vectors.shape[1]}", options.picture)


def pin_to_one_core() -> None:
    """Starts this program again on one core: libraries count the cores when they are imported."""
    if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) == 1:
        return
    # The last core: the first has the system's interrupts.
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    os.execv(sys.executable, [sys.executable, "-m", "experiments.bench.ann", *sys.argv[1:]])


def nearest(data: Data) -> np.ndarray:
    """The scores of the 10 best rows of each query, the tenth last: float64 (q, 10)."""
    queries = data.queries.astype(np.float64)
    scores = np.empty((len(queries), 0))
    for start in range(0, len(data.vectors), 50_000):
        part = data.vectors[start : start + 50_000].astype(np.float64)
        scores = np.concatenate([scores, score(queries, part, data.metric)], axis=1)
        scores = -np.partition(-scores, K - 1, axis=1)[:, :K]
    return -np.sort(-scores, axis=1)


def score(queries: np.ndarray, vectors: np.ndarray, metric: str) -> np.ndarray:
    products = queries @ vectors.T
    return 2 * products - (vectors**2).sum(axis=1) if metric == "l2" else products


def recall(data: Data, best: np.ndarray, found: np.ndarray) -> float:
    """The share of found rows that are as good as the tenth best: any of several alike counts."""
    rows = data.vectors[np.maximum(found, 0)].astype(np.float64)
    products = np.einsum("qd,qkd->qk", data.queries.astype(np.float64), rows)
    scores = 2 * products - (rows**2).sum(axis=2) if data.metric == "l2" else products
    right = (found >= 0) & (scores >= best[:, -1:] - 1e-6)
    return float(np.mean(right))


def compare(data: Data, best: np.ndarray, contenders: list[Contender], *, xla: bool) -> list[Curve]:
    built: dict[str, Built] = {}
    seconds = {}
    for contender in contenders:
        if contender.name == "tarsia":
            # Compiling is done once per machine, and not for each index.
            contender.build(data.vectors[:: max(1, len(data.vectors) // 5000)], data.metric)
        started = time.process_time()
        built[contender.name] = contender.build(data.vectors, data.metric)
        seconds[contender.name] = time.process_time() - started
        print(f"  {contender.name}: built in {seconds[contender.name]:.1f} s", flush=True)
    if xla:
        os.environ["TARSIA_OPS"] = "xla"
    times: dict[tuple[str, int], float] = {}
    recalls: dict[tuple[str, int], float] = {}
    for turn in range(ROUNDS + 1):
        for contender in contenders:
            for setting in contender.settings:
                # Twice, the second counts: who has an index to itself has it in the cache.
                built[contender.name].search(data.queries, setting)
                started = time.process_time()
                found = built[contender.name].search(data.queries, setting)
                spent = time.process_time() - started
                key = (contender.name, setting)
                if turn == 0:
                    recalls[key] = recall(data, best, np.asarray(found, np.int64))
                else:
                    times[key] = min(spent, times.get(key, np.inf))
    for name, index in built.items():
        if index.forget is not None:
            print(f"  {name}, nothing cached: {cold(index, data, contenders, name)}")
    return [
        Curve(
            one.name,
            seconds[one.name],
            built[one.name].resident / len(data.vectors),
            [(at, recalls[one.name, at], len(data.queries) / times[one.name, at]) for at in one.settings],
        )
        for one in contenders
    ]


def cold(index: Built, data: Data, contenders: list[Contender], name: str) -> str:
    """Wall milliseconds of single queries at the setting nearest to 64, the files' pages dropped."""
    setting = min(next(one.settings for one in contenders if one.name == name), key=lambda at: abs(at - 64))
    index.forget()
    spent = []
    for query in data.queries[:150]:
        started = time.perf_counter()
        index.search(query[None], setting)
        spent.append(time.perf_counter() - started)
    p50, p99 = np.quantile(spent, [0.5, 0.99]) * 1e3
    return f"p50 {p50:.2f} ms, p99 {p99:.2f} ms a query (width {setting})"


def show(curves: list[Curve]) -> None:
    for curve in curves:
        points = "  ".join(f"{at}: {recall:.4f} {speed:,.0f}" for at, recall, speed in curve.points)
        print(f"  {curve.name}: {points}")
    ours = curves[0]
    print(f"  {'':14} {'build s':>8} {'ratio':>6} {'B/vector':>9} {'ratio':>6}", end="")
    levels = (0.9, 0.95, 0.98, 0.99)
    print("".join(f" {'q/s@' + str(level):>9} {'ratio':>6}" for level in levels))
    for curve in curves:
        line = f"  {curve.name:14} {curve.build:8.1f} {ours.build / curve.build:6.2f}"
        line += f" {curve.bytes:9,.0f} {ours.bytes / curve.bytes:6.2f}"
        for level in levels:
            speed, own = curve.at(level), ours.at(level)
            line += f" {speed:9,.0f}" if speed else f" {'-':>9}"
            line += f" {own / speed:6.2f}" if speed and own else f" {'-':>6}"
        print(line)


def draw(curves: list[Curve], title: str, target: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for curve in curves:
        _, recalls, speeds = zip(*curve.points, strict=True)
        axes.plot(recalls, speeds, marker="o", markersize=3, label=curve.name)
    axes.set(
        title=title, xlabel="recall@10", ylabel="queries per second, one thread", yscale="log", xlim=(0.8, 1)
    )
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(target)
    plt.close(figure)
    print(f"  drawn in {target}")


if __name__ == "__main__":
    main()

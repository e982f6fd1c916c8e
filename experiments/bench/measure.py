"""Clocks and memory for benchmarks: wall and process CPU time, medians, the machine in one line."""

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Span:
    """Seconds of one run: `cpu` is of the whole process, all threads."""

    wall: float
    cpu: float


def timed(work: Callable[[], object]) -> Span:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Span(time.perf_counter() - wall, time.process_time() - cpu)


def median(spans: list[Span]) -> Span:
    return Span(statistics.median(span.wall for span in spans), statistics.median(span.cpu for span in spans))


def interleaved(
    contenders: dict[str, Callable[[], object]], rounds: int, *, in_a_row: int = 1
) -> dict[str, Span]:
    """Runs all in turn, `rounds` times after one that does not count, so that drift hits each alike.

    With more than one run `in_a_row`, the first of each turn does not count either: threads of the one
    before may still be spinning.
    """
    for work in contenders.values():
        work()
    spans: dict[str, list[Span]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, work in contenders.items():
            turn = [timed(work) for _ in range(in_a_row)]
            spans[name] += turn[1:] or turn
    return {name: median(runs) for name, runs in spans.items()}


def peak_memory_mb() -> float:
    """Largest resident size of this process so far, in MB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def machine() -> str:
    cores = psutil.cpu_count()
    load = psutil.getloadavg()[0]
    return f"{platform.machine()}, {cores} cores, load {load:.1f}, Python {platform.python_version()}"

"""DSL kernels beside the plain jnp expression: the XLA lowering and the compiled C++, in one run.

Ratios are medians over rounds of wall time against plain in the same round; below 1 is faster. The last line
is the verdict as JSON: kernels whose XLA lowering takes more than 1.3 times plain's time (attention: 2
times), and those where the `cpu` target is slower than plain.
Run: `python -m experiments.bench.dsl [--rounds N] [NAME...]`.
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import jax

from engine.ops.jit import compile
from experiments.bench.dsl_cases import Case, cases, library
from experiments.bench.measure import machine, timed

SHORTEST = 4e-3
"""Seconds of one measurement at least; quicker calls are repeated."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="only cases whose name contains one of these")
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args()
    os.environ["TARSIA_OPS"] = "xla"
    print(f"dsl: medians of {options.rounds} rounds, {machine()}")
    print(f"  {'kernel':28s} {'plain ms':>9s} {'xla':>6s} {'cpu':>6s} {'cpu/xla':>8s}")
    missed: dict[str, float] = {}
    slower: dict[str, float] = {}
    seen = set()
    for case in cases():
        seen.add(case.of.name)
        if options.names and not any(name in case.name for name in options.names):
            continue
        xla, cpu = report(case, options.rounds)
        if xla > case.bound:
            missed[case.name] = round(xla, 2)
        if cpu > 1:
            slower[case.name] = round(cpu, 2)
    absent = sorted(library() - seen)
    print(
        "verdict", json.dumps({"xla_missed": missed, "cpu_slower_than_plain": slower, "not_measured": absent})
    )
    return len(absent) > 0


def report(case: Case, rounds: int) -> tuple[float, float]:
    """Prints a row; (xla, cpu) time over plain time."""
    calls = {"plain": compile(lambda *args: case.plain(*args))}
    for backend in ("xla", "cpu"):
        calls[backend] = compile(partial(case.kernel, backend=backend))
    walls = _walls({name: partial(_finished, f, case.args) for name, f in calls.items()}, rounds)
    plain = statistics.median(walls["plain"])
    xla, cpu, both = (
        statistics.median(a / b for a, b in zip(walls[over], walls[under], strict=True))
        for over, under in (("xla", "plain"), ("cpu", "plain"), ("cpu", "xla"))
    )
    print(f"  {case.name:28s} {plain * 1e3:9.3f} {xla:6.2f} {cpu:6.2f} {both:8.2f}", flush=True)
    return xla, cpu


def _walls(contenders: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Seconds of one call of each, round by round, after one that does not count."""
    for work in contenders.values():
        work()
    once = min(timed(contenders["plain"]).wall for _ in range(3))
    repeats = max(1, round(SHORTEST / once))

    def several(work: Callable[[], None]) -> None:
        for _ in range(repeats):
            work()

    walls: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, work in contenders.items():
            walls[name].append(timed(partial(several, work)).wall / repeats)
    return walls


def _finished(f: Callable[..., Any], args: tuple[Any, ...]) -> None:
    jax.block_until_ready(f(*args))


if __name__ == "__main__":
    sys.exit(main())

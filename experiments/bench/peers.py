"""What `decode` and `prefill` share: pairs of contenders, a child process for each number of threads."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import numpy as np

from experiments.bench.llama import PLAIN_LAYOUT
from experiments.bench.measure import interleaved

SMOLLM2, QWEN = "smollm2-135m-instruct", "qwen2.5-coder-0.5b-instruct"
Pair = tuple[str, str]
"""Ours beside theirs, by the kind of weights."""


def pairs(model: str) -> list[Pair]:
    """Quantised weights; float32 where our native kernels are off (TARSIA_OPS=xla)."""
    if os.environ.get("TARSIA_OPS") == "xla":
        return [("f32", "F32")]
    own = [("int4", "Q4_1")] if model == SMOLLM2 else []
    return [("int8", "Q8_0"), ("int4", "Q4_0"), *own]


def prompt(length: int) -> list[int]:
    return np.random.default_rng(0).integers(100, 5000, length).tolist()


def child(module: str, threads: int, given: list[str]) -> int:
    """The module again in a process of its own on `threads` processors: XLA sizes its pool when it starts."""
    allowed = sorted(os.sched_getaffinity(0))[-threads:]
    command = [sys.executable, "-m", module, "--child", "--threads", str(threads), *given]

    def run(**more: str) -> int:
        environment = {**os.environ, **more}
        pinned = lambda: os.sched_setaffinity(0, allowed)  # noqa: E731
        return abs(subprocess.run(command, preexec_fn=pinned, env=environment).returncode)

    code = run()
    if code in (signal.SIGSEGV, signal.SIGILL):
        print("llama.cpp crashes with weights laid out for this processor (AMX?); again without", flush=True)
        code = run(**{PLAIN_LAYOUT: "1"})
    return code


def report(
    contenders: dict[str, Callable[[], object]], chosen: list[Pair], tokens: int, rounds: int
) -> dict[str, float]:
    """Prints tokens a second of each, by CPU time and by wall; {"int8 / Q8_0": ratio by CPU time}."""
    spans = interleaved(contenders, rounds)
    for name, span in spans.items():
        print(f"    {name:>6s} {tokens / span.cpu:9.1f} tok/s by CPU time {tokens / span.wall:9.1f} by wall")
    found = {}
    for mine, other in chosen:
        cpu, wall = spans[other].cpu / spans[mine].cpu, spans[other].wall / spans[mine].wall
        print(f"    {mine} / {other}: {cpu:.2f} by CPU time, {wall:.2f} by wall", flush=True)
        found[f"{mine} / {other}"] = cpu
    return found

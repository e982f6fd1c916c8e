"""The DSL's kernels on an NVIDIA GPU beside XLA, cuBLAS, cuDNN's attention and Triton, in one run.

Each work runs on several sets of arguments in turn, more than the cache holds, and is timed by the wall
clock over many runs; the median of rounds counts. `floor` is the larger of bytes over the bandwidth of a
copy and operations over the rate of cuBLAS's largest product, both measured at the start. `error` is the
norm of the difference from the plain expression in f32 over that expression's norm.
Run: `python -m experiments.bench.gpu [--rounds N] [--sweep] [NAME...]`; peers need torch and triton.
"""

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from dsl import update
from dsl.targets.cuda.target import TARGET
from experiments.bench.gpu_cases import Case, cases

CACHED = 2 * 60 * 2**20
"""Bytes of arguments that the runs go through before one is used again."""
SPAN = 0.02
"""Seconds of a round."""
Work = Callable[[], Any]
Tiles = tuple[tuple[str, tuple[int, ...]], ...]
SWEEPS: dict[str, Tiles] = {
    "gemv 8192x8192": (("BM", (4, 8, 16)), ("BK", (512, 1024, 2048))),
    "int8_linear 1x4096 @ 14336": (("BM", (8, 16, 32, 64)),),
    "decode_attention 32x32/8x4096x128": (("BN", (32, 64, 128)),),
    "matmul 1024^3": (("BM", (32, 64, 128)), ("BN", (64, 128)), ("BK", (32, 64))),
    "matmul 4096^3": (("BM", (64, 128, 256)), ("BN", (64, 128, 256)), ("BK", (32, 64))),
    "matmul 8192^3": (("BM", (64, 128)), ("BN", (128, 256)), ("BK", (32, 64))),
    "flash_attention 4x16x1024x64": (("BM", (64, 128)), ("BN", (32, 64, 128))),
    "flash_attention 2x16x4096x128": (("BM", (64, 128)), ("BN", (32, 64))),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="only cases whose name contains one of these")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sweep", action="store_true", help="time tile sizes instead")
    options = parser.parse_args()
    try:
        device: Any = jax.devices("cuda")[0]
    except RuntimeError:
        print("gpu: JAX has no NVIDIA GPU here; pip install 'tarsia[cuda]' on a machine with one")
        return 1
    chosen = [c for c in cases() if not options.names or any(name in c.name for name in options.names)]
    if options.sweep:
        for case in chosen:
            _sweep(case, options.rounds)
        return 0
    with ThreadPoolExecutor() as pool:
        list(pool.map(_prepared, chosen))
    bandwidth, peak = ceilings(options.rounds)
    print(f"gpu: {device.device_kind}, medians of {options.rounds} rounds", flush=True)
    print(f"a copy moves {bandwidth / 1e12:.2f} TB/s, cuBLAS does {peak / 1e12:.0f} Tflop/s in bf16")
    print("| kernel | us | of floor | XLA us | cuBLAS us | cuDNN us | Triton us | best peer / ours | error |")
    print("|---|---|---|---|---|---|---|---|---|")
    for case in chosen:
        begun = time.perf_counter()
        try:
            print(row(case, options.rounds, bandwidth, peak), flush=True)
        except Exception as error:
            print(f"| {case.name} | failed: {str(error).splitlines()[0][:200]} |", flush=True)
        print(f"{case.name}: {time.perf_counter() - begun:.1f} s", file=sys.stderr)
    return 0


def row(case: Case, rounds: int, bandwidth: float, peak: float) -> str:
    sets = _sets(case)
    works = {"dsl": _jitted(partial(case.run, backend="cuda"), sets), "xla": _jitted(case.plain, sets)}
    works.update(_peers(case, sets))
    times = _times(works, len(sets), rounds)
    mine, others = times["dsl"], {name: t for name, t in times.items() if name != "dsl"}
    floor = max(case.moved / bandwidth, case.flops / peak)
    cells = [f"{times[n] * 1e6:.1f}" if n in times else "" for n in ("xla", "cublas", "cudnn", "triton")]
    best = min(others.values()) / mine
    wrong = _error(case, sets[0])
    own = f"{mine * 1e6:.1f} | {floor / mine:.2f}"
    return f"| {case.name} | {own} | {' | '.join(cells)} | {best:.2f} | {wrong:.1e} |"


def ceilings(rounds: int) -> tuple[float, float]:
    """Bytes a second of a copy, read and written, and flops a second of cuBLAS."""
    import torch

    x = torch.randn(2**28, device="cuda")
    y = torch.empty_like(x)
    bandwidth = 2 * x.nbytes / _times({"copy": lambda: y.copy_(x)}, 1, rounds)["copy"]
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return bandwidth, 2 * 8192**3 / _times({"torch": lambda: a @ b}, 1, rounds)["torch"]


def _sets(case: Case) -> list[tuple[Any, ...]]:
    first = case.args(0)
    size = sum(x.nbytes for x in first)
    return [first, *(case.args(n) for n in range(1, min(16, 1 + -(-CACHED // size))))]


def _jitted(f: Callable[..., Any], sets: list[tuple[Any, ...]]) -> Work:
    """One program that does all sets, so that one call of Python's launches all."""
    compiled = jax.jit(lambda sets: [f(*args) for args in sets])
    return lambda: compiled(sets)


def _peers(case: Case, sets: list[tuple[Any, ...]]) -> dict[str, Work]:
    import torch

    from experiments.bench.gpu_peers import PEERS

    found = PEERS.get(case.kernel.name, {})
    tensors = [tuple(torch.from_dlpack(x) for x in args) for args in sets] if found else []
    return {name: partial(_each, peer, tensors) for name, peer in found.items()}


def _each(f: Callable[..., Any], sets: list[tuple[Any, ...]]) -> Any:
    return [f(*args) for args in sets][-1]


def _wait(result: Any) -> None:
    if hasattr(result, "is_cuda"):
        import torch

        torch.cuda.synchronize()
    else:
        jax.block_until_ready(result)


def _times(works: dict[str, Work], per_run: int, rounds: int) -> dict[str, float]:
    """Seconds of one set: medians of rounds, in turn."""
    counts = {}
    for name, work in works.items():
        _wait(work())
        once = _seconds(work, 1)
        counts[name] = max(1, min(200, round(SPAN / once)))
    spans: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            spans[name].append(_seconds(work, counts[name]) / per_run)
    return {name: statistics.median(found) for name, found in spans.items()}


def _seconds(work: Work, count: int) -> float:
    begun = time.perf_counter()
    for _ in range(count):
        result = work()
    _wait(result)
    return (time.perf_counter() - begun) / count


def _error(case: Case, args: tuple[Any, ...]) -> float:
    """Of the kernel, against the plain expression with f32 operands and products."""
    wide = [x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x for x in args]
    mine = jax.tree.leaves(jax.jit(partial(case.run, backend="cuda"))(*args))
    with jax.default_matmul_precision("highest"):
        exact = jax.tree.leaves(jax.jit(case.plain)(*wide))
    norms = [
        (jnp.linalg.norm((a.astype(jnp.float32) - b).ravel()), jnp.linalg.norm(b.astype(jnp.float32).ravel()))
        for a, b in zip(mine, exact, strict=True)
    ]
    return max(float(apart / size) for apart, size in norms)


def _prepared(case: Case, **more: Any) -> None:
    """Compiles and checks a kernel, in one of several threads, before kernels are timed one by one."""
    args = case.wrapped(*jax.eval_shape(lambda: case.args(0)))
    given: dict[str, Any] = {**dict(case.keywords), **more}
    if case.updated:
        *args, target = args
        given["out"] = update(target)
    TARGET.refuses(case.kernel.ir(*args, target="cuda", **given))


def _sweep(case: Case, rounds: int) -> None:
    names = [name for name, _ in SWEEPS.get(case.name, ())]
    tried = list(itertools.product(*(values for _, values in SWEEPS.get(case.name, ()))))
    if not names:
        return
    sets = _sets(case)
    settings = [dict(zip(names, values, strict=True)) for values in tried]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda more: _prepared(case, **more), settings))
    for more in settings:
        try:
            work = _jitted(partial(case.run, backend="cuda", **more), sets)
            took = _times({"dsl": work}, len(sets), rounds)["dsl"]
            print(
                f"{case.name} {more}: {took * 1e6:.1f} us, {case.flops / took / 1e12:.0f} Tflop/s", flush=True
            )
        except Exception as error:
            print(f"{case.name} {more}: {str(error).splitlines()[0][:200]}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

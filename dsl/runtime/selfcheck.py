"""The check of a freshly compiled kernel: some of its programs on random data, against the oracle.

The oracle is NumPy alone, so that it can run while JAX traces. A kernel that fails is not used: see
`Target.refuses`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from dsl.ir.ops import AtomicAdd, Kernel, walk
from dsl.ir.types import NIBBLES, RefType, Storage
from dsl.lang.arguments import NUMPY_NAME
from dsl.lower import oracle

Array = NDArray[Any]
Run = Callable[[Sequence[Array], Sequence[Array], Sequence[int]], None]
"""Runs the programs with the given numbers (row-major over the grid) on stored inputs and outputs."""

PROGRAMS = 4
"""Programs compared: the first, the last (which is where the ragged edges are) and two in between."""
ALL_PROGRAMS = 512
"""Kernels with atomic adds are compared whole, up to this many programs; beyond, not at all."""
PERIOD = 2**20 + 7
"""Random elements after which an input repeats: a prime, so that rows of no usual length are alike."""
TOLERANCE = {"f32": 1e-3, "f16": 1e-2, "bf16": 6e-2}
FLIPPED = 0.01
"""Share of elements that may differ by more: rounding can turn a comparison."""


def disagreement(kernel: Kernel, run: Run, *, seed: int = 0) -> str | None:
    """Why `run` is not what the oracle computes, or None."""
    rng = np.random.default_rng(seed)
    total = math.prod(kernel.grid)
    atomic = any(isinstance(op, AtomicAdd) for op in walk(kernel.body))
    if atomic and total > ALL_PROGRAMS:
        return None
    chosen = range(total) if atomic else _sample(rng, total)
    inputs = [random_array(rng, ref) for ref in kernel.inputs]
    widened = {ref.name: oracle._widened(ref, x) for ref, x in zip(kernel.inputs, inputs, strict=True)}
    first, second = (_expected(kernel, widened, chosen, fill) for fill in (0, 1))
    results = _outputs(kernel, inputs)
    run(inputs, results, list(chosen))
    for ref, a, b, found in zip(kernel.outputs, first, second, results, strict=True):
        reason = _compared(kernel, ref, (a, b), _wide(ref, found), whole=atomic)
        if reason is not None:
            return reason
    return None


def on_device(kernel: Kernel, call: Callable[..., tuple[jax.Array, ...]], device: Any) -> str | None:
    """Why what a traceable `call` gives on `device` is not what the oracle computes, or None.

    All programs run; those that were drawn are compared. May be asked while JAX traces.
    """

    def run(inputs: Sequence[Array], results: Sequence[Array], programs: Sequence[int]) -> None:
        with jax.ensure_compile_time_eval():
            found = jax.jit(call)(*jax.device_put(list(inputs), device))
        for result, data in zip(results, found, strict=True):
            result[...] = np.asarray(data)

    return disagreement(kernel, run)


def _sample(rng: np.random.Generator, total: int) -> list[int]:
    return sorted({0, total - 1, *map(int, rng.integers(0, total, PROGRAMS - 2))})


def random_array(rng: np.random.Generator, ref: RefType) -> Array:
    """An input as it is stored. i32 stay small: they may be positions or lengths."""
    shape = ref.stored_shape
    return np.resize(_drawn(rng, ref, min(math.prod(shape), PERIOD)), shape)


def _drawn(rng: np.random.Generator, ref: RefType, count: int) -> Array:
    if ref.dtype in NIBBLES or ref.dtype == "u8":
        return rng.integers(0, 256, count, dtype=np.uint8)
    if ref.dtype == "i8":
        return rng.integers(-128, 128, count, dtype=np.int8)
    if ref.dtype == "i32":
        return rng.integers(0, 4, count, dtype=np.int32)
    return _narrow(rng.standard_normal(count, dtype=np.float32), ref.dtype)


def _narrow(data: Array, dtype: Storage) -> Array:
    return data.astype({"f32": np.float32, "f16": np.float16, "bf16": jnp.bfloat16}[dtype])


def _outputs(kernel: Kernel, inputs: Sequence[Array]) -> list[Array]:
    given = {ref.name: x for ref, x in zip(kernel.inputs, inputs, strict=True)}
    return [np.array(given[ref.name]) if ref.role == "inout" else _zeros(ref) for ref in kernel.outputs]


def _zeros(ref: RefType) -> Array:
    return np.zeros(ref.stored_shape, jnp.dtype(NUMPY_NAME[ref.dtype]))


def _expected(
    kernel: Kernel, widened: Mapping[str, Array], programs: Sequence[int], fill: int
) -> list[Array]:
    """What the oracle leaves in outputs that begin as `fill`: elements written do not depend on it."""
    memory = dict(widened)
    for ref in kernel.outputs:
        if ref.role == "out":
            memory[ref.name] = np.full(ref.shape, fill, oracle._DTYPE[ref.value_dtype])
        else:
            memory[ref.name] = memory[ref.name] + fill
    with np.errstate(all="ignore"):
        for number in programs:
            place = [int(n) for n in np.unravel_index(number, kernel.grid)]
            oracle._Program(kernel, memory, place).block(kernel.body)
    return [oracle._stored(ref, memory[ref.name]) for ref in kernel.outputs]


def _wide(ref: RefType, data: Array) -> Array:
    return data.astype(np.float64) if ref.value_dtype != "i32" else data


def differs(kernel: Kernel, expected: Sequence[Array], found: Sequence[Array]) -> str | None:
    """Why outputs are not those expected, up to the rounding of the kernel's dtypes; or None."""
    for ref, wanted, got in zip(kernel.outputs, expected, found, strict=True):
        reason = _unlike(kernel, ref, np.asarray(wanted).ravel(), np.asarray(got).ravel())
        if reason is not None:
            return reason
    return None


def _compared(
    kernel: Kernel, ref: RefType, expected: tuple[Array, Array], found: Array, *, whole: bool
) -> str | None:
    kept = np.ones(found.shape, bool) if whole else _same(*expected)
    if not kept.any():
        return None
    reason = _unlike(kernel, ref, expected[0][kept], found[kept])
    return None if reason is None else f"its self-check failed: {reason}"


def _unlike(kernel: Kernel, ref: RefType, expected: Array, found: Array) -> str | None:
    wanted, got = expected.astype(np.float64), found.astype(np.float64)
    stored = {each.dtype for each in kernel.refs}
    passed = {value.dtype for op in walk(kernel.body) for value in op.results}  # such as f16 tiles for a dot
    allowed = max(TOLERANCE.get(dtype, 0.0) for dtype in {*stored, *passed, "f32"})
    finite = wanted[np.isfinite(wanted)]
    scale = float(np.abs(finite).mean()) if finite.size else 1.0
    close = np.isclose(got, wanted, rtol=allowed, atol=allowed * max(scale, 1e-6), equal_nan=True)
    close |= np.abs(wanted) > _LARGEST.get(ref.dtype, np.inf)
    if 1 - close.mean() <= FLIPPED:
        return None
    at = int(np.argmin(close))
    return (
        f"{int((~close).sum())} of {close.size} elements of {ref.name} are wrong, "
        f"such as {got[at]:.6g} instead of {wanted[at]:.6g}"
    )


_LARGEST = {"f32": 3e38, "f16": 6e4, "bf16": 3e38}


def _same(a: Array, b: Array) -> Array:
    same: Array = (a == b) | ((a != a) & (b != b))
    return same

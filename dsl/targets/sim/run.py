"""Runs generated source under several schedules and says what went wrong, or gives the outputs."""

import ctypes
import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from dsl.ir.ops import Kernel
from dsl.ir.types import BITS, NIBBLES, RefType
from dsl.lang.arguments import NUMPY_NAME
from dsl.lower.c.dialects import Dialect
from dsl.lower.c.emit import Program
from dsl.targets.sim.build import library

Array = NDArray[Any]
_LOCK = threading.Lock()
"""Fault handlers belong to the process: one run at a time."""


class Caught(Exception):
    """The simulator saw the program do what no correct GPU program does; the message says what."""


class _Buffer(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("bytes", ctypes.c_int64),
        ("element", ctypes.c_int32),
        ("writable", ctypes.c_int32),
    )


def simulate(
    kernel: Kernel,
    dialect: Dialect,
    program: Program,
    arrays: Sequence[Array],
    orders: Sequence[int] = (0,),
    *,
    mutant: int = 0,
) -> tuple[Array, ...]:
    """The outputs of `program` on the arrays of `kernel.inputs`, in their storage dtypes.

    `orders` seeds one run each: the order of programs and threads, and whether buffers end (even) or
    begin (odd) at a page that may not be touched. `mutant` chooses a mistake that `mutate.planted` put into
    the source; 0 for none. Raises Caught for what a run shows, also when runs
    differ by more than rounding, and BuildError when the source does not compile.
    """
    loaded = _loaded(library(kernel, dialect, program))
    first: tuple[Array, ...] | None = None
    for order in orders:
        found = _run(kernel, program, loaded, arrays, order, mutant)
        if first is not None:
            _compare(kernel, first, found, order)
        first = first or found
    assert first is not None
    return first


@lru_cache(maxsize=256)
def _loaded(path: Path) -> ctypes.CDLL:
    found = ctypes.CDLL(str(path))
    found.dsl_run.restype = ctypes.c_int
    return found


def _run(
    kernel: Kernel, program: Program, loaded: ctypes.CDLL, arrays: Sequence[Array], order: int, mutant: int
) -> tuple[Array, ...]:
    given = dict(zip((ref.name for ref in kernel.inputs), arrays, strict=True))
    memory = {ref.name: _memory(ref, given.get(ref.name)) for ref in kernel.refs}
    buffers = (_Buffer * len(kernel.refs))(*(_describe(ref, memory[ref.name]) for ref in kernel.refs))
    told = ctypes.create_string_buffer(512)
    size, seed = len(told), ctypes.c_uint(order)
    with _LOCK:
        loaded.dsl_choose(mutant)
        wrong = loaded.dsl_run(buffers, len(buffers), program.blocks, program.threads, seed, told, size)
    if wrong:
        raise Caught(f"{kernel.name}: {told.value.decode()} (schedule {order})")
    return tuple(memory[ref.name] for ref in kernel.outputs)


def _memory(ref: RefType, given: Array | None) -> Array:
    if given is None:
        return np.zeros(ref.shape, jnp.dtype(NUMPY_NAME[ref.dtype]))
    return np.array(given, order="C", copy=True)


def _describe(ref: RefType, data: Array) -> _Buffer:
    size = 1 if ref.dtype in NIBBLES else BITS[ref.dtype] // 8
    return _Buffer(ref.name.encode(), data.ctypes.data, data.nbytes, size, int(ref.is_written))


def _compare(kernel: Kernel, first: tuple[Array, ...], other: tuple[Array, ...], order: int) -> None:
    """Schedules may change the order of atomic float adds, and nothing else."""
    for ref, a, b in zip(kernel.outputs, first, other, strict=True):
        if a.tobytes() == b.tobytes():
            continue
        one, two = np.asarray(a, np.float64), np.asarray(b, np.float64)
        if not np.allclose(one, two, rtol=1e-4, atol=1e-5, equal_nan=True):
            raise Caught(f"{kernel.name}: {ref.name} differs between schedules (schedule {order})")

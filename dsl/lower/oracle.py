"""The living definition of the IR: an interpreter in NumPy, floats in float64 and integers in int32.

Nothing is rounded on the way, not even what passes through f16; so a target's distance from it is the
target's whole error. Slow: one program after another.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsl.ir.ops import (
    AtomicAdd,
    Binary,
    Cast,
    Const,
    Dot,
    Full,
    Index,
    Iota,
    Kernel,
    Load,
    Loop,
    Op,
    Pid,
    Reduce,
    Span,
    Store,
    Unary,
    Where,
)
from dsl.ir.types import FLOATS, NIBBLES, RefType, Value

Array = NDArray[Any]
_DTYPE: dict[str, Any] = {
    "f32": np.float64,
    "f16": np.float64,
    "bf16": np.float64,
    "i32": np.int32,
    "bool": np.bool_,
}
_ERF: Any = np.frompyfunc(math.erf, 1, 1)
UNARY: dict[str, Callable[[Array], Any]] = {
    "exp": np.exp,
    "log": np.log,
    "tanh": np.tanh,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sqrt": np.sqrt,
    "erf": lambda x: _ERF(x).astype(np.float64),
    "round": np.rint,
    "abs": np.abs,
    "popcount": lambda x: np.bitwise_count(x.view(np.uint32)).astype(np.int32),
    "not": np.logical_not,
}
BINARY: dict[str, Callable[[Array, Array], Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "idiv": np.floor_divide,
    "mod": np.mod,
    "max": np.maximum,
    "min": np.minimum,
    "ge": np.greater_equal,
    "lt": np.less,
    "eq": np.equal,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "shr": np.right_shift,
}
_REDUCE: dict[str, Callable[..., Any]] = {"sum": np.sum, "max": np.max, "min": np.min}


def run(kernel: Kernel, *arrays: Any) -> tuple[Array, ...]:
    """Runs `kernel` on the arrays of `kernel.inputs` and returns those of `kernel.outputs`.

    Float outputs are float64, unrounded; integer ones have their storage dtype.
    """
    memory = {ref.name: _widened(ref, np.asarray(x)) for ref, x in zip(kernel.inputs, arrays, strict=True)}
    for ref in kernel.outputs:
        if ref.role == "out":
            memory[ref.name] = np.zeros(ref.shape, _DTYPE[ref.value_dtype])
    with np.errstate(all="ignore"):
        for program in itertools.product(*map(range, kernel.grid)):
            _Program(kernel, memory, program).block(kernel.body)
    return tuple(_stored(ref, memory[ref.name]) for ref in kernel.outputs)


def unpack_nibbles(ref: RefType, data: Array) -> Array:
    """Bytes (..., n / 2) -> int32 (..., n) in the order that `dsl.ir` gives."""
    groups = data.reshape(*data.shape[:-1], -1, 16).astype(np.int32)
    both = np.concatenate([groups & 15, groups >> 4], axis=-1).reshape(ref.shape)
    return np.where(both > 7, both - 16, both).astype(np.int32) if ref.dtype == "i4" else both


def _widened(ref: RefType, data: Array) -> Array:
    if ref.dtype in NIBBLES:
        return unpack_nibbles(ref, data)
    return np.array(data, dtype=_DTYPE[ref.value_dtype])


def _stored(ref: RefType, data: Array) -> Array:
    narrow = {"i8": np.int8, "u8": np.uint8}.get(ref.dtype)
    return data.astype(narrow) if narrow else data


class _Program:
    """One point of the grid."""

    def __init__(self, kernel: Kernel, memory: dict[str, Array], program: Sequence[int]) -> None:
        self.kernel = kernel
        self.memory = memory
        self.program = program
        self.values: dict[int, Array] = {}

    def get(self, value: Value) -> Array:
        return self.values[value.id]

    def set(self, value: Value, data: Any) -> None:
        self.values[value.id] = np.asarray(data, dtype=_DTYPE[value.dtype])

    def block(self, body: Sequence[Op]) -> None:
        for op in body:
            if isinstance(op, Loop):
                self.loop(op)
            elif isinstance(op, Store | AtomicAdd):
                self.write(op)
            else:
                self.set(op.results[0], self.evaluate(op))

    def evaluate(self, op: Op) -> Any:
        match op:
            case Const(value=value):
                return value
            case Full(result=result, value=value):
                return np.full(result.shape, value)
            case Pid(axis=axis):
                return self.program[axis]
            case Iota(result=result, start=start):
                return self.get(start) + np.arange(max(result.shape), dtype=np.int32).reshape(result.shape)
            case Load():
                return self.load(op)
            case Unary(kind=kind, operand=operand):
                return UNARY[kind](self.get(operand))
            case Binary(kind=kind, left=left, right=right):
                return BINARY[kind](self.get(left), self.get(right))
            case Where(condition=condition, left=left, right=right):
                return np.where(self.get(condition), self.get(left), self.get(right))
            case Cast(operand=operand, result=result):
                return _cast(self.get(operand), result.dtype)
            case Reduce(kind=kind, operand=operand, axis=axis):
                return _REDUCE[kind](self.get(operand), axis=axis, keepdims=True)
            case Dot(left=left, right=right, transpose_b=transpose_b):
                b = self.get(right)
                return self.get(left) @ (b.T if transpose_b else b)
        raise TypeError(f"unknown op {type(op).__name__}")

    def loop(self, op: Loop) -> None:
        carried = [self.get(value) for value in op.init]
        lo, hi = int(self.get(op.lo)), int(self.get(op.hi))
        if op.max_trip is not None:
            hi = min(hi, lo + op.max_trip)
        for j in range(lo, hi):
            self.set(op.induction, j)
            for value, data in zip(op.carries, carried, strict=True):
                self.set(value, data)
            self.block(op.body)
            carried = [self.get(value) for value in op.yields]
        for value, data in zip(op.finals, carried, strict=True):
            self.set(value, data)

    def load(self, op: Load) -> Any:
        places, inside = self.window(op.ref, op.index)
        data = self.memory[op.ref]
        clipped = tuple(np.clip(p, 0, n - 1) for p, n in zip(places, data.shape, strict=True))
        found = np.where(inside, data[clipped], op.other)
        return np.broadcast_to(found, op.result.shape)

    def write(self, op: Store | AtomicAdd) -> None:
        places, inside = self.window(op.ref, op.index)
        full = np.broadcast_arrays(*places, inside)
        kept = full[-1]
        target = tuple(place[kept] for place in full[:-1])
        value = np.broadcast_to(self.get(op.value), kept.shape)[kept]
        if isinstance(op, AtomicAdd):
            np.add.at(self.memory[op.ref], target, value)
        else:
            self.memory[op.ref][target] = value

    def window(self, name: str, index: Index) -> tuple[list[Array], Array]:
        """Positions on each axis of the Ref, and which are in range; all broadcast to the window."""
        spans = any(isinstance(entry, Span) for entry in index)
        places: list[Array] = []
        inside = np.ones((1, 1) if spans else (), np.bool_)
        for entry, extent in zip(index, self.kernel.ref(name).shape, strict=True):
            place = self.get(entry.start).astype(np.int64)
            if isinstance(entry, Span):
                place = (place + np.arange(entry.size)).reshape((-1, 1) if entry.tile_axis == 0 else (1, -1))
            elif spans:
                place = place.reshape(1, 1)
            inside = inside & (place >= 0) & (place < extent)
            places.append(place)
        return places, inside


def _cast(data: Array, dtype: str) -> Any:
    if dtype == "i32" and data.dtype == np.float64:
        return np.clip(np.trunc(np.nan_to_num(data)), -(2**31), 2**31 - 1)
    if dtype == "bool":
        return data != 0
    return data.astype(np.float64) if dtype in FLOATS else data.astype(np.int32)

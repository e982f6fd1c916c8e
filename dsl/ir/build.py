"""Builds kernels op by op: types are inferred and checked, and each op remembers the user's line."""

from collections.abc import Callable, Sequence

import numpy as np

from dsl.ir import infer
from dsl.ir.infer import TypeProblem
from dsl.ir.ops import (
    AtomicAdd,
    Binary,
    BinaryKind,
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
    ReduceKind,
    Store,
    Unary,
    UnaryKind,
    Where,
    renumber,
)
from dsl.ir.types import DType, Loc, RefType, Shape, Value
from dsl.lang.errors import KernelError, user_location

LoopBody = Callable[[Value, tuple[Value, ...]], Sequence[Value]]


def constant(value: bool | int | float, dtype: DType) -> bool | int | float:
    """`value` as an element of `dtype` holds it: floats rounded to f32, so that all targets agree."""
    if dtype == "bool":
        return bool(value)
    return int(np.int32(value)) if dtype == "i32" else float(np.float32(value))


class Builder:
    """Collects the ops of one kernel.

    Example:
        >>> build = Builder("double", (RefType("x", "f32", (8,)), RefType("o", "f32", (8,), "out")), (1,))
        >>> span = (Span(build.const(0, "i32"), 8, 1),)
        >>> x = build.load("x", span, 0.0)
        >>> build.store("o", span, build.binary("add", x, x))
        >>> kernel = build.finish()
    """

    def __init__(self, name: str, refs: tuple[RefType, ...], grid: tuple[int, ...]) -> None:
        self.name = name
        self.refs = {ref.name: ref for ref in refs}
        self.grid = grid
        self._blocks: list[list[Op]] = [[]]
        self._next = 0

    def finish(self) -> Kernel:
        """The kernel, renumbered; not yet verified."""
        return renumber(Kernel(self.name, tuple(self.refs.values()), self.grid, tuple(self._blocks[0])))

    def const(self, value: bool | int | float, dtype: DType) -> Value:
        return self._emit(Const(self._fresh(dtype), constant(value, dtype), loc=_here()))

    def full(self, shape: Shape, value: bool | int | float, dtype: DType) -> Value:
        return self._emit(Full(self._fresh(dtype, shape), constant(value, dtype), loc=_here()))

    def pid(self, axis: int) -> Value:
        return self._emit(Pid(self._fresh("i32"), axis, loc=_here()))

    def iota(self, start: Value, size: int, axis: int) -> Value:
        shape = (size, 1) if axis == 0 else (1, size)
        return self._emit(Iota(self._fresh("i32", shape), start, axis, loc=_here()))

    def unary(self, kind: UnaryKind, operand: Value) -> Value:
        result = self._typed(lambda: infer.unary(kind, operand))
        return self._emit(Unary(result, kind, operand, loc=_here()))

    def binary(self, kind: BinaryKind, left: Value, right: Value) -> Value:
        result = self._typed(lambda: infer.binary(kind, left, right))
        return self._emit(Binary(result, kind, left, right, loc=_here()))

    def where(self, condition: Value, left: Value, right: Value) -> Value:
        result = self._typed(lambda: infer.where(condition, left, right))
        return self._emit(Where(result, condition, left, right, loc=_here()))

    def cast(self, operand: Value, dtype: DType) -> Value:
        if operand.dtype == dtype:
            return operand
        return self._emit(Cast(self._fresh(dtype, operand.shape), operand, loc=_here()))

    def reduce(self, kind: ReduceKind, operand: Value, axis: int) -> Value:
        result = self._typed(lambda: infer.reduce(operand, axis))
        return self._emit(Reduce(result, kind, operand, axis, loc=_here()))

    def dot(self, left: Value, right: Value, transpose_b: bool) -> Value:
        result = self._typed(lambda: infer.dot(left, right, transpose_b))
        return self._emit(Dot(result, left, right, transpose_b, loc=_here()))

    def load(self, ref: str, index: Index, other: int | float) -> Value:
        result = self._typed(lambda: infer.loaded(self.refs[ref], index))
        filler = constant(other, "i32" if result.dtype == "i32" else "f32")
        return self._emit(Load(result, ref, index, filler, loc=_here()))

    def store(self, ref: str, index: Index, value: Value) -> None:
        with _Placed():
            infer.stored(self.refs[ref], index, value, atomic=False)
        self._blocks[-1].append(Store(ref, index, value, loc=_here()))

    def atomic_add(self, ref: str, index: Index, value: Value) -> None:
        with _Placed():
            infer.stored(self.refs[ref], index, value, atomic=True)
        self._blocks[-1].append(AtomicAdd(ref, index, value, loc=_here()))

    def loop(
        self, lo: Value, hi: Value, init: tuple[Value, ...], body: LoopBody, max_trip: int | None = None
    ) -> tuple[Value, ...]:
        loc = _here()
        induction = self._fresh("i32")
        carries = tuple(self._fresh(value.dtype, value.shape) for value in init)
        self._blocks.append([])
        try:
            yields = tuple(body(induction, carries))
        finally:
            block = tuple(self._blocks.pop())
        finals = tuple(self._fresh(value.dtype, value.shape) for value in init)
        op = Loop(finals, induction, lo, hi, carries, init, block, yields, max_trip, loc=loc)
        with _Placed(loc):
            infer.loop(op)
        self._blocks[-1].append(op)
        return finals

    def _fresh(self, dtype: DType, shape: Shape = ()) -> Value:
        self._next += 1
        return Value(self._next - 1, dtype, shape)

    def _typed(self, rule: Callable[[], infer.Type]) -> Value:
        with _Placed():
            dtype, shape = rule()
        return self._fresh(dtype, shape)

    def _emit(self, op: Op) -> Value:
        with _Placed():
            infer.check(op, self.refs, self.grid)
        self._blocks[-1].append(op)
        return op.results[0]


def _here() -> Loc | None:
    return user_location()


class _Placed:
    """Turns a broken rule into a KernelError at the user's line."""

    def __init__(self, loc: Loc | None = None) -> None:
        self.loc = loc

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, TypeProblem):
            raise KernelError(str(error), self.loc or user_location()) from None

"""Folding: arithmetic of constants, neutral operands, axes of one program, loops of no or one pass.

Floats are folded only when the result is exact in f32, so nothing is rounded that would not be.
x + 0 becomes x, which loses the sign of a zero sum and nothing else.
"""

import dataclasses
import operator
from collections.abc import Callable

import numpy as np

from dsl.ir.ops import Binary, Cast, Const, Full, Kernel, Loop, Op, Pid, Where, renumber
from dsl.ir.types import FLOATS, Value

Number = bool | int | float
_EXACT: dict[str, Callable[[Number, Number], Number]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "max": max,
    "min": min,
    "ge": operator.ge,
    "lt": operator.lt,
    "eq": operator.eq,
}
_INTEGER: dict[str, Callable[[int, int], int]] = {
    "idiv": operator.floordiv,
    "mod": operator.mod,
    "shr": operator.rshift,
    "and": operator.and_,
    "or": operator.or_,
    "xor": operator.xor,
}
_NEUTRAL_RIGHT = {"add": 0, "sub": 0, "mul": 1, "div": 1, "idiv": 1, "shr": 0, "or": 0, "xor": 0}
_NEUTRAL_LEFT = {"add": 0, "mul": 1, "or": 0, "xor": 0}


def fold(kernel: Kernel) -> Kernel:
    """Evaluates what is constant and unfolds loops of at most one pass."""
    folder = _Folder(kernel)
    return renumber(dataclasses.replace(kernel, body=tuple(folder.block(kernel.body))))


class _Folder:
    def __init__(self, kernel: Kernel) -> None:
        self.grid = kernel.grid
        self.known: dict[int, Number] = {}
        self.renamed: dict[int, Value] = {}

    def current(self, value: Value) -> Value:
        return self.renamed.get(value.id, value)

    def block(self, body: tuple[Op, ...]) -> list[Op]:
        kept: list[Op] = []
        for original in body:
            if isinstance(original, Loop):
                kept += self.loop(original)
                continue
            found = self.simplified(original.map_values(self.current))
            if isinstance(found, Value):
                self.renamed[original.results[0].id] = found
                continue
            if isinstance(found, Const | Full):
                self.known[found.result.id] = found.value
            kept.append(found)
        return kept

    def loop(self, op: Loop) -> list[Op]:
        lo, hi = self.current(op.lo), self.current(op.hi)
        init = tuple(self.current(value) for value in op.init)
        trip = self.trip(lo, hi, op.max_trip)
        if trip is not None and trip <= 1:
            begin = dict(zip((c.id for c in op.carries), init, strict=True)) | {op.induction.id: lo}
            self.renamed |= begin
            inlined = self.block(op.body) if trip == 1 else []
            last = [self.current(v) for v in op.yields] if trip == 1 else list(init)
            self.renamed |= dict(zip((f.id for f in op.finals), last, strict=True))
            return inlined
        body = tuple(self.block(op.body))
        yields = tuple(self.current(value) for value in op.yields)
        return [dataclasses.replace(op, lo=lo, hi=hi, init=init, body=body, yields=yields)]

    def trip(self, lo: Value, hi: Value, most: int | None) -> int | None:
        if lo.id not in self.known or hi.id not in self.known:
            return None
        trip = max(0, int(self.known[hi.id]) - int(self.known[lo.id]))
        return trip if most is None else min(trip, most)

    def simplified(self, op: Op) -> Op | Value:
        """The op, a constant in its place, or the value that it equals."""
        match op:
            case Pid(result=result, axis=axis) if self.grid[axis] == 1:
                return Const(result, 0, loc=op.loc)
            case Cast(operand=operand):
                return self.cast(op, operand)
            case Where(condition=condition):
                return self.where(op, condition)
            case Binary():
                return self.binary(op)
        return op

    def cast(self, op: Cast, operand: Value) -> Op | Value:
        if operand.dtype == op.result.dtype:
            return operand
        value = self.known.get(operand.id)
        if value is None or op.result.dtype not in ("f32", "i32", "bool") or not np.isfinite(value):
            return op
        if op.result.dtype == "f32":
            return self.constant(op, float(value)) if float(np.float32(value)) == value else op
        return self.constant(op, bool(value) if op.result.dtype == "bool" else int(value))

    def where(self, op: Where, condition: Value) -> Op | Value:
        value = self.known.get(condition.id)
        if value is None:
            return op
        chosen = op.left if value else op.right
        return chosen if chosen.shape == op.result.shape else op

    def binary(self, op: Binary) -> Op | Value:
        left, right = self.known.get(op.left.id), self.known.get(op.right.id)
        if left is not None and right is not None:
            value = _evaluate(op, left, right)
            if value is not None:
                return self.constant(op, value)
        kind, shape = op.kind, op.result.shape
        if right is not None and right == _NEUTRAL_RIGHT.get(kind) and op.left.shape == shape:
            return op.left
        if left is not None and left == _NEUTRAL_LEFT.get(kind) and op.right.shape == shape:
            return op.right
        return op

    def constant(self, op: Op, value: Number) -> Op:
        result = op.results[0]
        return (Full if result.shape else Const)(result, value, loc=op.loc)


def _evaluate(op: Binary, left: Number, right: Number) -> Number | None:
    """The exact result, or None when it would be rounded, overflow or be undefined."""
    if op.kind in _EXACT:
        value = _EXACT[op.kind](left, right)
        if op.left.dtype in FLOATS:
            with np.errstate(over="ignore"):
                return value if float(np.float32(value)) == value else None
        return value if -(2**31) <= value < 2**31 else None
    if op.kind not in _INTEGER or (op.kind in ("idiv", "mod") and right == 0):
        return None
    if op.kind == "shr" and not 0 <= right < 32:
        return None
    value = _INTEGER[op.kind](int(left), int(right))
    return bool(value) if op.result.dtype == "bool" else value

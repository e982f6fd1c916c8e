"""Mask removal: what the ranges of integers decide already is decided here.

A comparison that holds (or fails) for every program, pass and element becomes a constant, as does an
integer of one possible value; `and`, `or` and `where` of such a condition, and `max` and `min` of ranges
that do not meet, become their operand. So a guard for a ragged end costs nothing where sizes divide.
"""

import dataclasses

from dsl.ir.affine import Interval, Ranges
from dsl.ir.ops import Binary, Const, Full, Iota, Kernel, Loop, Op, Unary, Where, renumber
from dsl.ir.types import Value

UNKNOWN: Interval = (None, None)


def decide_known(kernel: Kernel) -> Kernel:
    """Replaces decided comparisons, integers and choices; guards of windows are implied by the Refs."""
    decider = _Decider(kernel)
    return renumber(dataclasses.replace(kernel, body=decider.block(kernel.body)))


class _Decider:
    def __init__(self, kernel: Kernel) -> None:
        self.facts = Ranges(kernel)
        self.renamed: dict[int, Value] = {}
        self.truth: dict[int, bool] = {}
        self.tiles: dict[int, Interval] = {}

    def current(self, value: Value) -> Value:
        return self.renamed.get(value.id, value)

    def block(self, body: tuple[Op, ...]) -> tuple[Op, ...]:
        kept: list[Op] = []
        for original in body:
            if isinstance(original, Loop):
                inner = self.block(original.body)
                kept.append(dataclasses.replace(original, body=inner).map_values(self.current))
                continue
            op = original.map_values(self.current)
            found = self.decided(op)
            if isinstance(found, Value):
                self.renamed[op.results[0].id] = found
                continue
            if isinstance(found, Const | Full) and found.result.dtype == "bool":
                self.truth[found.result.id] = bool(found.value)
            kept.append(found)
        return tuple(kept)

    def decided(self, op: Op) -> Op | Value:
        """The op, a constant in its place, or the operand that it equals."""
        self.note(op)
        found: Op | Value = op
        match op:
            case Binary(kind="and" | "or", left=left, right=right):
                found = self.logic(op, left, right)
            case Unary(kind="not", operand=operand) if operand.id in self.truth:
                found = _constant(op, not self.truth[operand.id])
            case Where(condition=condition, left=left, right=right) if condition.id in self.truth:
                chosen = left if self.truth[condition.id] else right
                found = chosen if chosen.shape == op.result.shape else op
            case Binary(kind="ge" | "lt" | "eq", left=left, right=right):
                truth = _compared(op.kind, self.range(left), self.range(right))
                found = op if truth is None else _constant(op, truth)
            case Binary(kind="max" | "min", left=left, right=right):
                found = self.extreme(op, left, right)
        return self.single(op) if found is op else found

    def single(self, op: Op) -> Op:
        """A constant in place of an integer that has one value."""
        if not op.results or op.results[0].dtype != "i32":
            return op
        number = _only(self.range(op.results[0]))
        return op if number is None else _constant(op, number)

    def logic(self, op: Binary, left: Value, right: Value) -> Op | Value:
        neutral = op.kind == "and"
        for one, other in ((left, right), (right, left)):
            truth = self.truth.get(one.id)
            if truth is not None and truth != neutral:
                return _constant(op, truth)
            if truth is not None and other.shape == op.result.shape:
                return other
        return op

    def extreme(self, op: Binary, left: Value, right: Value) -> Op | Value:
        above = _compared("ge", self.range(left), self.range(right))
        below = _compared("ge", self.range(right), self.range(left))
        larger = left if above else right if below else None
        smaller = right if above else left if below else None
        chosen = larger if op.kind == "max" else smaller
        if chosen is not None and chosen.shape == op.result.shape:
            return chosen
        return op

    def range(self, value: Value) -> Interval:
        found = self.facts.interval(value) if value.is_scalar else self.tiles.get(value.id, UNKNOWN)
        return found if _fits(found) else UNKNOWN

    def note(self, op: Op) -> None:
        """Remembers the range of an i32 tile: of a window's positions, and of sums and extremes of them."""
        match op:
            case Iota(result=result, start=start):
                low, high = self.facts.interval(start)
                self.tiles[result.id] = low, None if high is None else high + max(result.shape) - 1
            case Full(result=result, value=int(value)):
                self.tiles[result.id] = value, value
            case Binary(result=result, left=left, right=right):
                self.tiles[result.id] = _combined(op.kind, self.range(left), self.range(right))


def _constant(op: Op, value: bool | int) -> Op:
    result = op.results[0]
    return (Full if result.shape else Const)(result, value, loc=op.loc)


def _compared(kind: str, a: Interval, b: Interval) -> bool | None:
    """The truth of `a kind b` for all values in the ranges, or None."""
    always_ge = a[0] is not None and b[1] is not None and a[0] >= b[1]
    always_lt = a[1] is not None and b[0] is not None and a[1] < b[0]
    if kind == "eq":
        above = a[0] is not None and b[1] is not None and a[0] > b[1]
        same = a == b and _only(a) is not None
        return False if above or always_lt else True if same else None
    if always_ge or always_lt:
        return always_ge if kind == "ge" else always_lt
    return None


def _combined(kind: str, a: Interval, b: Interval) -> Interval:
    """The range of a sum, difference, extreme or remainder, of integers that never wrap."""
    divisor = _only(b)
    if kind == "mod" and divisor is not None and divisor > 0:
        return 0, divisor - 1
    if None in a or None in b or kind not in ("add", "sub", "max", "min"):
        return UNKNOWN
    (low, high), (least, most) = a, b
    assert low is not None and high is not None and least is not None and most is not None
    match kind:
        case "add":
            return low + least, high + most
        case "sub":
            return low - most, high - least
        case "max":
            return max(low, least), max(high, most)
    return min(low, least), min(high, most)


def _only(found: Interval) -> int | None:
    """The one value of a range that has no other."""
    low, high = found
    return low if low == high else None


def _fits(found: Interval) -> bool:
    """False for a range that i32 wraps, of which nothing is known then."""
    low, high = found
    return (low is None or low >= -(2**31)) and (high is None or high < 2**31)

"""What is known of i32 scalars without running: affine forms, ranges, and which coordinates they need.

A symbol is the id of a value that is not a sum of others: a `pid`, a loop's induction, or anything
else (a loaded scalar, a quotient). `Ranges` answers for one kernel; it is cheap to build.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dsl.ir.ops import At, Binary, Cast, Const, Index, Kernel, Loop, Op, Pid, Span, Where, walk
from dsl.ir.types import RefType, Value

Interval = tuple[int | None, int | None]
"""Least and greatest value, both included; None where it is not known."""


@dataclass(frozen=True)
class Affine:
    """constant + sum of coefficient * symbol; `terms` maps a symbol's value id to its coefficient."""

    constant: int
    terms: Mapping[int, int]

    def plus(self, other: "Affine", sign: int = 1) -> "Affine":
        terms = dict(self.terms)
        for symbol, factor in other.terms.items():
            terms[symbol] = terms.get(symbol, 0) + sign * factor
        kept = {symbol: factor for symbol, factor in terms.items() if factor}
        return Affine(self.constant + sign * other.constant, kept)

    def times(self, factor: int) -> "Affine":
        if factor == 0:
            return Affine(0, {})
        return Affine(self.constant * factor, {s: c * factor for s, c in self.terms.items()})


class Ranges:
    """Facts about the i32 scalars of one kernel.

    Example:
        >>> facts = Ranges(kernel)
        >>> facts.affine(load.index[0].start)      # 8 * pid
        Affine(constant=0, terms={0: 8})
    """

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self._ops: dict[int, Op] = {}
        self._inductions: dict[int, Loop] = {}
        for op in walk(kernel.body):
            for value in op.results:
                self._ops[value.id] = op
            if isinstance(op, Loop):
                self._inductions[op.induction.id] = op
        self._affine: dict[int, Affine] = {}
        self._interval: dict[int, Interval] = {}

    def op(self, value: Value) -> Op | None:
        """The op that defines `value`; None for inductions and carries."""
        return self._ops.get(value.id)

    def affine(self, value: Value) -> Affine:
        """The affine form of an i32 scalar; a lone symbol when nothing better is known."""
        if value.id not in self._affine:
            self._affine[value.id] = self._find_affine(value)
        return self._affine[value.id]

    def _find_affine(self, value: Value) -> Affine:
        match self.op(value):
            case Const(value=int(number)):
                return Affine(int(number), {})
            case Pid(axis=axis) if self.kernel.grid[axis] == 1:
                return Affine(0, {})
            case Pid(axis=axis):
                return Affine(0, {self._pid_symbol(axis): 1})
            case Binary(kind="add" | "sub" as kind, left=left, right=right):
                return self.affine(left).plus(self.affine(right), 1 if kind == "add" else -1)
            case Binary(kind="mul", left=left, right=right):
                a, b = self.affine(left), self.affine(right)
                if not a.terms:
                    return b.times(a.constant)
                if not b.terms:
                    return a.times(b.constant)
        return Affine(0, {value.id: 1})

    def _pid_symbol(self, axis: int) -> int:
        """All `pid` ops of one axis are one symbol: the id of the first."""
        return next(i for i, op in self._ops.items() if isinstance(op, Pid) and op.axis == axis)

    def pid_symbols(self) -> list[int]:
        """The symbols of the grid axes that the kernel reads."""
        axes = {op.axis for op in self._ops.values() if isinstance(op, Pid)}
        return [self._pid_symbol(axis) for axis in sorted(axes)]

    def grid_axis(self, symbol: int) -> int | None:
        """The grid axis that a symbol is the coordinate of, or None."""
        op = self._ops.get(symbol)
        return op.axis if isinstance(op, Pid) else None

    def loop_of(self, symbol: int) -> Loop | None:
        """The loop whose induction a symbol is, or None."""
        return self._inductions.get(symbol)

    def interval(self, value: Value) -> Interval:
        """Least and greatest value an i32 scalar takes over the grid and the loops."""
        if value.id not in self._interval:
            self._interval[value.id] = (None, None)
            self._interval[value.id] = self._find_interval(value)
        return self._interval[value.id]

    def _find_interval(self, value: Value) -> Interval:
        loop = self._inductions.get(value.id)
        if loop is not None:
            top = self.interval(loop.hi)[1]
            return self.interval(loop.lo)[0], None if top is None else top - 1
        match self.op(value):
            case Const(value=int(number)):
                return int(number), int(number)
            case Pid(axis=axis):
                return 0, self.kernel.grid[axis] - 1
            case Binary(kind=kind, left=left, right=right) if value.dtype == "i32":
                return self._combine(kind, value, left, right)
            case Where(left=left, right=right):
                a, b = self.interval(left), self.interval(right)
                return _least(a[0], b[0]), _greatest(a[1], b[1])
            case Cast(operand=operand) if operand.dtype == "bool":
                return 0, 1
        return None, None

    def _combine(self, kind: str, value: Value, left: Value, right: Value) -> Interval:
        a, b = self.interval(left), self.interval(right)
        if kind in ("add", "sub", "mul"):
            return self._of_affine(self.affine(value), value)
        if kind == "min":
            return _least(a[0], b[0]), _known_min(a[1], b[1])
        if kind == "max":
            return _known_max(a[0], b[0]), _greatest(a[1], b[1])
        return _quotient(kind, a, b)

    def _of_affine(self, form: Affine, value: Value) -> Interval:
        low: int | None = form.constant
        high: int | None = form.constant
        for symbol, factor in form.terms.items():
            if symbol == value.id:
                return None, None
            least, most = self._symbol_interval(symbol)
            if factor < 0:
                least, most = most, least
            low = None if low is None or least is None else low + factor * least
            high = None if high is None or most is None else high + factor * most
        return low, high

    def _symbol_interval(self, symbol: int) -> Interval:
        return self.interval(Value(symbol, "i32"))

    def trip(self, loop: Loop) -> int | None:
        """The most passes a loop makes, or None when its bounds are data and max_trip was not given."""
        difference = self.affine(loop.hi).plus(self.affine(loop.lo), -1)
        high = self._of_affine(difference, Value(-1, "i32"))[1]
        if high is None:
            top, bottom = self.interval(loop.hi)[1], self.interval(loop.lo)[0]
            high = None if top is None or bottom is None else top - bottom
        bounds = [bound for bound in (high, loop.max_trip) if bound is not None]
        return max(0, min(bounds)) if bounds else None

    def exact_trip(self, loop: Loop) -> int | None:
        """The number of passes when it is the same for every program, else None."""
        difference = self.affine(loop.hi).plus(self.affine(loop.lo), -1)
        if difference.terms:
            return None
        trip = max(0, difference.constant)
        return trip if loop.max_trip is None else min(trip, loop.max_trip)

    def coordinates(self, value: Value) -> frozenset[int]:
        """Symbols of grid axes and inductions that a scalar may change with."""
        form = self.affine(value)
        return frozenset(found for symbol in form.terms for found in self._coordinates(symbol))

    def symbol_coordinates(self, symbol: int) -> frozenset[int]:
        """As `coordinates`, of one symbol; -1 stands for "anything"."""
        return frozenset(self._coordinates(symbol))

    def _coordinates(self, symbol: int) -> Iterator[int]:
        op = self._ops.get(symbol)
        if symbol in self._inductions:
            yield symbol
        elif isinstance(op, Pid):
            yield self._pid_symbol(op.axis)
        elif op is None or isinstance(op, Loop):
            yield -1  # a carry: it may change with anything
        else:
            for operand in op.operands:
                yield from self.coordinates(operand) if operand.is_scalar else (-1,)

    def window_inside(self, ref: RefType, entry: At | Span, axis: int) -> bool:
        """True when no element of this window can be out of range on the Ref's axis: no guard needed."""
        low, high = self.interval(entry.start)
        size = entry.size if isinstance(entry, Span) else 1
        if low is None or low < 0:
            return False
        return high is not None and high + size <= ref.shape[axis]

    def inside(self, ref: RefType, index: Index) -> bool:
        """`window_inside` on every axis."""
        return all(self.window_inside(ref, entry, axis) for axis, entry in enumerate(index))


def _least(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else min(a, b)


def _greatest(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else max(a, b)


def _known_min(a: int | None, b: int | None) -> int | None:
    return b if a is None else a if b is None else min(a, b)


def _known_max(a: int | None, b: int | None) -> int | None:
    return b if a is None else a if b is None else max(a, b)


def _quotient(kind: str, a: Interval, b: Interval) -> Interval:
    """idiv, mod, shr and `and` by a constant."""
    if b[0] is None or b[0] != b[1] or b[0] < 0:
        return None, None
    number = b[0]
    if kind == "mod" and number:
        return 0, number - 1
    if kind == "and":
        return 0, number
    if kind in ("idiv", "shr") and (number or kind == "shr"):
        by = number if kind == "idiv" else 1 << number
        return (None if a[0] is None else a[0] // by), (None if a[1] is None else a[1] // by)
    return None, None

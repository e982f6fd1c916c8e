"""Which elements of its outputs a kernel writes: proofs that programs do not collide, and coverage.

The proof works on coordinates: grid axes and inductions with more than one value. An axis of the
Ref *separates* coordinates when different values of them give windows that do not touch there; a
mixed-radix argument on the affine form of the window's start, axis by axis.
"""

from dsl.ir.affine import Affine, Ranges
from dsl.ir.ops import At, AtomicAdd, Index, Kernel, Loop, Op, Span, Store, Write
from dsl.ir.types import RefType


def writes(kernel: Kernel) -> list[tuple[Write, tuple[Loop, ...]]]:
    """Every store and atomic add with the loops around it, outermost first."""
    found: list[tuple[Write, tuple[Loop, ...]]] = []

    def visit(body: tuple[Op, ...], around: tuple[Loop, ...]) -> None:
        for op in body:
            if isinstance(op, Loop):
                visit(op.body, (*around, op))
            elif isinstance(op, Store | AtomicAdd):
                found.append((op, around))

    visit(kernel.body, ())
    return found


def size_of(entry: At | Span) -> int:
    return entry.size if isinstance(entry, Span) else 1


class Coordinates:
    """The grid axes and inductions in whose values a write is repeated, with their extents."""

    def __init__(self, facts: Ranges, around: tuple[Loop, ...]) -> None:
        self.facts = facts
        self.extents: dict[int, int | None] = {}
        for axis, extent in enumerate(facts.kernel.grid):
            if extent > 1:
                self.extents[self._axis_key(axis)] = extent
        for loop in around:
            trip = facts.trip(loop)
            if trip is None or trip > 1:
                self.extents[loop.induction.id] = trip

    def _axis_key(self, axis: int) -> int:
        """Coordinates that no `pid` op reads get a negative id of their own."""
        for symbol in self.facts.pid_symbols():
            if self.facts.grid_axis(symbol) == axis:
                return symbol
        return -2 - axis

    def separated_by(self, entry: At | Span, known: set[int]) -> set[int]:
        """Coordinates that this axis separates, given that those in `known` are equal."""
        form = self.facts.affine(entry.start)
        own = {s: c for s, c in form.terms.items() if s in self.extents and s not in known}
        for symbol in form.terms:
            if symbol not in own and not self._fixed_by(symbol, known):
                return set()
        reach = size_of(entry)
        for symbol, factor in sorted(own.items(), key=lambda item: abs(item[1])):
            extent = self.extents[symbol]
            if abs(factor) < reach:
                return set()
            if extent is None:
                return set(own) if len(own) == 1 else set()
            reach += abs(factor) * (extent - 1)
        return set(own)

    def _fixed_by(self, symbol: int, known: set[int]) -> bool:
        """True when the symbol has one value once the coordinates in `known` do."""
        varying = self.facts.symbol_coordinates(symbol)
        return all(s in known or (s != -1 and s not in self.extents) for s in varying)

    def unseparated(self, index: Index) -> set[int]:
        """Coordinates that no axis of the window separates; empty when the windows never collide."""
        known: set[int] = set()
        while True:
            gained = {s for entry in index for s in self.separated_by(entry, known)} - known
            if not gained:
                return set(self.extents) - known
            known |= gained


def apart(facts: Ranges, first: Index, second: Index) -> bool:
    """True when two windows of one Ref never touch, in whichever programs they are written."""
    return any(_apart_on(facts, a, b) for a, b in zip(first, second, strict=True))


def _apart_on(facts: Ranges, a: At | Span, b: At | Span) -> bool:
    low_a, high_a = facts.interval(a.start)
    low_b, high_b = facts.interval(b.start)
    if high_a is not None and low_b is not None and high_a + size_of(a) <= low_b:
        return True
    if high_b is not None and low_a is not None and high_b + size_of(b) <= low_a:
        return True
    return _apart_in_stride(facts.affine(a.start), facts.affine(b.start), size_of(a), size_of(b), facts)


def _apart_in_stride(a: Affine, b: Affine, size_a: int, size_b: int, facts: Ranges) -> bool:
    """Same terms, and both windows side by side within the smallest stride."""
    if dict(a.terms) != dict(b.terms) or not a.terms:
        return False
    if any(facts.grid_axis(s) is None and facts.loop_of(s) is None for s in a.terms):
        return False
    if a.constant > b.constant:
        a, b, size_a, size_b = b, a, size_b, size_a
    gap = b.constant - a.constant
    factors = sorted(abs(factor) for factor in a.terms.values())
    multiples = all(factor % factors[0] == 0 for factor in factors)
    return multiples and gap >= size_a and gap + size_b <= factors[0]


def covers(kernel: Kernel, ref: RefType) -> bool:
    """True when every element of an output is surely stored, so that it needs no zero fill first."""
    facts = Ranges(kernel)
    return any(
        isinstance(op, Store) and op.ref == ref.name and not around and _whole(facts, ref, op.index)
        for op, around in writes(kernel)
    )


def _whole(facts: Ranges, ref: RefType, index: Index) -> bool:
    """Each Ref axis is either one full window or tiled by a grid axis of its own."""
    used: set[int] = set()
    for axis, entry in enumerate(index):
        form, extent, size = facts.affine(entry.start), ref.shape[axis], size_of(entry)
        if form.constant:
            return False
        if not form.terms:
            if size < extent:
                return False
            continue
        (symbol, factor), *more = form.terms.items()
        grid_axis = facts.grid_axis(symbol)
        if more or grid_axis is None or symbol in used or not 1 <= factor <= size:
            return False
        used.add(symbol)
        if factor * (facts.kernel.grid[grid_axis] - 1) + size < extent:
            return False
    return True

"""Windows of Refs as addresses and bounds, and which of them need no guard."""

import math
from dataclasses import dataclass

from dsl.ir.affine import Ranges
from dsl.ir.ops import AtomicAdd, Index, Kernel, Load, Span, Store, walk
from dsl.ir.types import NIBBLE_GROUP, NIBBLES, RefType, Value


@dataclass(frozen=True)
class Window:
    """A window: its tile shape, the stride of each tile axis in elements, and the guarded Ref axes."""

    ref: RefType
    index: Index
    sizes: tuple[int, int]
    strides: tuple[int, int]
    guarded: tuple[int, ...]


def ref_strides(ref: RefType) -> list[int]:
    return [math.prod(ref.shape[axis + 1 :]) for axis in range(len(ref.shape))]


def window(facts: Ranges, ref: RefType, index: Index, trusted: frozenset[tuple[str, Index, int]]) -> Window:
    """Axes in `trusted` are known to be inside in the version of the code that is being written."""
    sizes, strides = [1, 1], [0, 0]
    for stride, entry in zip(ref_strides(ref), index, strict=True):
        if isinstance(entry, Span):
            sizes[entry.tile_axis], strides[entry.tile_axis] = entry.size, stride
    guarded = tuple(
        axis
        for axis, entry in enumerate(index)
        if not facts.window_inside(ref, entry, axis) and (ref.name, index, axis) not in trusted
    )
    return Window(ref, index, (sizes[0], sizes[1]), (strides[0], strides[1]), guarded)


def whole_groups(facts: Ranges, ref: RefType, index: Index) -> bool:
    """True for a window of nibbles that is made of whole groups along the tile's columns."""
    last = index[-1]
    if ref.dtype not in NIBBLES or not isinstance(last, Span) or last.tile_axis != 1:
        return False
    form = facts.affine(last.start)
    multiples = all(n % NIBBLE_GROUP == 0 for n in (form.constant, last.size, *form.terms.values()))
    return multiples


def inner_conditions(kernel: Kernel, facts: Ranges) -> dict[tuple[str, Index, int], str]:
    """For guarded axes whose window depends on the program alone: when it is inside, as C.

    Where all hold the program runs in a version without these guards. Loops that overshoot in every
    program are not listed: their guards stay.
    """
    found: dict[tuple[str, Index, int], str] = {}
    for op in walk(kernel.body):
        if not isinstance(op, Load | Store | AtomicAdd):
            continue
        ref = kernel.ref(op.ref)
        for axis, entry in enumerate(op.index):
            if facts.window_inside(ref, entry, axis):
                continue
            size = entry.size if isinstance(entry, Span) else 1
            condition = _condition(kernel, facts, entry.start, size, ref.shape[axis])
            if condition is not None:
                found[ref.name, op.index, axis] = condition
    return found


def _condition(kernel: Kernel, facts: Ranges, start: Value, size: int, extent: int) -> str | None:
    form = facts.affine(start)
    low = high = form.constant
    parts = []
    best = form.constant
    for symbol, factor in form.terms.items():
        axis = facts.grid_axis(symbol)
        loop = facts.loop_of(symbol)
        if axis is not None:
            parts.append(f"{factor}L * pid{axis}")
            best += min(0, factor * (kernel.grid[axis] - 1))
            continue
        if loop is None:
            return None
        least, most = facts.interval(loop.induction)
        if least is None or most is None:
            return None
        ends = (factor * least, factor * max(least, most))
        low, high, best = low + min(ends), high + max(ends), best + max(ends)
    if not parts or best + size > extent:
        return None
    total = " + ".join(parts)
    return f"{total} >= {-low} && {total} <= {extent - high - size}"

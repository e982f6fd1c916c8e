"""How far windows reach beyond their Refs, so that arrays can be padded and no access needs a guard.

Pallas clamps a window that leaves its array, where the IR reads `other` and does not store. So each
array gets a margin wide enough for every window, and a start that is data is first brought into reach.
"""

from dataclasses import dataclass

from dsl.ir.access import size_of
from dsl.ir.affine import Ranges
from dsl.ir.ops import Access, AtomicAdd, Kernel, Load, Store, walk
from dsl.ir.types import RefType


@dataclass(frozen=True)
class Reach:
    """Of one window on one axis: the starts it may have, and whether they must be clamped to these."""

    low: int
    high: int
    clamped: bool


Margins = tuple[tuple[int, int], ...]
"""Elements before and after the array, by axis."""


def reach(kernel: Kernel, facts: Ranges, op: Access, axis: int) -> Reach:
    """From a window that ends just before the array to one that begins just after it, at the most."""
    size, extent = size_of(op.index[axis]), kernel.ref(op.ref).shape[axis]
    low, high = facts.interval(op.index[axis].start)
    if low is None or high is None or low < -size or high > extent:
        return Reach(-size, extent, True)
    return Reach(low, high, False)


def margins(kernel: Kernel, facts: Ranges, ref: RefType) -> Margins:
    """What the accesses of a Ref need around it."""
    found = [[0, 0] for _ in ref.shape]
    for op in walk(kernel.body):
        if isinstance(op, Load | Store | AtomicAdd) and op.ref == ref.name:
            for axis, entry in enumerate(op.index):
                window = reach(kernel, facts, op, axis)
                beyond = window.high + size_of(entry) - ref.shape[axis]
                found[axis] = [max(found[axis][0], -window.low), max(found[axis][1], beyond)]
    return tuple((before, after) for before, after in found)

"""How many registers a thread needs for the tiles of a kernel: an estimate from what is alive at once."""

from collections.abc import Sequence

from dsl.ir.ops import Dot, Full, Iota, Kernel, Loop, Op, walk
from dsl.ir.types import Value
from dsl.lower.c.placement import Placement

SCRATCH = 40
"""Registers for addresses, counters and fragments."""
Alive = frozenset[Value]


def pressure(kernel: Kernel, placement: Placement) -> int:
    """Registers of 32 bits at the fullest place, and `SCRATCH`.

    Tiles of 16-bit elements take half a register an element, bools none. An element of a result may take
    the place of one of an operand, except in a dot. Constants and counts are made where they are used.
    """
    cheap = {op.results[0] for op in walk(kernel.body) if isinstance(op, Iota | Full)}
    return SCRATCH + _Pressure(placement, frozenset(cheap)).block(kernel.body, frozenset())[1]


class _Pressure:
    """A walk from the last op to the first."""

    def __init__(self, placement: Placement, cheap: Alive) -> None:
        self.placement = placement
        self.cheap = cheap

    def block(self, body: Sequence[Op], after: Alive) -> tuple[Alive, int]:
        """(alive before, most registers within) of a block behind which `after` are alive."""
        alive, most = after, self.total(after)
        for op in reversed(body):
            behind = alive
            alive = behind - frozenset(op.results) | frozenset(op.operands)
            if isinstance(op, Loop):
                again = self.block(op.body, frozenset(op.yields))[0] - frozenset(op.carries)
                around = behind - frozenset(op.finals) | again
                most = max(most, self.block(op.body, around | frozenset(op.yields))[1])
                alive = alive | again
            most = max(most, self.total(alive | behind if isinstance(op, Dot) else alive))
        return alive, most

    def total(self, values: Alive) -> int:
        return sum(self.registers(value) for value in values - self.cheap)

    def registers(self, value: Value) -> int:
        if not value.shape or value.dtype == "bool":
            return 0 if value.shape else 1
        rows, columns = self.placement.of(value).slots(value.shape)
        return -(-rows * columns // 2) if value.dtype in ("f16", "bf16") else rows * columns

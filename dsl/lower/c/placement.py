"""Which layout each tile is held in: one for the kernel, another for what only staged operands are made of.

The right operand of a matrix dot goes through shared memory whatever its layout, and the left one too when
a loop loads it anew for each dot: as fragments lie, a warp would read 8 rows at once, 16 bytes of each. So
tiles that lead to nothing else (a load, or its conversion from 8 bits) are spread over the threads as
memory likes it: neighbouring columns to a thread, neighbouring threads along a row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dsl.ir.ops import Binary, Cast, Dot, Full, Iota, Kernel, Load, Loop, Op, Unary, Where, walk
from dsl.ir.types import Value
from dsl.lower.c.layout import Layout, spread_layout

VECTOR_BYTES = 16
"""What a thread reads or writes at once, at most."""
ACROSS = 8
"""Lanes along a row, at most: together they read a cache line of 128 bytes."""
_LOCAL = (Load, Iota, Full, Unary, Binary, Where, Cast)


@dataclass(frozen=True)
class Placement:
    """`main`, and by value id the layouts of the tiles that only staged operands are made of."""

    main: Layout
    spread: Mapping[int, Layout]

    def of(self, value: Value) -> Layout:
        return self.spread.get(value.id, self.main)


def is_matrix(op: Dot, layout: Layout) -> bool:
    """True when the layout's matrix unit takes this dot; of a vector it would waste all rows but one."""
    unit = layout.unit
    lengths = (*op.result.shape, op.left.shape[1])
    return unit is not None and op.left.dtype in unit.dtypes and min(lengths) > 1


def place(kernel: Kernel, main: Layout) -> Placement:
    """The layout of every tile of a kernel; all in `main` when it has no matrix unit."""
    ops = list(walk(kernel.body))
    dots = [op for op in ops if isinstance(op, Dot) and is_matrix(op, main)]
    lefts = {id for op in ops if isinstance(op, Loop) for id in _made_in(op.body)}
    staged = [*(op.left for op in dots if op.left.id in lefts), *(op.right for op in dots)]
    found = {value.id: _spread(value, main) for value in staged}
    sources = {op.results[0].id: op for op in ops if isinstance(op, _LOCAL) and op.results[0].shape}
    for op in reversed(ops):
        if isinstance(op, _LOCAL) and op.results[0].id in found:
            for value in _tiles(op.operands):
                found.setdefault(value.id, found[op.results[0].id])
    while lost := [each for each in found if not _stays(each, found, sources, ops, main)]:
        for each in lost:
            del found[each]
    return Placement(main, found)


def _made_in(body: Sequence[Op]) -> set[int]:
    """Left operands of dots of a block that the block makes itself."""
    made = {value.id for op in body for value in op.results}
    return {op.left.id for op in body if isinstance(op, Dot)} & made


def _stays(
    value: int, found: Mapping[int, Layout], sources: Mapping[int, Op], ops: Sequence[Op], main: Layout
) -> bool:
    """True when the value is made of, and leads to, only such as are spread in the same way."""
    layout, source = found[value], sources.get(value)
    if source is None or any(found.get(each.id) != layout for each in _tiles(source.operands)):
        return False
    return all(_keeps(op, layout, found, main) for op in ops if value in _used(op))


def _keeps(op: Op, layout: Layout, found: Mapping[int, Layout], main: Layout) -> bool:
    """True when an op may take an operand that is spread as `layout`."""
    if isinstance(op, Dot):
        return is_matrix(op, main)
    return isinstance(op, _LOCAL) and found.get(op.results[0].id) == layout


def _used(op: Op) -> set[int]:
    values = (*op.operands, *op.yields) if isinstance(op, Loop) else op.operands
    return {value.id for value in values}


def _tiles(values: Sequence[Value]) -> list[Value]:
    return [value for value in values if value.shape]


def _spread(operand: Value, main: Layout) -> Layout:
    run = VECTOR_BYTES // (4 if operand.dtype == "f32" else 2)
    across = 2
    while across < ACROSS and run * across < operand.shape[1]:
        across *= 2
    return spread_layout(main.warps, across, run)

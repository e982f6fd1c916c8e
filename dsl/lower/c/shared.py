"""The plan of a block's shared memory, and where barriers go.

A *site* is a place where threads exchange: a reduction over warps, or one chunk of a dot's inner axis.
A site writes a region of the pool, a barrier makes it visible, then it is read. Before a region is
written again a barrier must have passed since it was read; two regions used in turn let the barrier
in between serve for that. Nothing else in emitted code needs a barrier.

The pool is counted in floats. A matrix dot's right operand lies in it in its own dtype, two to a float if
narrow, and before it the left one if it is staged too; else that stays in registers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dsl.ir.ops import Dot, Kernel, Reduce, walk
from dsl.ir.types import Shape, Value
from dsl.lower.c.layout import LANES, Layout
from dsl.lower.c.placement import Placement, is_matrix

ALIGNED = 4
"""Floats that a region is a multiple of, so that 16 bytes at once are aligned."""


class TooMuchShared(Exception):
    """A site needs more shared memory than a block has; the message says which and how much."""


@dataclass(frozen=True)
class Plan:
    """Floats of a region and how many regions there are; `chunks` maps a Dot's result id to its chunk."""

    region: int
    regions: int
    chunks: dict[int, int]

    @property
    def count(self) -> int:
        return self.region * self.regions


def needs_exchange(op: Reduce, layout: Layout) -> bool:
    """True for a reduction over an axis along which more than one warp lies."""
    return op.operand.shape[op.axis] > 1 and layout.warps > 1 and layout.axis(op.axis).warp > 0


def exchange_floats(op: Reduce, layout: Layout) -> int:
    """Floats of a reduction over warps, each with its own results; a multiple of `ALIGNED`."""
    return _aligned(layout.warps * math.prod(layout.padded(op.result.shape)))


def _aligned(floats: int) -> int:
    return -(-floats // ALIGNED) * ALIGNED


def dot_floats(op: Dot, chunk: int, layout: Layout) -> tuple[int, int]:
    """Floats that a chunk of the left and of the right operand takes, where no matrix unit is used."""
    left, right = dot_strides(op, chunk, layout)
    rows, width = layout.padded(op.left.shape)[0], op.result.shape[1]
    if op.transpose_b:
        return rows * left, max(layout.columns.padded(width), layout.rows.padded(width)) * right
    return rows * left, layout.padded((chunk, 1))[0] * right


def dot_strides(op: Dot, chunk: int, layout: Layout) -> tuple[int, int]:
    """Floats from one row to the next of the staged operands; + 1 keeps a transposed read off one bank."""
    left = layout.padded((1, chunk))[1]
    return left, left + (left > 1) if op.transpose_b else layout.padded((1, op.result.shape[1]))[1]


@dataclass(frozen=True)
class Area:
    """Where an operand of a matrix dot is staged: elements before its first row, and from one to the next."""

    base: int
    stride: int
    rows: int

    @property
    def end(self) -> int:
        return self.base + self.rows * self.stride


def matrix_areas(op: Dot, chunk: int, placement: Placement) -> tuple[Area | None, Area]:
    """Areas of the left operand, None if it stays in registers, and of the right one, within a region.

    They cover whole steps of the unit and all that the slots of the tile write; 16 bytes more than their
    columns put the rows of one 8 x 8 matrix on different banks.
    """
    main = placement.main
    assert main.unit is not None
    deep = -(-chunk // main.unit.depth) * main.unit.depth
    high, wide = main.rows.padded(op.result.shape[0]), main.columns.padded(op.result.shape[1])
    left = None
    if op.left.id in placement.spread:
        left = _area(0, (high, deep), (op.left.shape[0], chunk), op.left, placement)
    least, written = ((wide, deep), (op.result.shape[1], chunk))
    if not op.transpose_b:
        least, written = least[::-1], written[::-1]
    return left, _area(left.end if left else 0, least, written, op.right, placement)


def _area(base: int, least: Shape, written: Shape, tile: Value, placement: Placement) -> Area:
    padded = placement.of(tile).padded(written)
    stride = max(least[1], padded[1]) + (4 if tile.dtype == "f32" else 8)
    return Area(base, stride, max(least[0], padded[0]))


def site_floats(op: Dot, chunk: int, placement: Placement) -> int:
    """Floats that a chunk of a dot takes, a multiple of `ALIGNED`."""
    if is_matrix(op, placement.main):
        end = matrix_areas(op, chunk, placement)[1].end
        need = end if op.right.dtype == "f32" else end // 2
    else:
        need = sum(dot_floats(op, chunk, placement.main))
    return _aligned(need)


def plan(kernel: Kernel, placement: Placement, limit: int) -> Plan:
    """Two regions when every site fits in half of `limit` bytes, else one. Raises TooMuchShared."""
    ops = list(walk(kernel.body))
    dots = [op for op in ops if isinstance(op, Dot)]
    reductions = [op for op in ops if isinstance(op, Reduce) and needs_exchange(op, placement.main)]
    floats = limit // 4
    if len(dots) + len(reductions) > 1:
        found = _within(dots, reductions, placement, floats // 2)
        if found is not None:
            return Plan(found[0], 2, found[1])
    found = _within(dots, reductions, placement, floats)
    if found is None:
        raise TooMuchShared(_reason(dots, reductions, placement, limit))
    return Plan(found[0], 1, found[1])


def _within(
    dots: Sequence[Dot], reductions: Sequence[Reduce], placement: Placement, floats: int
) -> tuple[int, dict[int, int]] | None:
    """(floats of the largest site, chunk of each dot) when all sites fit in `floats`."""
    chunks = {op.result.id: _chunk(op, placement, floats) for op in dots}
    needs = [site_floats(op, chunks[op.result.id], placement) for op in dots]
    needs += [exchange_floats(op, placement.main) for op in reductions]
    largest = max(needs, default=0)
    return None if largest > floats else (largest, chunks)


def _chunk(op: Dot, placement: Placement, floats: int) -> int:
    """The whole inner axis if it fits, else the largest multiple of whole slots that does, at least one."""
    grain, chunk = _grain(op, placement), op.left.shape[1]
    while chunk > grain and site_floats(op, chunk, placement) > floats:
        chunk = (chunk - 1) // grain * grain
    return chunk


def _grain(op: Dot, placement: Placement) -> int:
    """What a chunk is a multiple of: then it begins at a slot of both operands. All are powers of two."""
    left, right = placement.of(op.left).columns, placement.of(op.right).axis(1 if op.transpose_b else 0)
    return max(LANES, placement.main.columns.unit, left.unit, right.unit)


def _reason(dots: Sequence[Dot], reductions: Sequence[Reduce], placement: Placement, limit: int) -> str:
    needs: list[tuple[int, str]] = []
    for op in dots:
        (m, k), n = op.left.shape, op.result.shape[1]
        least = site_floats(op, _chunk(op, placement, 0), placement)
        needs.append((4 * least, f"a dot of ({m}, {k}) by ({k}, {n})"))
    for each in reductions:
        what = f"a reduction over the {('rows', 'columns')[each.axis]} of {each.operand.shape}"
        needs.append((4 * exchange_floats(each, placement.main), what))
    need, what = next(found for found in needs if found[0] > limit)
    return f"{what} needs {need} B of shared memory and a block has {limit}; make its tile smaller"


class Pool:
    """Which region comes next and whether a barrier is due, while code is emitted in order.

    `pending` holds the regions that were read since the last barrier.
    """

    def __init__(self, layout_plan: Plan) -> None:
        self.plan = layout_plan
        self.turn = 0
        self.pending: frozenset[int] = frozenset()

    def enter(self) -> tuple[int, bool]:
        """(offset of the region to write, whether a barrier must come first)."""
        self.turn = (self.turn + 1) % self.plan.regions
        due = self.turn in self.pending
        if due:
            self.pending = frozenset()
        return self.turn * self.plan.region, due

    def published(self) -> None:
        """A barrier has passed between the writes and the reads of the region; it is read from now on."""
        self.pending = frozenset((self.turn,))

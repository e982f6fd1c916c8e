"""The plan of a block's shared memory, and where barriers go.

A *site* is a place where threads exchange: a column reduction, or one chunk of a dot's inner axis.
A site writes a region of the pool, a barrier makes it visible, then it is read. Before a region is
written again a barrier must have passed since it was read; two regions used in turn let the barrier
in between serve for that. Nothing else in emitted code needs a barrier.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from dsl.ir.ops import Dot, Kernel, Op, Reduce, walk
from dsl.lower.c.layout import LANES, Layout


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
    """True for a column reduction over rows of more than one warp."""
    return op.axis == 0 and op.operand.shape[0] > 1 and layout.warps > 1


def column_floats(op: Reduce, layout: Layout) -> int:
    return layout.warps * layout.padded((1, op.operand.shape[1]))[1]


def dot_floats(op: Dot, chunk: int, layout: Layout) -> tuple[int, int]:
    """Floats that a chunk of the left and of the right operand takes."""
    left, right = dot_strides(op, chunk, layout)
    rows = layout.padded(op.left.shape)[0]
    if op.transpose_b:
        return rows * left, layout.padded((1, op.result.shape[1]))[1] * right
    return rows * left, layout.padded((chunk, 1))[0] * right


def dot_strides(op: Dot, chunk: int, layout: Layout) -> tuple[int, int]:
    """Floats from one row to the next of the staged operands; + 1 keeps a transposed read off one bank."""
    left = layout.padded((1, chunk))[1]
    return left, left + (left > 1) if op.transpose_b else layout.padded((1, op.result.shape[1]))[1]


def plan(kernel: Kernel, layout: Layout, limit: int) -> Plan:
    """Two regions when every site fits in half of `limit` bytes, else one. Raises TooMuchShared."""
    ops = list(walk(kernel.body))
    dots = [op for op in ops if isinstance(op, Dot)]
    sites = len(dots) + sum(isinstance(op, Reduce) and needs_exchange(op, layout) for op in ops)
    floats = limit // 4
    if sites > 1:
        found = _within(ops, layout, floats // 2)
        if found is not None:
            return Plan(found[0], 2, found[1])
    found = _within(ops, layout, floats)
    if found is None:
        raise TooMuchShared(_reason(ops, layout, limit))
    return Plan(found[0], 1, found[1])


def _within(ops: Sequence[Op], layout: Layout, floats: int) -> tuple[int, dict[int, int]] | None:
    """(floats of the largest site, chunk of each dot) when all sites fit in `floats`."""
    largest, chunks = 0, {}
    for op in ops:
        need = 0
        if isinstance(op, Reduce) and needs_exchange(op, layout):
            need = column_floats(op, layout)
        elif isinstance(op, Dot):
            chunk = _chunk(op, layout, floats)
            chunks[op.result.id] = chunk
            need = sum(dot_floats(op, chunk, layout))
        if need > floats:
            return None
        largest = max(largest, need)
    return largest, chunks


def _chunk(op: Dot, layout: Layout, floats: int) -> int:
    """The whole inner axis if it fits, else the largest multiple of a warp that does, at least one."""
    depth = op.left.shape[1]
    chunk = depth
    while chunk > LANES and sum(dot_floats(op, chunk, layout)) > floats:
        chunk = (chunk - 1) // LANES * LANES
    return chunk


def _reason(ops: Sequence[Op], layout: Layout, limit: int) -> str:
    for op in ops:
        if isinstance(op, Dot):
            need = 4 * sum(dot_floats(op, _chunk(op, layout, 0), layout))
            (m, k), n = op.left.shape, op.result.shape[1]
            what = f"a dot of ({m}, {k}) by ({k}, {n})"
        elif isinstance(op, Reduce) and needs_exchange(op, layout):
            need = 4 * column_floats(op, layout)
            what = f"a reduction over the rows of {op.operand.shape}"
        else:
            continue
        if need > limit:
            return f"{what} needs {need} B of shared memory and a block has {limit}; make its tile smaller"
    raise AssertionError("some site is too large")


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

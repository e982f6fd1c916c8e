"""Which layout a kernel is emitted in, and why."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dsl.ir.ops import Dot, Kernel, defined, walk
from dsl.ir.types import Value
from dsl.lower.c.dialects import Dialect
from dsl.lower.c.layout import (
    Layout,
    MatrixUnit,
    matrix_layout,
    row_layout,
    spread_layout,
    wide_layout,
)
from dsl.lower.c.placement import place
from dsl.lower.c.registers import pressure
from dsl.lower.c.shared import TooMuchShared, plan
from dsl.lower.c.vectors import longest_run, row_spread

REGISTERS = 300
"""What a thread may need by the estimate, which is high: NVRTC made 238 of 293, and 255 is the most."""
WASTE = 8
"""At most so many times the work of a dot is done to fill the unit."""
WARPS = (4, 8)
"""Of a block, at most: the second where the first would hold too much of a tile."""
STAGED = 1024
"""Elements of a right operand that keep one warp busy loading."""
WIDE = 1024
"""Columns from which on a row is too much for one warp."""
FULL = (16, 32)
"""Elements of a row that a thread should hold, at least and at most."""


@dataclass(frozen=True)
class Choice:
    """A layout and, in a clause, why it is this one."""

    layout: Layout
    reason: str


def choose(kernel: Kernel, dialect: Dialect) -> Choice:
    """A matrix unit's layout for kernels with dots of f16 or bf16 that fit it; `wide` or `row` for others.

    Dots of f32 alone do not choose it: NVIDIA's units would round their operands to tf32.
    """
    wide = choose_wide(kernel)
    if wide is not None:
        return Choice(wide, "its tiles are of few rows and many columns")
    unit = dialect.unit
    narrow = [op for op in walk(kernel.body) if isinstance(op, Dot) and op.left.dtype != "f32"]
    if unit is None:
        return Choice(choose_row(kernel), "there is no matrix unit")
    if not narrow:
        return Choice(choose_row(kernel), "no dot takes f16 or bf16")
    reason = _waste(narrow, unit)
    for warps in _warps(narrow, unit) if reason is None else ():
        layout = matrix_layout(unit, warps)
        reason = _misfit(kernel, dialect, layout)
        if reason is None:
            return Choice(layout, f"a dot takes {narrow[0].left.dtype}")
    return Choice(choose_row(kernel), reason or "")


def _waste(dots: Sequence[Dot], unit: MatrixUnit) -> str | None:
    """Why the largest of the dots is too small for the unit, or None."""
    largest = max(dots, key=lambda op: math.prod(op.result.shape) * op.left.shape[1])
    (m, n), k = largest.result.shape, largest.left.shape[1]
    done = math.prod(-(-a // b) * b for a, b in ((m, unit.rows), (n, 8), (k, unit.depth)))
    if done <= WASTE * m * n * k and min(m, n, k) > 1:
        return None
    return f"a dot of ({m}, {k}) by ({k}, {n}) would fill little of {unit.name}"


def _warps(dots: Sequence[Dot], unit: MatrixUnit) -> list[int]:
    """Warps to try: enough for the rows of the tallest dot, or to load the largest right operand."""
    rows = max(op.result.shape[0] for op in dots)
    staged = max(math.prod(op.right.shape) for op in dots)
    wanted = max(rows / unit.rows, staged / STAGED)
    first = next((n for n in (1, 2, WARPS[0]) if n >= wanted), WARPS[0])
    return [first, *(n for n in WARPS[1:] if rows >= n * unit.rows)]


def _misfit(kernel: Kernel, dialect: Dialect, layout: Layout) -> str | None:
    """Why the kernel is better off in `row` than in this layout, or None."""
    placement = place(kernel, layout)
    needed = pressure(kernel, placement)
    if needed > REGISTERS and needed > pressure(kernel, place(kernel, choose_row(kernel))):
        return f"its tiles need about {needed} registers a thread in {layout.name}, at most {REGISTERS}"
    try:
        plan(kernel, placement, dialect.shared_limit)
    except TooMuchShared as reason:
        return f"in {layout.name} {reason}"
    return None


def choose_row(kernel: Kernel) -> Layout:
    """No more warps than the tallest tile has rows; eight when four would hold too much of a tile."""
    shapes = [value.shape for value in tiles(kernel)]
    rows = max((shape[0] for shape in shapes), default=1)
    warps = 1
    while warps < 4 and warps < rows:
        warps *= 2
    crowded = any(math.prod(row_layout(warps).slots(shape)) > 64 for shape in shapes)
    warps = 8 if crowded and rows >= 8 else warps
    return spread_layout(warps, *row_spread(kernel, rows // warps))


def choose_wide(kernel: Kernel) -> Layout | None:
    """The layout of all warps along a row for kernels without dots, of tiles of less than 8 and long rows.

    As many warps, up to 16, as leave a thread `FULL` elements of the longest row, if possible without a
    remainder; 32 where those would hold more.
    """
    shapes = [value.shape for value in tiles(kernel)]
    columns = max((shape[1] for shape in shapes), default=1)
    has_dot = any(isinstance(op, Dot) for op in walk(kernel.body))
    if has_dot or columns <= WIDE or max(shape[0] for shape in shapes) >= 8:
        return None
    run = longest_run(kernel, lambda run: True)
    layouts = [wide_layout(warps, run) for warps in (2, 4, 8, 16)]
    good = [each for each in layouts if FULL[0] <= each.columns.count(columns) <= FULL[1]]
    even = [each for each in good if columns % each.columns.unit == 0]
    return (even or good or [wide_layout(32, run)])[-1]


def tiles(kernel: Kernel) -> list[Value]:
    return [value for op in walk(kernel.body) for value in defined(op) if value.shape]

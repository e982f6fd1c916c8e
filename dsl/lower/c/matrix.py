"""Dots on matrix units: sums stay in the registers that hold the tile, the right operand is shared.

The left operand need not leave its thread: a fragment of it is held exactly as a tile of its shape is. The
right one, and a left one that is spread (`placement.py`), are staged in shared memory in their own dtype, as
they lie, and read as fragments from there.
Past the end of the inner axis both are zeros; past the other ends anything, which nobody looks at.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from dsl.ir.ops import Dot
from dsl.ir.types import Value
from dsl.lower.c.emission import Emission
from dsl.lower.c.layout import Axis, Layout, MatrixUnit
from dsl.lower.c.lines import Slot, scaled, shifted, slots
from dsl.lower.c.shared import Area, matrix_areas


@dataclass(frozen=True)
class Chunk:
    """A chunk of the inner axis whose operands are in shared memory.

    Attributes:
        memory: name of the array; its elements are of the operands' size.
        left, right: where the operands lie in it; `left` is None for one that is in registers.
        first, count: positions of the inner axis before this chunk, and in it.
        steps: of the matrix unit, which cover `count`.
    """

    memory: str
    left: Area | None
    right: Area
    first: int
    count: int
    steps: int


class MatrixDots:
    """Emits dots for the matrix unit of the main layout."""

    def __init__(self, emission: Emission) -> None:
        self.emission = emission
        self.lines = emission.lines
        self.layout = emission.main

    @property
    def unit(self) -> MatrixUnit:
        assert self.layout.unit is not None
        return self.layout.unit

    def dot(self, op: Dot, into: str, staged: Callable[[], None]) -> None:
        """Adds left @ right to the tile of registers called `into`; `staged` is called when both are."""
        depth, size = op.left.shape[1], self.emission.pool.plan.chunks[op.result.id]
        left, right = matrix_areas(op, size, self.emission.placement)
        memory, in_float = ("pool", 1) if op.right.dtype == "f32" else ("halves", 2)
        for first in range(0, depth, size):
            base = self.emission.enter() * in_float
            count = min(size, depth - first)
            moved = [area and replace(area, base=base + area.base) for area in (left, right)]
            assert moved[1] is not None
            chunk = Chunk(memory, moved[0], moved[1], first, count, -(-count // self.unit.depth))
            if chunk.left:
                self._stage(op.left, 1, chunk.left, chunk)
            self._stage(op.right, 1 if op.transpose_b else 0, chunk.right, chunk)
            if not op.transpose_b:
                self._clear(op, chunk)
            self.emission.publish()
            if first + size >= depth:
                staged()
            self._multiply(op, chunk, into)

    def _stage(self, tile: Value, axis: int, area: Area, chunk: Chunk) -> None:
        """Writes the chunk of a tile whose inner axis is `axis`; zeros behind it where columns are cut."""
        own = self.emission.placement.of(tile)
        along, run = own.axis(axis), own.columns.run
        counts = list(own.slots(tile.shape))
        counts[axis] = -(-chunk.count // along.unit) * along.slots
        skipped = chunk.first // along.unit * along.slots
        word = self.emission.dialect.word(run, tile.dtype)

        # What is past the last step is never read.
        cut = (
            chunk.count % min(along.unit, self.unit.depth) and (tile.id, axis) not in self.emission.zero_ends
        )

        def statement(slot: Slot) -> str:
            row, column = (own.grouped(run).coordinate(a, tile.shape, slot) for a in (0, 1))
            source = [slot[0], scaled(slot[1], run)]
            source[axis] = shifted(source[axis], skipped)
            kept = _kept(axis, row, column, chunk.count, run) if cut else ""
            value = f"&{self.emission.names[tile]}[{source[0]}][{source[1]}]"
            at = f"{chunk.memory} + ({area.base} + {row} * {area.stride} + {column})"
            return f"put<{word}>({at}, {value}{kept});"

        self.lines.add(slots(counts[0], counts[1] // run, statement))

    def _clear(self, op: Dot, chunk: Chunk) -> None:
        """Zeros in the right operand's rows that are not written, to the end of the last step."""
        along = self.emission.placement.of(op.right).rows
        first = -(-chunk.count // along.unit) * along.unit
        if first >= chunk.steps * self.unit.depth:
            return
        width, area = op.result.shape[1], chunk.right
        count = (chunk.steps * self.unit.depth - first) * width
        place = f"{area.base} + ({first} + n / {width}) * {area.stride} + n % {width}"
        self.lines.add(
            f"for (int n = 32 * warp + lane; n < {count}; n += {self.layout.threads}) "
            f"{chunk.memory}[{place}] = 0;"
        )

    def _multiply(self, op: Dot, chunk: Chunk, into: str) -> None:
        rows, columns = self.layout.slots(op.result.shape)
        emit = _NvidiaFragments if self.unit.rows == 16 else _AppleFragments
        fragments = emit(self.emission, op, chunk, into)
        last = (op.result.shape[0] - 1) // self.unit.rows
        # All rows in fewer warps than there are: the others have nothing to multiply.
        self.lines.add(f"if (warp <= {last}) {{" if last + 1 < self.layout.warps else "{")
        with self.lines.indented():
            self.lines.add(f"EACH(k, {chunk.steps}) {{")
            with self.lines.indented():
                fragments.step(rows, columns)
            self.lines.add("}")
        self.lines.add("}")


def _kept(axis: int, row: str, column: str, count: int, run: int) -> str:
    """How many of a group's elements are within the chunk, as the last argument of `put`."""
    return f", {row} < {count} ? {run} : 0" if axis == 0 else f", {count} - {column}"


class _Fragments:
    """One step of a matrix unit along the inner axis, for all rows and columns of the result."""

    def __init__(self, emission: Emission, op: Dot, chunk: Chunk, into: str) -> None:
        self.lines = emission.lines
        self.dialect = emission.dialect
        self.layout: Layout = emission.main
        self.name = emission.names[op.left]
        self.whole = op.left.shape[1] % self.layout.columns.unit == 0 or (op.left.id, 1) in emission.zero_ends
        self.op, self.chunk, self.into = op, chunk, into

    def left(self, row: str, step: str, offset: int) -> str:
        """The left operand in slot row `row`, slot column `offset` of a step: zero past the inner axis."""
        per_step = self.layout.columns.slots
        before = self.chunk.first // self.layout.columns.unit * per_step
        slot = shifted(scaled(step, per_step), before + offset)
        element = f"{self.name}[{row}][{slot}]"
        if self.whole:
            return element
        depth = self.op.left.shape[1]
        column = self.layout.coordinate(1, self.op.left.shape, ("0", slot))
        return f"({column} < {depth} ? {element} : {self.dialect.zero(self.op.left.dtype)})"

    def at(self, area: Area, row: str, column: str) -> str:
        return f"{area.base} + ({row}) * {area.stride} + {column}"


class _NvidiaFragments(_Fragments):
    """mma.m16n8k16: fragments of the right operand come by ldmatrix, two neighbours of 8 columns at once."""

    def step(self, rows: int, columns: int) -> None:
        blocks = rows // 2
        self.lines.add(f"unsigned a[{blocks}][4];")
        if self.chunk.left:
            self.lines.add(slots(blocks, 1, partial(self._staged, self.chunk.left)))
        else:
            for number in range(4):
                self.lines.add(slots(blocks, 1, partial(self._left, number)))
        self.lines.add(f"EACH(j, {columns // 4}) {{")
        with self.lines.indented():
            self.lines.add("unsigned b[4];")
            self.lines.add(self._right())
            for half in (0, 1):
                self.lines.add(slots(blocks, 1, partial(self._multiply, half)))
        self.lines.add("}")

    def _left(self, number: int, slot: Slot) -> str:
        i = slot[0]
        row = shifted(scaled(i, 2), number % 2)
        first, second = (self.left(row, "k", number // 2 * 2 + e) for e in (0, 1))
        return f"a[{i}][{number}] = pair({first}, {second});"

    def _staged(self, area: Area, slot: Slot) -> str:
        """16 rows of the left operand: a lane names one, for one half of the step."""
        layout = self.layout.rows
        rows = Axis(1, 0, layout.step, layout.warp, tuple((bit, 1 << bit) for bit in range(4)), 16, 1)
        place = self.at(area, rows.position(slot[0]), "16 * k + 8 * (lane >> 4)")
        return f"load_matrices(a[{slot[0]}], {self.chunk.memory} + ({place}));"

    def _right(self) -> str:
        area, across, down = self.chunk.right, "8 * (lane >> 4)", "(lane & 15)"
        how, place = "transposed", self.at(area, f"16 * k + {down}", f"16 * j + {across}")
        if self.op.transpose_b:
            place = self.at(area, "16 * j + (lane & 7) + 8 * (lane >> 4)", "16 * k + 8 * (lane >> 3 & 1)")
            how = "matrices"
        return f"load_{how}(b, {self.chunk.memory} + ({place}));"

    def _multiply(self, half: int, slot: Slot) -> str:
        i = slot[0]
        places = [
            f"{self.into}[{shifted(scaled(i, 2), r)}][{shifted('4 * j', 2 * half + e)}]"
            for r in (0, 1)
            for e in (0, 1)
        ]
        operands = f"a[{i}], b[{2 * half}], b[{2 * half + 1}]"
        return f"mma_{self.op.left.dtype}({', '.join(places)}, {operands});"


class _AppleFragments(_Fragments):
    """simdgroup_matrix of 8 x 8, filled element by element by the layout's own formula."""

    def step(self, rows: int, columns: int) -> None:
        kind = self.dialect.types[self.op.left.dtype]
        self.lines.add(f"simdgroup_matrix<{kind}, 8, 8> a[{rows}];")
        for e in (0, 1):
            self.lines.add(slots(rows, 1, partial(self._left, e)))
        self.lines.add(f"EACH(j, {columns // 2}) {{")
        with self.lines.indented():
            self.lines.add(f"simdgroup_matrix<{kind}, 8, 8> b;")
            for e in (0, 1):
                self.lines.add(f"b.thread_elements()[{e}] = {self._right(e)};")
            self.lines.add(slots(rows, 1, self._multiply))
        self.lines.add("}")

    def _left(self, e: int, slot: Slot) -> str:
        i, area = slot[0], self.chunk.left
        value = self.left(i, "k", e)
        if area:
            row, column = self.layout.rows.position(i), self.layout.columns.position(f"2 * k + {e}")
            value = self.dialect.narrow(
                self.op.left.dtype, f"{self.chunk.memory}[{self.at(area, row, column)}]"
            )
        return f"a[{i}].thread_elements()[{e}] = {value};"

    def _right(self, e: int) -> str:
        unit = self.layout.unit
        assert unit is not None
        inner = Axis(1, 0, 8, 0, unit.row_lanes, 8, 1).position("k")
        outer = Axis(2, 1, 8, 0, unit.column_lanes, 8, 2).position(f"2 * j + {e}")
        at = (outer, inner) if self.op.transpose_b else (inner, outer)
        return self.dialect.narrow(
            self.op.right.dtype, f"{self.chunk.memory}[{self.at(self.chunk.right, *at)}]"
        )

    def _multiply(self, slot: Slot) -> str:
        i = slot[0]
        places = [f"{self.into}[{i}][2 * j]", f"{self.into}[{i}][2 * j + 1]"]
        before = " ".join(f"c.thread_elements()[{e}] = {place};" for e, place in enumerate(places))
        after = " ".join(f"{place} = c.thread_elements()[{e}];" for e, place in enumerate(places))
        return (
            f"{{ simdgroup_matrix<float, 8, 8> c; {before} "
            f"simdgroup_multiply_accumulate(c, a[{i}], b, c); {after} }}"
        )

"""Reductions and dots: what threads of a block do together, by shuffles and through shared memory."""

from collections.abc import Callable

from dsl.ir.ops import Dot, Reduce
from dsl.ir.types import Value
from dsl.lower.c.dialects import Dialect
from dsl.lower.c.expressions import joined
from dsl.lower.c.layout import Layout
from dsl.lower.c.lines import Lines, Slot, slots
from dsl.lower.c.names import C_TYPE, Names
from dsl.lower.c.shared import Pool, dot_floats, dot_strides, needs_exchange

_START = {
    ("sum", "f32"): "0.0f",
    ("max", "f32"): "(-INF)",
    ("min", "f32"): "INF",
    ("sum", "i32"): "0",
    ("max", "i32"): "(-2147483647 - 1)",
    ("min", "i32"): "2147483647",
}


class Exchange:
    """Emits the ops of one kernel that cross threads, with the barriers they need."""

    def __init__(self, lines: Lines, layout: Layout, dialect: Dialect, names: Names, pool: Pool) -> None:
        self.lines = lines
        self.layout = layout
        self.dialect = dialect
        self.names = names
        self.pool = pool

    def reduce(self, op: Reduce) -> None:
        self.lines.declare(self.layout, op.result)
        if op.axis == 1:
            self._along_rows(op)
        else:
            self._along_columns(op)

    def _along_rows(self, op: Reduce) -> None:
        """Each lane over its own columns, then lanes by shuffles; all lanes end with the result."""
        rows, columns = self.layout.slots(op.operand.shape)
        i = "i" if rows > 1 else "0"
        self.lines.add((f"EACH(i, {rows}) " if rows > 1 else "") + "{")
        with self.lines.indented():
            self._gather(op, columns, "j", lambda j: (i, j))
            if op.operand.shape[1] > 1:
                for mask in self.layout.row_masks:
                    other = self.dialect.shuffle.format(value="t", mask=mask)
                    self.lines.add(f"t = {self._join(op, 't', other)};")
            self.lines.add(f"v{op.result.id}[{i}][0] = t;")
        self.lines.add("}")

    def _along_columns(self, op: Reduce) -> None:
        """Each warp over its own rows; then, where there are several warps, through shared memory."""
        rows, columns = self.layout.slots(op.operand.shape)
        j = "j" if columns > 1 else "0"
        self.lines.add((f"EACH(j, {columns}) " if columns > 1 else "") + "{")
        with self.lines.indented():
            self._gather(op, rows, "i", lambda i: (i, j))
            self.lines.add(f"v{op.result.id}[0][{j}] = t;")
        self.lines.add("}")
        if needs_exchange(op, self.layout):
            self._over_warps(op)

    def _gather(self, op: Reduce, count: int, index: str, slot: Callable[[str], Slot]) -> None:
        kind, operand = C_TYPE[op.operand.dtype], op.operand
        self.lines.add(f"{kind} t = {_START[op.kind, operand.dtype]};")
        at = slot(index if count > 1 else "0")
        guard = ""
        if self.layout.overhangs(op.axis, operand.shape):
            coordinate = self.layout.coordinate(op.axis, operand.shape, at)
            guard = f"if ({coordinate} < {operand.shape[op.axis]}) "
        step = f"{guard}t = {self._join(op, 't', self.names.element(operand, at))};"
        self.lines.add((f"EACH({index}, {count}) " if count > 1 else "") + step)

    def _join(self, op: Reduce, a: str, b: str) -> str:
        return joined(self.dialect, op.kind, op.operand.dtype, a, b)

    def _over_warps(self, op: Reduce) -> None:
        base = self._enter()
        width = self.layout.padded((1, op.operand.shape[1]))[1]
        whole = op.operand.dtype == "i32"
        store, fetch = (self.dialect.functions[k] if whole else "{0}" for k in ("float", "bits"))
        name, warps = f"v{op.result.id}", self.layout.warps

        def write(slot: Slot) -> str:
            column = self.layout.coordinate(1, op.result.shape, slot)
            owner = "if (lane == 0) " if op.result.shape[1] == 1 else ""
            return (
                f"{owner}pool[{base} + warp * {width} + {column}] = {store.format(f'{name}[0][{slot[1]}]')};"
            )

        def read(slot: Slot) -> str:
            column = self.layout.coordinate(1, op.result.shape, slot)
            at = fetch.format(f"pool[{base} + w * {width} + {column}]")
            start = fetch.format(f"pool[{base} + {column}]")
            target = f"{name}[0][{slot[1]}]"
            return (
                f"{{ {target} = {start}; "
                f"EACH(w, {warps}) if (w > 0) {target} = {self._join(op, target, at)}; }}"
            )

        self.lines.nest(self.layout, op.result.shape, write)
        self._publish()
        self.lines.nest(self.layout, op.result.shape, read)

    def _enter(self) -> int:
        base, due = self.pool.enter()
        if due:
            self.lines.add(self.dialect.barrier)
        return base

    def _publish(self) -> None:
        self.lines.add(self.dialect.barrier)
        self.pool.published()

    def dot(self, op: Dot) -> None:
        """Chunks of the inner axis are staged in shared memory; each thread sums its own outputs."""
        self.lines.define(self.layout, op.result, lambda slot: "0.0f")
        depth, chunk = op.left.shape[1], self.pool.plan.chunks[op.result.id]
        for first in range(0, depth, chunk):
            base = self._enter()
            right_base = base + dot_floats(op, chunk, self.layout)[0]
            left_stride, right_stride = dot_strides(op, chunk, self.layout)
            count = min(chunk, depth - first)
            self._stage(op.left, 1, first, count, base, left_stride)
            self._stage(op.right, 1 if op.transpose_b else 0, first, count, right_base, right_stride)
            self._publish()
            self._multiply(op, count, (base, left_stride), (right_base, right_stride))

    def _stage(self, tile: Value, axis: int, first: int, count: int, base: int, stride: int) -> None:
        """Copies `count` rows (axis 0) or columns (axis 1), from `first`, to base + row * stride."""
        unit = (self.layout.row_unit, self.layout.column_unit)[axis]
        skipped = first // unit
        counts = list(self.layout.slots(tile.shape))
        counts[axis] = -(-count // unit)
        owner = self.layout.owner(tile.shape)

        def statement(slot: Slot) -> str:
            source = list(slot)
            if skipped:
                source[axis] = str(skipped) if slot[axis] == "0" else f"{slot[axis]} + {skipped}"
            row = self.layout.coordinate(0, tile.shape, slot)
            column = self.layout.coordinate(1, tile.shape, slot)
            value = self.names.element(tile, (source[0], source[1]))
            guard = f"if ({' && '.join(owner)}) " if owner else ""
            return f"{guard}pool[{base} + {row} * {stride} + {column}] = {value};"

        self.lines.add(slots(counts[0], counts[1], statement))

    def _multiply(self, op: Dot, count: int, left: tuple[int, int], right: tuple[int, int]) -> None:
        rows, columns = self.layout.slots(op.result.shape)
        shape, name = op.result.shape, f"v{op.result.id}"

        def fetch_left(slot: Slot) -> str:
            row = self.layout.coordinate(0, shape, slot)
            return f"a[{slot[0]}] = pool[{left[0]} + {row} * {left[1]} + k];"

        def fetch_right(slot: Slot) -> str:
            column = self.layout.coordinate(1, shape, slot)
            place = f"{column} * {right[1]} + k" if op.transpose_b else f"k * {right[1]} + {column}"
            return f"b[{slot[1]}] = pool[{right[0]} + {place}];"

        self.lines.add(f"for (int k = 0; k < {count}; ++k) {{")
        with self.lines.indented():
            self.lines.add(f"float a[{rows}], b[{columns}];")
            self.lines.add(slots(rows, 1, fetch_left))
            self.lines.add(slots(1, columns, fetch_right))
            self.lines.add(
                slots(rows, columns, lambda s: f"{name}[{s[0]}][{s[1]}] += a[{s[0]}] * b[{s[1]}];")
            )
        self.lines.add("}")

"""Dots without a matrix unit, in any layout: both operands in shared memory, each thread its own sums."""

from dsl.ir.ops import Dot
from dsl.ir.types import Value
from dsl.lower.c.emission import Emission
from dsl.lower.c.expressions import widened
from dsl.lower.c.lines import Slot, slots
from dsl.lower.c.shared import dot_floats, dot_strides


class Dots:
    """Emits dots as multiply-adds of f32, with the barriers they need."""

    def __init__(self, emission: Emission) -> None:
        self.emission = emission
        self.lines = emission.lines
        self.layout = emission.main

    def dot(self, op: Dot) -> None:
        """Chunks of the inner axis are staged in shared memory; each thread sums its own outputs."""
        self.lines.define(self.layout, op.result, lambda slot: "0.0f")
        depth, chunk = op.left.shape[1], self.emission.pool.plan.chunks[op.result.id]
        for first in range(0, depth, chunk):
            base = self.emission.enter()
            right_base = base + dot_floats(op, chunk, self.layout)[0]
            left_stride, right_stride = dot_strides(op, chunk, self.layout)
            count = min(chunk, depth - first)
            self._stage(op.left, 1, first, count, base, left_stride)
            self._stage(op.right, 1 if op.transpose_b else 0, first, count, right_base, right_stride)
            self.emission.publish()
            self._multiply(op, count, (base, left_stride), (right_base, right_stride))

    def _stage(self, tile: Value, axis: int, first: int, count: int, base: int, stride: int) -> None:
        """Copies `count` rows (axis 0) or columns (axis 1), from `first`, to base + row * stride."""
        along = self.layout.axis(axis)
        skipped = first // along.unit * along.slots
        counts = list(self.layout.slots(tile.shape))
        counts[axis] = min(counts[axis], -(-count // along.unit) * along.slots)
        owner = self.layout.owner(tile.shape)

        def statement(slot: Slot) -> str:
            source = list(slot)
            if skipped:
                source[axis] = str(skipped) if slot[axis] == "0" else f"{slot[axis]} + {skipped}"
            row = self.layout.coordinate(0, tile.shape, slot)
            column = self.layout.coordinate(1, tile.shape, slot)
            value = widened(tile.dtype, self.emission.names.element(tile, (source[0], source[1])))
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

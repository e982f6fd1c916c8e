"""Reductions: each thread over its own slots, then lanes by shuffles, then warps through shared memory."""

from collections.abc import Callable

from dsl.ir.ops import Reduce
from dsl.lower.c.emission import Emission
from dsl.lower.c.expressions import joined
from dsl.lower.c.lines import Slot
from dsl.lower.c.shared import needs_exchange

_START = {
    ("sum", "f32"): "0.0f",
    ("max", "f32"): "(-INF)",
    ("min", "f32"): "INF",
    ("sum", "i32"): "0",
    ("max", "i32"): "(-2147483647 - 1)",
    ("min", "i32"): "2147483647",
}


class Reductions:
    """Emits the reductions of one kernel, with the barriers they need."""

    def __init__(self, emission: Emission) -> None:
        self.emission = emission
        self.lines = emission.lines
        self.layout = emission.main

    def reduce(self, op: Reduce) -> None:
        self.lines.declare(self.layout, op.result)
        axis = op.axis
        counts = self.layout.slots(op.operand.shape)
        kept, index, other = counts[1 - axis], "ij"[1 - axis], "ij"[axis]
        at = index if kept > 1 else "0"
        self.lines.add((f"EACH({index}, {kept}) " if kept > 1 else "") + "{")
        with self.lines.indented():
            self._gather(op, counts[axis], other, lambda s: (at, s) if axis == 1 else (s, at))
            if op.operand.shape[axis] > 1:
                for mask in self.layout.row_masks if axis == 1 else self.layout.column_masks:
                    given = self.emission.dialect.shuffle.format(value="t", mask=mask)
                    self.lines.add(f"t = {self._join(op, 't', given)};")
            place = f"[{at}][0]" if axis == 1 else f"[0][{at}]"
            self.lines.add(f"v{op.result.id}{place} = t;")
        self.lines.add("}")
        if needs_exchange(op, self.layout):
            self._over_warps(op)

    def _gather(self, op: Reduce, count: int, index: str, slot: Callable[[str], Slot]) -> None:
        kind, operand = self.lines.types[op.operand.dtype], op.operand
        self.lines.add(f"{kind} t = {_START[op.kind, operand.dtype]};")
        at = slot(index if count > 1 else "0")
        guard = ""
        if self.layout.overhangs(op.axis, operand.shape):
            coordinate = self.layout.coordinate(op.axis, operand.shape, at)
            guard = f"if ({coordinate} < {operand.shape[op.axis]}) "
        step = f"{guard}t = {self._join(op, 't', self.emission.names.element(operand, at))};"
        self.lines.add((f"EACH({index}, {count}) " if count > 1 else "") + step)

    def _join(self, op: Reduce, a: str, b: str) -> str:
        return joined(self.emission.dialect, op.kind, op.operand.dtype, a, b)

    def _over_warps(self, op: Reduce) -> None:
        """Each warp writes its own result of each row or column; then all threads join all of them."""
        base = self.emission.enter()
        functions = self.emission.dialect.functions
        whole = op.operand.dtype == "i32"
        store, fetch = (functions[k] if whole else "{0}" for k in ("float", "bits"))
        name, warps = f"v{op.result.id}", self.layout.warps
        owner = [test for test in self.layout.owner(op.result.shape) if "warp" not in test]

        def write(slot: Slot) -> str:
            guard = f"if ({' && '.join(owner)}) " if owner else ""
            mine = store.format(f"{name}[{slot[0]}][{slot[1]}]")
            return f"{guard}{self._shared(op, base, 'warp', slot)} = {mine};"

        def read(slot: Slot) -> str:
            start, at = (fetch.format(self._shared(op, base, warp, slot)) for warp in ("0", "w"))
            target = f"{name}[{slot[0]}][{slot[1]}]"
            return (
                f"{{ {target} = {start}; "
                f"EACH(w, {warps}) if (w > 0) {target} = {self._join(op, target, at)}; }}"
            )

        self.lines.nest(self.layout, op.result.shape, write)
        self.emission.publish()
        self.lines.nest(self.layout, op.result.shape, read)

    def _shared(self, op: Reduce, base: int, warp: str, slot: Slot) -> str:
        """A warp's result: of columns warp by warp, of rows side by side, to be read several at once."""
        kept = 1 - op.axis
        place = self.layout.coordinate(kept, op.result.shape, slot)
        if kept == 0:
            return f"pool[{base} + {place} * {self.layout.warps} + {warp}]"
        width = self.layout.padded(op.result.shape)[1]
        return f"pool[{base} + {warp} * {width} + {place}]"

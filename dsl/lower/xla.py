"""IR -> jnp and lax: runs wherever XLA does, and is where gradients come from.

Programs become `vmap` axes (one for each grid axis, so that a dot whose sides depend on different axes
stays one dot); loops with a static bound become `scan`, so that they have a reverse mode; loops that
only add up become one dot, or a sum over an axis of passes (see `contractions`). Stores gather at the
end: reshapes where the windows tile the output, one scatter otherwise.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dsl.ir.affine import Ranges
from dsl.ir.ops import AtomicAdd, Kernel, Load, Loop, Op, Store, has_effect, walk
from dsl.ir.types import NIBBLES
from dsl.lower.contractions import Sums, sums
from dsl.lower.stores import Axis, Written, assemble
from dsl.lower.windows import LoadPlan, place_of, plan_load, prepare, unpack
from dsl.lower.xla_ops import Env, filler
from dsl.lower.xla_program import Program

LARGEST_BATCH = 64 * 2**20
"""Bytes of one value over all programs, beyond which the outermost grid axis of several runs one by one."""


class Unsupported(Exception):
    """This lowering cannot take the kernel; the message is the reason that `explain` shows."""


def lower(kernel: Kernel) -> Callable[..., tuple[jax.Array, ...]]:
    """A traceable function of the arrays of `kernel.inputs` giving those of `kernel.outputs`.

    Raises Unsupported for a store inside a loop whose number of passes has no static bound.
    """
    plan = Plan(kernel)

    def run(*arrays: jax.Array) -> tuple[jax.Array, ...]:
        memory = {ref.name: jnp.asarray(x) for ref, x in zip(kernel.inputs, arrays, strict=True)}
        found = plan.run(memory)
        initial = {ref.name: memory[ref.name] for ref in kernel.refs if ref.role == "inout"}
        return tuple(assemble(plan.facts, ref, initial.get(ref.name), found) for ref in kernel.outputs)

    return run


class Plan:
    """Everything about a kernel that is decided before any array is seen."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.facts = Ranges(kernel)
        self.pids = {self.facts.grid_axis(s): s for s in self.facts.pid_symbols()}
        self.order: list[int] = [self.pids[axis] for axis in sorted(self.pids, key=lambda a: a or 0)]
        self.extents = {s: kernel.grid[self.facts.grid_axis(s) or 0] for s in self.order}
        self.extents = {s: n for s, n in self.extents.items() if n > 1}
        self.first = next((axis for axis, extent in enumerate(kernel.grid) if extent > 1), 0)
        self.loads: dict[int, tuple[Load, LoadPlan]] = {}
        self.summed: dict[int, Sums] = {}
        self.early: set[int] = set()
        self._visit(kernel.body, dict(self.extents))

    def _visit(self, body: Sequence[Op], extents: dict[int, int]) -> None:
        for op in body:
            if isinstance(op, Load):
                self.loads[op.result.id] = op, plan_load(op, self.kernel.ref(op.ref), self.facts, extents)
            elif isinstance(op, Loop):
                inner = dict(extents)
                trip = self.facts.exact_trip(op)
                found = sums(op, self.kernel) if trip and self.facts.interval(op.lo) == (0, 0) else None
                if trip and found is not None:
                    self.summed[op.induction.id] = found
                    pairs = zip(op.finals, found.totals, strict=True)
                    self.early |= {final.id for final, total in pairs if total.early}
                    self.order.append(op.induction.id)
                    inner[op.induction.id] = trip
                elif has_effect(op) and self.facts.trip(op) is None:
                    raise Unsupported("a loop that stores needs a static bound; give loop(..., max_trip=)")
                self._visit(op.body, inner)

    def run(self, memory: dict[str, jax.Array]) -> list[Written]:
        blocks = {number: self._block(op, plan, memory) for number, (op, plan) in self.loads.items()}
        written: list[tuple[Store | AtomicAdd, list[Axis]]] = []

        def program(axis: int, values: dict[int, Any], blocks: dict[int, jax.Array]) -> Any:
            if axis == len(self.kernel.grid):
                written.clear()
                return Program(self, Env(values, blocks), written).block(self.kernel.body, [])
            return self._over_axis(axis, values, blocks, program)

        found = program(0, {}, blocks)
        grid = [Axis(self.pids.get(axis, -1), extent) for axis, extent in enumerate(self.kernel.grid)]
        return [Written(op, [*grid, *loops], *data) for (op, loops), data in zip(written, found, strict=True)]

    def _block(self, op: Load, plan: LoadPlan, memory: dict[str, jax.Array]) -> jax.Array:
        ref, array = self.kernel.ref(op.ref), memory[op.ref]
        if ref.dtype in NIBBLES and not plan.bytes_at_once:
            array = unpack(array, ref.dtype)
        return prepare(array, plan, filler(op, plan, array))

    def _over_axis(
        self, axis: int, values: dict[int, Any], blocks: dict[int, jax.Array], program: Any
    ) -> Any:
        extent = self.kernel.grid[axis]
        symbol = self.pids.get(axis, -1)
        if extent == 1:
            found = program(axis + 1, {**values, -1 - axis: 0}, blocks)
            return jax.tree.map(lambda x: x[None], found)
        mine = {n: b for n, b in blocks.items() if symbol in self.loads[n][1].symbols}
        shared = {n: b for n, b in blocks.items() if n not in mine}

        def one(place: jax.Array, taken: dict[int, jax.Array]) -> Any:
            return program(axis + 1, {**values, -1 - axis: place}, {**shared, **taken})

        places = jnp.arange(extent, dtype=jnp.int32)
        at = {n: self.place(n, symbol) for n in mine}
        if axis == self.first and self._largest() > LARGEST_BATCH:
            led = {n: jnp.moveaxis(block, at[n], 0) for n, block in mine.items()}
            return lax.map(lambda both: one(*both), (places, led))
        return jax.vmap(one, (0, at))(places, mine)

    def place(self, load: int, symbol: int) -> int:
        """The array axis of `symbol` in a load's block, once the axes around it have been taken."""
        return place_of(self.loads[load][1], symbol, self.order[: self.order.index(symbol)])

    def _largest(self) -> int:
        """Bytes of the widest value, over all programs and, where a loop became an axis, all passes."""
        sizes = [v.shape[0] * v.shape[1] for op in walk(self.kernel.body) for v in op.results if v.shape]
        for op in walk(self.kernel.body):
            if isinstance(op, Loop) and op.induction.id in self.summed:
                trip = self.facts.exact_trip(op) or 1
                sizes += [trip * v.shape[0] * v.shape[1] for v in op.carries if v.shape]
        return 4 * max(sizes, default=1) * int(np.prod(self.kernel.grid))

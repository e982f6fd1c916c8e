"""One program of the XLA lowering: its loops and writes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import lax

from dsl.ir.ops import AtomicAdd, Loop, Op, Store
from dsl.lang.arguments import NUMPY_NAME
from dsl.lower.halves import ordered
from dsl.lower.stores import Axis
from dsl.lower.xla_ops import Env, Passes, Tiles, window_shape

if TYPE_CHECKING:
    from dsl.lower.xla import Plan


class Program(Tiles):
    """Runs ops, and collects what is written."""

    def __init__(self, plan: "Plan", env: Env, written: list[tuple[Store | AtomicAdd, list[Axis]]]) -> None:
        super().__init__(plan, env)
        self.written = written

    def block(self, body: Sequence[Op], around: list[Axis]) -> list[tuple[Any, ...]]:
        """Runs the ops; returns (value, starts, valid) of each write, in order with `self.written`."""
        found: list[tuple[Any, ...]] = []
        for op in body:
            if isinstance(op, Store | AtomicAdd):
                self.written.append((op, around))
                found.append(self.write(op))
            elif isinstance(op, Loop):
                found += self.loop(op, around)
            else:
                self.env.values[op.results[0].id] = self.evaluate(op)
        return found

    def write(self, op: Store | AtomicAdd) -> tuple[Any, ...]:
        dtype = jnp.dtype(NUMPY_NAME[self.plan.kernel.ref(op.ref).dtype])
        value = jnp.broadcast_to(jnp.asarray(ordered(self.get(op.value))), window_shape(op.index)).astype(
            dtype
        )
        starts = jnp.stack([jnp.asarray(self.get(entry.start), jnp.int32) for entry in op.index])
        return value, starts, jnp.asarray(True)

    def loop(self, op: Loop, around: list[Axis]) -> list[tuple[Any, ...]]:
        init = tuple(jnp.asarray(ordered(self.get(value))) for value in op.init)
        lo, hi = self.get(op.lo), self.get(op.hi)
        if op.max_trip is not None:
            hi = jnp.minimum(hi, lo + op.max_trip)
        trip = self.plan.facts.trip(op)
        found: list[tuple[Any, ...]] = []
        finals: Any = ()
        if op.induction.id in self.plan.summed:
            finals, found = self._summed(op, init), []
        elif trip is not None:
            finals, found = self._scanned(op, init, lo, hi, trip, around)
        else:
            finals, found = self._unbounded(op, init, lo, hi), []
        self.env.values.update(zip((v.id for v in op.finals), finals, strict=True))
        return found

    def _pass(
        self, op: Loop, j: Any, carried: tuple[Any, ...], blocks: dict[int, jax.Array], around: list[Axis]
    ) -> Any:
        values = {**self.env.values, op.induction.id: j}
        values.update(zip((v.id for v in op.carries), carried, strict=True))
        inner = Program(self.plan, Env(values, blocks), self.written)
        found = inner.block(op.body, around)
        return tuple(jnp.asarray(ordered(inner.get(value))) for value in op.yields), found

    def _summed(self, op: Loop, init: tuple[Any, ...]) -> list[Any]:
        found = self.plan.summed[op.induction.id]
        passes = Passes(self.plan, self.env, op.induction, self.plan.facts.exact_trip(op) or 0)
        for inner in found.body:
            passes.env.values[inner.results[0].id] = passes.evaluate(inner)
        return [passes.total(start, total) for start, total in zip(init, found.totals, strict=True)]

    def _scanned(
        self, op: Loop, init: tuple[Any, ...], lo: Any, hi: Any, trip: int, around: list[Axis]
    ) -> tuple[Any, list[tuple[Any, ...]]]:
        exact = self.plan.facts.exact_trip(op) == trip
        first = len(self.written)
        axis = Axis(
            op.induction.id if exact and self.plan.facts.interval(op.lo) == (0, 0) else -1, trip, exact
        )

        def step(carried: tuple[Any, ...], number: jax.Array) -> Any:
            del self.written[first:]
            j = lo + number
            new, found = self._pass(op, j, carried, self.env.blocks, [*around, axis])
            if not exact:
                valid = j < hi
                new = tuple(jnp.where(valid, a, b) for a, b in zip(new, carried, strict=True))
                found = [(value, starts, kept & valid) for value, starts, kept in found]
            return new, found

        finals, found = lax.scan(step, init, jnp.arange(trip, dtype=jnp.int32))
        return finals, found

    def _unbounded(self, op: Loop, init: tuple[Any, ...], lo: Any, hi: Any) -> tuple[Any, ...]:
        def step(j: jax.Array, carried: tuple[Any, ...]) -> tuple[Any, ...]:
            new: tuple[Any, ...] = self._pass(op, j, carried, self.env.blocks, [])[0]
            return new

        found: tuple[Any, ...] = lax.fori_loop(lo, hi, step, init)
        return found

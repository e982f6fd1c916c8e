"""One program of the XLA lowering: ops evaluated with jnp on values that `vmap` may have made batches of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dsl.ir.ops import (
    AtomicAdd,
    Binary,
    Cast,
    Const,
    Dot,
    Full,
    Index,
    Iota,
    Load,
    Loop,
    Op,
    Pid,
    Reduce,
    Span,
    Store,
    Unary,
    Where,
)
from dsl.ir.types import Value
from dsl.lang.arguments import NUMPY_NAME
from dsl.lower.stores import Axis
from dsl.lower.windows import LoadPlan, take, unpack

if TYPE_CHECKING:
    from dsl.lower.xla import Plan

UNARY: dict[str, Callable[[jax.Array], jax.Array]] = {
    "exp": jnp.exp,
    "log": jnp.log,
    "tanh": jnp.tanh,
    "rsqrt": lax.rsqrt,
    "sqrt": jnp.sqrt,
    "erf": lax.erf,
    "round": jnp.rint,
    "abs": jnp.abs,
    "popcount": lax.population_count,
    "not": jnp.logical_not,
}
BINARY: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "add": jnp.add,
    "sub": jnp.subtract,
    "mul": jnp.multiply,
    "div": jnp.divide,
    "idiv": jnp.floor_divide,
    "mod": jnp.mod,
    "max": jnp.maximum,
    "min": jnp.minimum,
    "ge": jnp.greater_equal,
    "lt": jnp.less,
    "eq": jnp.equal,
    "and": jnp.bitwise_and,
    "or": jnp.bitwise_or,
    "xor": jnp.bitwise_xor,
    "shr": jnp.right_shift,
}
REDUCE: dict[str, Callable[..., jax.Array]] = {"sum": jnp.sum, "max": jnp.max, "min": jnp.min}
DTYPE: dict[str, Any] = {
    "f32": jnp.float32,
    "f16": jnp.float16,
    "bf16": jnp.bfloat16,
    "i32": jnp.int32,
    "bool": jnp.bool_,
}


@dataclass
class Env:
    """What one program knows: its values, the blocks its loads read, and what it has stored."""

    values: dict[int, Any]
    blocks: dict[int, jax.Array]


def filler(op: Load, plan: LoadPlan, array: jax.Array) -> jax.Array:
    """`other` as an element of the array, or as a byte of two nibbles."""
    if plan.bytes_at_once:
        return jnp.asarray((int(op.other) & 15) * 17, array.dtype)
    return jnp.asarray(np.asarray(op.other).astype(array.dtype))


class Program:
    """Evaluates ops on one program's values, which `vmap` may have made batches of."""

    def __init__(self, plan: "Plan", env: Env, written: list[tuple[Store | AtomicAdd, list[Axis]]]) -> None:
        self.plan = plan
        self.env = env
        self.written = written

    def get(self, value: Value) -> Any:
        return self.env.values[value.id]

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

    def evaluate(self, op: Op) -> Any:
        match op:
            case Const(result=result, value=value):
                return np.asarray(value, DTYPE[result.dtype])
            case Full(result=result, value=value):
                return jnp.full(result.shape, value, DTYPE[result.dtype])
            case Pid(axis=axis):
                return self.env.values[-1 - axis]
            case Iota(result=result, start=start):
                return self.get(start) + np.arange(max(result.shape), dtype=np.int32).reshape(result.shape)
            case Load():
                return self.load(op)
            case Unary(kind=kind, operand=operand):
                return UNARY[kind](self.get(operand))
            case Binary(kind=kind, left=left, right=right):
                return BINARY[kind](self.get(left), self.get(right))
            case Where(condition=condition, left=left, right=right):
                return jnp.where(self.get(condition), self.get(left), self.get(right))
            case Cast(operand=operand, result=result):
                return jnp.asarray(self.get(operand)).astype(DTYPE[result.dtype])
            case Reduce(operand=operand) if operand.id in self.plan.contracted:
                return self.get(operand)
            case Reduce(kind=kind, operand=operand, axis=axis):
                return REDUCE[kind](self.get(operand), axis=axis, keepdims=True)
            case Dot(left=left, right=right, transpose_b=True) if left.shape[0] == 1 and self.fills(left):
                # A row of sums, which the language has no other way to write.
                return self.get(left)[:, :1] * self.get(right).sum(1)
            case Dot(left=left, right=right, transpose_b=transpose_b):
                contract = (((1,), (1 if transpose_b else 0,)), ((), ()))
                return lax.dot_general(
                    self.get(left), self.get(right), contract, preferred_element_type=jnp.float32
                )
        raise TypeError(f"unknown op {type(op).__name__}")

    def fills(self, value: Value) -> bool:
        """True for a tile of one constant in f32."""
        op = self.plan.facts.op(value)
        return isinstance(op, Full) and value.dtype == "f32"

    def load(self, op: Load) -> jax.Array:
        _, plan = self.plan.loads[op.result.id]
        ref = self.plan.kernel.ref(op.ref)
        block = self.env.blocks[op.result.id]
        starts = [self.get(entry.start) for entry in op.index]
        if plan.bytes_at_once:
            starts[-1] = starts[-1] // 2
        data = take(block, plan, starts, filler(op, plan, block))
        if plan.bytes_at_once:
            data = unpack(data, ref.dtype)
        data = arrange(data, op.index)
        return data.astype(DTYPE[op.result.dtype])

    def write(self, op: Store | AtomicAdd) -> tuple[Any, ...]:
        dtype = jnp.dtype(NUMPY_NAME[self.plan.kernel.ref(op.ref).dtype])
        value = jnp.broadcast_to(jnp.asarray(self.get(op.value)), window_shape(op.index)).astype(dtype)
        starts = jnp.stack([jnp.asarray(self.get(entry.start), jnp.int32) for entry in op.index])
        return value, starts, jnp.asarray(True)

    def loop(self, op: Loop, around: list[Axis]) -> list[tuple[Any, ...]]:
        init = tuple(jnp.asarray(self.get(value)) for value in op.init)
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
        return tuple(jnp.asarray(inner.get(value)) for value in op.yields), found

    def _summed(self, op: Loop, init: tuple[Any, ...]) -> list[Any]:
        symbol = op.induction.id
        mine = {n: b for n, b in self.env.blocks.items() if symbol in self.plan.loads[n][1].symbols}
        shared = {n: b for n, b in self.env.blocks.items() if n not in mine}
        values = {
            **self.env.values,
            **{c.id: jnp.zeros_like(v) for c, v in zip(op.carries, init, strict=True)},
        }

        def term(j: jax.Array, taken: dict[int, jax.Array]) -> Any:
            inner = Program(self.plan, Env({**values, symbol: j}, {**shared, **taken}), self.written)
            inner.block(op.body, [])
            wanted = zip(op.finals, op.yields, strict=True)
            return [
                tuple(jnp.asarray(inner.get(v)) for v in self.plan.contracted.get(final.id, (after,)))
                for final, after in wanted
            ]

        trip = self.plan.facts.exact_trip(op) or 0
        at = {n: self.plan.place(n, symbol) for n in mine}
        ends = [(1, 1) if final.id in self.plan.contracted else (0,) for final in op.finals]
        terms = jax.vmap(term, (0, at), ends)(jnp.arange(trip, dtype=jnp.int32), mine)
        return [_total(start, parts) for start, parts in zip(init, terms, strict=True)]

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


def _total(start: jax.Array, parts: tuple[jax.Array, ...]) -> jax.Array:
    """The sum of terms (passes, rows, columns); or the dot of (rows, passes, columns) with such a row."""
    if len(parts) == 1:
        return start + parts[0].sum(0).astype(start.dtype)
    tile, row = (part.reshape(part.shape[0], -1) for part in parts)
    # The row first: where `vmap` makes a matrix of it, the product is X W^T.
    dot = lax.dot_general(row, tile, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)
    return start.sum(1, keepdims=True) + dot.T


def window_shape(index: Index) -> tuple[int, ...]:
    lengths = {entry.tile_axis: entry.size for entry in index if isinstance(entry, Span)}
    return (lengths.get(0, 1), lengths.get(1, 1)) if lengths else ()


def arrange(data: jax.Array, index: Index) -> jax.Array:
    """One array axis for each Ref axis -> the tile (rows, columns), or a scalar."""
    spans = [entry.tile_axis for entry in index if isinstance(entry, Span)]
    data = data.reshape([n for n, entry in zip(data.shape, index, strict=True) if isinstance(entry, Span)])
    if spans == [1, 0]:
        data = data.T
    return data.reshape(window_shape(index))

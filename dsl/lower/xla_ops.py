"""Ops of the IR on `jnp` arrays: those of one program, and those of all passes of a loop at once."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dsl.ir.ops import (
    Binary,
    Cast,
    Const,
    Dot,
    Full,
    Index,
    Iota,
    Load,
    Op,
    Pid,
    Reduce,
    Span,
    Unary,
    Where,
)
from dsl.ir.types import Value
from dsl.lower.contractions import Product, Sum, Term
from dsl.lower.halves import Halves, elementwise, ordered, split, unpack_halves
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
JOIN = {"sum": "add", "max": "max", "min": "min"}
"""The binary op of each reduction."""
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


class Tiles:
    """Evaluates ops on values that `vmap` may have made batches of: tiles are (rows, columns)."""

    def __init__(self, plan: "Plan", env: Env) -> None:
        self.plan = plan
        self.env = env

    def get(self, value: Value) -> Any:
        return self.env.values[value.id]

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Of the array that holds a tile of `shape`."""
        return shape

    def apply(self, f: Callable[..., Any], *operands: Any) -> Any:
        """`f`, elementwise, of what the operands broadcast to."""
        return elementwise(f, *operands)

    def evaluate(self, op: Op) -> Any:
        match op:
            case Const(result=result, value=value):
                return np.asarray(value, DTYPE[result.dtype])
            case Full(result=result, value=value):
                return jnp.full(self.shape(result.shape), value, DTYPE[result.dtype])
            case Pid(axis=axis):
                return self.env.values[-1 - axis]
            case Iota(result=result, start=start):
                places = np.arange(max(result.shape), dtype=np.int32)
                return self.get(start) + places.reshape(self.shape(result.shape))
            case Load():
                return self.load(op)
            case Unary(kind=kind, operand=operand):
                return self.apply(UNARY[kind], self.get(operand))
            case Binary(kind=kind, left=left, right=right):
                return self.apply(BINARY[kind], self.get(left), self.get(right))
            case Where(condition=condition, left=left, right=right):
                return self.apply(jnp.where, self.get(condition), self.get(left), self.get(right))
            case Cast(operand=operand, result=result):
                return self.apply(lambda x: jnp.asarray(x).astype(DTYPE[result.dtype]), self.get(operand))
            case Reduce():
                return self.reduce(op)
            case Dot(left=left, right=right, transpose_b=True) if left.shape[0] == 1 and self.fills(left):
                # A row of sums, which the language has no other way to write.
                return self.get(left)[:, :1] * ordered(self.get(right)).sum(1)
            case Dot(left=left, right=right, transpose_b=transpose_b):
                over = ((1,), (1 if transpose_b else 0,))
                return dot(ordered(self.get(left)), ordered(self.get(right)), over)
        raise TypeError(f"unknown op {type(op).__name__}")

    def reduce(self, op: Reduce) -> Any:
        value, axis = self.get(op.operand), -op.axis
        if op.operand.id in self.plan.early:
            return value
        if isinstance(value, Halves) and op.axis == 1:
            low, high = (REDUCE[op.kind](half, axis=axis, keepdims=True) for half in (value.low, value.high))
            return BINARY[JOIN[op.kind]](low, high)
        return elementwise(partial(REDUCE[op.kind], axis=axis, keepdims=True), value)

    def fills(self, value: Value) -> bool:
        """True for a tile of one constant in f32."""
        op = self.plan.facts.op(value)
        return isinstance(op, Full) and value.dtype == "f32"

    def load(self, op: Load) -> Any:
        return self.window(op, self.env.blocks[op.result.id], [self.get(entry.start) for entry in op.index])

    def window(self, op: Load, block: jax.Array, starts: list[Any]) -> Any:
        """What a load finds in a block from which all axes of programs and passes have been taken."""
        _, plan = self.plan.loads[op.result.id]
        ref = self.plan.kernel.ref(op.ref)
        if plan.bytes_at_once:
            starts = [*starts[:-1], starts[-1] // 2]
        data = take(block, plan, starts, filler(op, plan, block))
        if not plan.bytes_at_once:
            return arrange(data, op.index).astype(DTYPE[op.result.dtype])
        last = op.index[-1]
        if isinstance(last, Span) and last.tile_axis == 0:
            return arrange(unpack(data, ref.dtype), op.index)
        return unpack_halves(data.reshape(window_shape(op.index)[0], -1), ref.dtype)


class Passes(Tiles):
    """The same for all passes of a loop at once: tiles are (rows, passes, columns), scalars (1, passes, 1).

    Passes are between rows and columns, where groups of a matrix's columns lie anyway, rather than an axis
    of `vmap`, which would move it to the front: XLA reads matrices in the order of its loops. Either axis is
    1 where a value does not depend on it, and what was known before the loop has any of these forms.
    """

    def __init__(self, plan: "Plan", env: Env, induction: Value, trip: int) -> None:
        lifted = {number: _lifted(value) for number, value in env.values.items()}
        passes = np.arange(trip, dtype=np.int32).reshape(1, trip, 1)
        super().__init__(plan, Env({**lifted, induction.id: passes}, env.blocks))
        self.symbol, self.trip = induction.id, trip

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (shape[0], 1, shape[1]) if shape else ()

    def apply(self, f: Callable[..., Any], *operands: Any) -> Any:
        if not all(_without_columns(operand) for operand in operands):
            return elementwise(f, *operands)
        # Without the axis of one column, around which XLA's CPU compiler would copy sums of columns.
        found = f(*(operand if np.ndim(operand) == 0 else operand[..., 0] for operand in operands))
        return found if np.ndim(found) == 0 else found[..., None]

    def load(self, op: Load) -> Any:
        block, plan = self.env.blocks[op.result.id], self.plan.loads[op.result.id][1]
        starts = [self.get(entry.start) for entry in op.index]
        changing = [np.ndim(start) > 0 for start in starts]
        led = self.plan.place(op.result.id, self.symbol) if self.symbol in plan.symbols else None
        if led is None and not any(changing):
            return _lifted(self.window(op, block, starts))
        given = [
            jnp.broadcast_to(s, (1, self.trip, 1)).reshape(-1) if c else s
            for s, c in zip(starts, changing, strict=True)
        ]
        ends = 1 if op.result.shape else 0
        at = [0 if c else None for c in changing]
        found = jax.vmap(partial(self.window, op), (led, at), ends)(block, given)
        return found if op.result.shape else found.reshape(1, self.trip, 1)

    def total(self, start: jax.Array, total: Sum) -> jax.Array:
        """`start` and all terms of all passes."""
        found = start.sum(1, keepdims=True) if total.early else start
        for term in total.terms:
            found = found + self.term(term, start.shape).astype(start.dtype)
        return found

    def term(self, term: Term, shape: tuple[int, ...]) -> jax.Array:
        """The sum of a term over all passes: a tile of `shape`, or a scalar."""
        if isinstance(term, Product):
            return sum((_product(*sides) for sides in self.sides(term)), jnp.float32(0))
        rows, columns = shape or (1, 1)
        value = jnp.broadcast_to(ordered(self.get(term)), (rows, self.trip, columns))
        return value.sum(1).reshape(shape)

    def sides(self, product: Product) -> list[tuple[jax.Array, jax.Array]]:
        """Pairs (M, passes, K), (N, passes, K) whose products sum up to `product`."""
        left, right = self.get(product.left), self.get(product.right)
        if product.turned:
            right = ordered(right).swapaxes(0, 2)
        if product.by_row or product.by_column:
            left, right = (elementwise(lambda x: x.astype(jnp.float32), side) for side in (left, right))
        for factor in product.by_row:
            left = elementwise(jnp.multiply, left, ordered(self.get(factor)))
        for factor in product.by_column:
            right = elementwise(jnp.multiply, right, ordered(self.get(factor)).swapaxes(0, 2))
        if not isinstance(left, Halves) and not isinstance(right, Halves):
            return [(self.all(left), self.all(right))]
        return [(self.all(a), self.all(b)) for a, b in zip(split(left), split(right), strict=True)]

    def all(self, tile: jax.Array) -> jax.Array:
        """With as many passes as there are."""
        return jnp.broadcast_to(tile, (tile.shape[0], self.trip, tile.shape[2]))


def _without_columns(value: Any) -> bool:
    return not isinstance(value, Halves) and (np.ndim(value) == 0 or value.shape[-1] == 1)


def _lifted(value: Any) -> Any:
    """(rows, columns) -> (rows, 1, columns)."""
    if isinstance(value, Halves):
        return Halves(_lifted(value.low), _lifted(value.high))
    return value.reshape(value.shape[0], 1, value.shape[1]) if np.ndim(value) == 2 else value


def _product(left: jax.Array, right: jax.Array) -> jax.Array:
    """(M, ...) and (N, ...) -> (M, N): the sums over all that follows."""
    wide, narrow = (side.reshape(side.shape[0], -1) for side in (left, right))
    if narrow.shape[0] == 1:
        # The row first: where `vmap` makes a matrix of it, the product is X W^T.
        return dot(narrow, wide, ((1,), (1,))).T
    return dot(wide, narrow, ((1,), (1,)))


def dot(left: jax.Array, right: jax.Array, over: tuple[tuple[int], tuple[int]]) -> jax.Array:
    return lax.dot_general(left, right, (over, ((), ())), preferred_element_type=jnp.float32)


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

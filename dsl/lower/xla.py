"""IR -> jnp and lax: runs wherever XLA does, and is where gradients come from.

Programs become `vmap` axes (one for each grid axis, so that a dot whose sides depend on different axes
stays one dot); loops with a static bound become `scan`, so that they have a reverse mode; loops that
only add up independent terms become another `vmap` axis and a sum. Stores gather at the end: reshapes
where the windows tile the output, one scatter otherwise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dsl.ir.affine import Ranges
from dsl.ir.ops import (
    AtomicAdd,
    Binary,
    Cast,
    Const,
    Dot,
    Full,
    Index,
    Iota,
    Kernel,
    Load,
    Loop,
    Op,
    Pid,
    Reduce,
    Span,
    Store,
    Unary,
    Where,
    has_effect,
    walk,
)
from dsl.ir.types import NIBBLES, Value
from dsl.lang.arguments import NUMPY_NAME
from dsl.lower.stores import Axis, Written, assemble
from dsl.lower.windows import LoadPlan, plan_load, prepare, take, unpack

LARGEST_BATCH = 256 * 2**20
"""Bytes of one value over all programs, beyond which the outermost grid axis runs one by one."""

_UNARY: dict[str, Callable[[jax.Array], jax.Array]] = {
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
_BINARY: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
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
_REDUCE: dict[str, Callable[..., jax.Array]] = {"sum": jnp.sum, "max": jnp.max, "min": jnp.min}
_DTYPE: dict[str, Any] = {
    "f32": jnp.float32,
    "f16": jnp.float16,
    "bf16": jnp.bfloat16,
    "i32": jnp.int32,
    "bool": jnp.bool_,
}


class Unsupported(Exception):
    """This lowering cannot take the kernel; the message is the reason that `explain` shows."""


def lower(kernel: Kernel) -> Callable[..., tuple[jax.Array, ...]]:
    """A traceable function of the arrays of `kernel.inputs` giving those of `kernel.outputs`.

    Raises Unsupported for a store inside a loop whose number of passes has no static bound.
    """
    plan = _Plan(kernel)

    def run(*arrays: jax.Array) -> tuple[jax.Array, ...]:
        memory = {ref.name: jnp.asarray(x) for ref, x in zip(kernel.inputs, arrays, strict=True)}
        found = plan.run(memory)
        initial = {ref.name: memory[ref.name] for ref in kernel.refs if ref.role == "inout"}
        return tuple(assemble(plan.facts, ref, initial.get(ref.name), found) for ref in kernel.outputs)

    return run


@dataclass
class _Env:
    """What one program knows: its values, the blocks its loads read, and what it has stored."""

    values: dict[int, Any]
    blocks: dict[int, jax.Array]


class _Plan:
    """Everything about a kernel that is decided before any array is seen."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.facts = Ranges(kernel)
        self.pids = {self.facts.grid_axis(s): s for s in self.facts.pid_symbols()}
        self.order: list[int] = [self.pids[axis] for axis in sorted(self.pids, key=lambda a: a or 0)]
        self.extents = {s: kernel.grid[self.facts.grid_axis(s) or 0] for s in self.order}
        self.extents = {s: n for s, n in self.extents.items() if n > 1}
        self.loads: dict[int, tuple[Load, LoadPlan]] = {}
        self.summed: set[int] = set()
        self._visit(kernel.body, dict(self.extents))

    def _visit(self, body: Sequence[Op], extents: dict[int, int]) -> None:
        for op in body:
            if isinstance(op, Load):
                self.loads[op.result.id] = op, plan_load(op, self.kernel.ref(op.ref), self.facts, extents)
            elif isinstance(op, Loop):
                inner = dict(extents)
                trip = self.facts.exact_trip(op)
                if trip and self.facts.interval(op.lo) == (0, 0) and _sums_terms(op):
                    self.summed.add(op.induction.id)
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
                return _Program(self, _Env(values, blocks), written).block(self.kernel.body, [])
            return self._over_axis(axis, values, blocks, program)

        found = program(0, {}, blocks)
        grid = [Axis(self.pids.get(axis, -1), extent) for axis, extent in enumerate(self.kernel.grid)]
        return [Written(op, [*grid, *loops], *data) for (op, loops), data in zip(written, found, strict=True)]

    def _block(self, op: Load, plan: LoadPlan, memory: dict[str, jax.Array]) -> jax.Array:
        ref, array = self.kernel.ref(op.ref), memory[op.ref]
        if ref.dtype in NIBBLES and not plan.bytes_at_once:
            array = unpack(array, ref.dtype)
        return prepare(array, plan, filler(op, plan, array), self.order)

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
        if axis == 0 and self._largest() > LARGEST_BATCH:
            return lax.map(lambda both: one(*both), (places, mine))
        return jax.vmap(one)(places, mine)

    def _largest(self) -> int:
        """Bytes of the widest value, over all programs."""
        sizes = [v.shape[0] * v.shape[1] for op in walk(self.kernel.body) for v in op.results if v.shape]
        return 4 * max(sizes, default=1) * int(np.prod(self.kernel.grid))


def filler(op: Load, plan: LoadPlan, array: jax.Array) -> jax.Array:
    """`other` as an element of the array, or as a byte of two nibbles."""
    if plan.bytes_at_once:
        return jnp.asarray((int(op.other) & 15) * 17, array.dtype)
    return jnp.asarray(np.asarray(op.other).astype(array.dtype))


def _sums_terms(op: Loop) -> bool:
    """True when every carry only has a term added that does not need any carry, and no dot is repeated."""
    if not op.carries or has_effect(op) or any(isinstance(inner, Dot | Loop) for inner in walk(op.body)):
        return False
    carries = set(op.carries)
    finals = dict(zip(op.yields, op.carries, strict=True))
    sums: set[Value] = set()
    for inner in op.body:
        used = carries & set(inner.operands)
        if not used:
            continue
        result = inner.results[0]
        both = isinstance(inner, Binary) and inner.left in carries and inner.right in carries
        adds = isinstance(inner, Binary) and inner.kind == "add" and finals.get(result) in used
        if not adds or both or any(result in each.operands for each in op.body):
            return False
        sums.add(result)
    return sums == set(op.yields) and len(finals) == len(op.yields)


class _Program:
    """Evaluates ops on one program's values, which `vmap` may have made batches of."""

    def __init__(self, plan: _Plan, env: _Env, written: list[tuple[Store | AtomicAdd, list[Axis]]]) -> None:
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
                return np.asarray(value, _DTYPE[result.dtype])
            case Full(result=result, value=value):
                return jnp.full(result.shape, value, _DTYPE[result.dtype])
            case Pid(axis=axis):
                return self.env.values[-1 - axis]
            case Iota(result=result, start=start):
                return self.get(start) + np.arange(max(result.shape), dtype=np.int32).reshape(result.shape)
            case Load():
                return self.load(op)
            case Unary(kind=kind, operand=operand):
                return _UNARY[kind](self.get(operand))
            case Binary(kind=kind, left=left, right=right):
                return _BINARY[kind](self.get(left), self.get(right))
            case Where(condition=condition, left=left, right=right):
                return jnp.where(self.get(condition), self.get(left), self.get(right))
            case Cast(operand=operand, result=result):
                return jnp.asarray(self.get(operand)).astype(_DTYPE[result.dtype])
            case Reduce(kind=kind, operand=operand, axis=axis):
                return _REDUCE[kind](self.get(operand), axis=axis, keepdims=True)
            case Dot(left=left, right=right, transpose_b=transpose_b):
                contract = (((1,), (1 if transpose_b else 0,)), ((), ()))
                return lax.dot_general(
                    self.get(left), self.get(right), contract, preferred_element_type=jnp.float32
                )
        raise TypeError(f"unknown op {type(op).__name__}")

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
        return data.astype(_DTYPE[op.result.dtype])

    def write(self, op: Store | AtomicAdd) -> tuple[Any, ...]:
        dtype = jnp.dtype(NUMPY_NAME[self.plan.kernel.ref(op.ref).dtype])
        value = jnp.broadcast_to(jnp.asarray(self.get(op.value)), _window_shape(op.index)).astype(dtype)
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
        inner = _Program(self.plan, _Env(values, blocks), self.written)
        found = inner.block(op.body, around)
        return tuple(jnp.asarray(inner.get(value)) for value in op.yields), found

    def _summed(self, op: Loop, init: tuple[Any, ...]) -> list[Any]:
        symbol = op.induction.id
        mine = {n: b for n, b in self.env.blocks.items() if symbol in self.plan.loads[n][1].symbols}
        shared = {n: b for n, b in self.env.blocks.items() if n not in mine}
        empty = tuple(jnp.zeros_like(value) for value in init)

        def term(j: jax.Array, taken: dict[int, jax.Array]) -> Any:
            return self._pass(op, j, empty, {**shared, **taken}, [])[0]

        trip = self.plan.facts.exact_trip(op) or 0
        terms = jax.vmap(term)(jnp.arange(trip, dtype=jnp.int32), mine)
        return [start + part.sum(0).astype(start.dtype) for start, part in zip(init, terms, strict=True)]

    def _scanned(
        self, op: Loop, init: tuple[Any, ...], lo: Any, hi: Any, trip: int, around: list[Axis]
    ) -> tuple[Any, list[tuple[Any, ...]]]:
        exact = self.plan.facts.exact_trip(op) == trip
        first = len(self.written)
        axis = Axis(op.induction.id if exact and self.plan.facts.interval(op.lo) == (0, 0) else -1, trip)

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


def _window_shape(index: Index) -> tuple[int, ...]:
    lengths = {entry.tile_axis: entry.size for entry in index if isinstance(entry, Span)}
    return (lengths.get(0, 1), lengths.get(1, 1)) if lengths else ()


def arrange(data: jax.Array, index: Index) -> jax.Array:
    """One array axis for each Ref axis -> the tile (rows, columns), or a scalar."""
    spans = [entry.tile_axis for entry in index if isinstance(entry, Span)]
    data = data.reshape([n for n, entry in zip(data.shape, index, strict=True) if isinstance(entry, Span)])
    if spans == [1, 0]:
        data = data.T
    return data.reshape(_window_shape(index))

"""IR -> `pallas_call`: each op by its jnp function on values, each window by `ref[pl.ds(...)]`.

Arrays come in with margins (`padding`), so windows are never out of range; nibbles come in unpacked, as
bytes. Outputs that are not wholly written are aliased to what they begin as.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from dsl.ir.access import covers, size_of
from dsl.ir.affine import Ranges
from dsl.ir.ops import (
    Access,
    At,
    AtomicAdd,
    Binary,
    Cast,
    Const,
    Dot,
    Full,
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
)
from dsl.ir.types import NIBBLES, RefType, Value
from dsl.lang.arguments import NUMPY_NAME
from dsl.lower.windows import unpack
from dsl.lower.xla_ops import BINARY, DTYPE, REDUCE, UNARY, arrange, window_shape
from dsl.targets.pallas.padding import Margins, margins, reach


def erf_by_polynomial(x: jax.Array) -> jax.Array:
    """erf to 2e-7: Abramowitz and Stegun 7.1.26, for Triton, which has none."""
    size = jnp.abs(x)
    t = 1.0 / (1.0 + 0.3275911 * size)
    tail = 1.061405429 * t - 1.453152027
    for coefficient in (1.421413741, -0.284496736, 0.254829592):
        tail = tail * t + coefficient
    found = 1.0 - tail * t * jnp.exp(-size * size)
    return jnp.where(x < 0, -found, found)


def round_by_adding(x: jax.Array) -> jax.Array:
    """Nearest whole f32, halves to even: 1.5 * 2^23 pushes the fraction out of the mantissa."""
    return jnp.where(jnp.abs(x) < 2.0**22, (x + 12582912.0) - 12582912.0, x)


FOR_TRITON = {"erf": erf_by_polynomial, "round": round_by_adding}


def pallas_function(
    kernel: Kernel, *, interpret: bool, compiler_params: Any = None
) -> Callable[..., tuple[jax.Array, ...]]:
    """A traceable function of the arrays of `kernel.inputs` giving those of `kernel.outputs`."""
    facts = Ranges(kernel)
    around = {ref.name: margins(kernel, facts, ref) for ref in kernel.refs}
    reads = [ref for ref in kernel.refs if ref.role == "in"]
    begun = [ref for ref in kernel.outputs if ref.role == "inout" or not covers(kernel, ref)]

    def body(*memory: Any) -> None:
        named = dict(zip((ref.name for ref in reads), memory, strict=False))
        named |= dict(zip((ref.name for ref in kernel.outputs), memory[-len(kernel.outputs) :], strict=True))
        _Program(kernel, facts, around, named, interpret).block(kernel.body)

    def run(*arrays: jax.Array) -> tuple[jax.Array, ...]:
        given = {ref.name: x for ref, x in zip(kernel.inputs, arrays, strict=True)}
        padded = [_padded(ref, given[ref.name], around[ref.name]) for ref in reads]
        padded += [_begin(ref, given.get(ref.name), around[ref.name]) for ref in begun]
        struct: Any = jax.ShapeDtypeStruct
        call = pl.pallas_call(
            body,
            out_shape=[struct(_wide(ref, around[ref.name]), _dtype(ref)) for ref in kernel.outputs],
            grid=kernel.grid,
            input_output_aliases={len(reads) + n: kernel.outputs.index(ref) for n, ref in enumerate(begun)},
            interpret=interpret,
            compiler_params=compiler_params,
            name=kernel.name,
        )
        found = call(*padded)
        return tuple(_cut(ref, x, around[ref.name]) for ref, x in zip(kernel.outputs, found, strict=True))

    return run


def _dtype(ref: RefType) -> Any:
    return jnp.dtype("int32" if ref.dtype in NIBBLES else NUMPY_NAME[ref.dtype])


def _wide(ref: RefType, around: Margins) -> tuple[int, ...]:
    return tuple(before + extent + after for extent, (before, after) in zip(ref.shape, around, strict=True))


def _padded(ref: RefType, array: jax.Array, around: Margins) -> jax.Array:
    data = unpack(array, ref.dtype) if ref.dtype in NIBBLES else jnp.asarray(array)
    return jnp.pad(data, around) if any(map(any, around)) else data


def _begin(ref: RefType, array: jax.Array | None, around: Margins) -> jax.Array:
    return jnp.zeros(_wide(ref, around), _dtype(ref)) if array is None else _padded(ref, array, around)


def _cut(ref: RefType, array: jax.Array, around: Margins) -> jax.Array:
    inside = tuple(slice(before, before + n) for n, (before, _) in zip(ref.shape, around, strict=True))
    return array[inside] if any(map(any, around)) else array


class _Program:
    """The kernel's body, as Pallas traces it."""

    def __init__(
        self,
        kernel: Kernel,
        facts: Ranges,
        around: dict[str, Margins],
        memory: dict[str, Any],
        interpret: bool,
    ) -> None:
        self.kernel, self.facts, self.around, self.memory = kernel, facts, around, memory
        self.interpret = interpret
        self.values: dict[int, Any] = {}

    def get(self, value: Value) -> Any:
        return self.values[value.id]

    def block(self, body: Sequence[Op]) -> None:
        for op in body:
            match op:
                case Store() | AtomicAdd():
                    self.write(op)
                case Loop():
                    self.loop(op)
                case _:
                    self.values[op.results[0].id] = self.evaluate(op)

    def evaluate(self, op: Op) -> Any:
        match op:
            case Const(result=result, value=value):
                return DTYPE[result.dtype](value)
            case Full(result=result, value=value):
                return jnp.full(result.shape, value, DTYPE[result.dtype])
            case Pid(axis=axis):
                return pl.program_id(axis)
            case Iota(result=result, start=start, axis=axis):
                return self.get(start) + lax.broadcasted_iota(jnp.int32, result.shape, axis)
            case Load():
                return self.load(op)
            case Unary(kind=kind, operand=operand):
                function = UNARY[kind] if self.interpret else FOR_TRITON.get(kind, UNARY[kind])
                return function(self.get(operand))
            case Binary(kind=kind, left=left, right=right):
                return BINARY[kind](self.get(left), self.get(right))
            case Where(condition=condition, left=left, right=right):
                return jnp.where(self.get(condition), self.get(left), self.get(right))
            case Cast(operand=operand, result=result):
                return self.get(operand).astype(DTYPE[result.dtype])
            case Reduce(kind=kind, operand=operand, axis=axis):
                return REDUCE[kind](self.get(operand), axis=axis, keepdims=True)
            case Dot(left=left, right=right, transpose_b=transpose_b):
                other = self.get(right).T if transpose_b else self.get(right)
                return jnp.dot(self.get(left), other, preferred_element_type=jnp.float32)
        raise TypeError(f"unknown op {type(op).__name__}")

    def loop(self, op: Loop) -> None:
        lo, hi = self.get(op.lo), self.get(op.hi)
        if op.max_trip is not None:
            hi = jnp.minimum(hi, lo + op.max_trip)

        def step(j: Any, carried: tuple[Any, ...]) -> tuple[Any, ...]:
            outside = dict(self.values)
            self.values[op.induction.id] = j
            self.values.update(zip((v.id for v in op.carries), carried, strict=True))
            self.block(op.body)
            yields = tuple(self.get(value) for value in op.yields)
            self.values = outside
            return yields

        found = lax.fori_loop(lo, hi, step, tuple(self.get(value) for value in op.init))
        self.values.update(zip((v.id for v in op.finals), found, strict=True))

    def places(self, op: Access) -> tuple[Any, ...]:
        """The index of the window in the padded array."""
        found: list[Any] = []
        for axis, entry in enumerate(op.index):
            window = reach(self.kernel, self.facts, op, axis)
            start = self.get(entry.start)
            if window.clamped:
                start = jnp.clip(start, window.low, window.high)
            start = start + self.around[op.ref][axis][0]
            found.append(start if isinstance(entry, At) else pl.ds(start, entry.size))
        return tuple(found)

    def load(self, op: Load) -> Any:
        data = self.memory[op.ref][self.places(op)]
        # `arrange` takes one axis for each axis of the Ref.
        data = data.reshape([size_of(entry) for entry in op.index])
        found = arrange(data, op.index).astype(DTYPE[op.result.dtype])
        return jnp.where(self.inside(op), found, DTYPE[op.result.dtype](op.other)) if op.other else found

    def inside(self, op: Load) -> Any:
        """Which elements are of the array itself, where the margin's zeros will not do."""
        kept: Any = jnp.full(op.result.shape, True)
        for axis, (entry, extent) in enumerate(zip(op.index, self.kernel.ref(op.ref).shape, strict=True)):
            if not self.facts.window_inside(self.kernel.ref(op.ref), entry, axis):
                place = self.get(entry.start)
                if isinstance(entry, Span):
                    shape = (entry.size, 1) if entry.tile_axis == 0 else (1, entry.size)
                    place = place + lax.broadcasted_iota(jnp.int32, shape, entry.tile_axis)
                kept = kept & (place >= 0) & (place < extent)
        return kept

    def write(self, op: Store | AtomicAdd) -> None:
        dtype = _dtype(self.kernel.ref(op.ref))
        value = jnp.broadcast_to(self.get(op.value), window_shape(op.index)).astype(dtype)
        spans = [entry.tile_axis for entry in op.index if isinstance(entry, Span)]
        value = value.T if spans == [1, 0] else value
        value = value.reshape([entry.size for entry in op.index if isinstance(entry, Span)])
        memory, places = self.memory[op.ref], self.places(op)
        if isinstance(op, Store):
            memory[places] = value
        elif self.interpret:
            memory[places] = memory[places] + value  # programs are interpreted one after another
        else:
            from jax.experimental.pallas import triton

            triton.atomic_add(memory, places, value)

"""How the XLA lowering gets at windows: blocks instead of gathers wherever starts are affine.

A window axis is one of three kinds. *Static*: a slice with padding. *Blocked* by a grid axis or a
vectorised loop: start = constant + stride * coordinate with stride >= size, so a reshape to (n, stride)
makes the coordinate an array axis, which `vmap` then takes apart. *Dynamic*: found at run time, by
dynamic_slice when the window is surely inside a padded array, else by a guarded gather.
"""

from collections.abc import Container
from dataclasses import dataclass
from functools import reduce
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

from dsl.ir.access import size_of
from dsl.ir.affine import Affine, Ranges
from dsl.ir.ops import At, Load, Span
from dsl.ir.types import NIBBLE_GROUP, NIBBLES, RefType

Kind = Literal["static", "blocked", "slice", "gather"]


@dataclass(frozen=True)
class AxisPlan:
    """One Ref axis of a load. `extent` counts coordinates when blocked by `symbol`.

    `start` of a slice is not where it begins, which is dynamic, but the padding that it needs.
    """

    kind: Kind
    size: int
    start: int = 0
    stride: int = 1
    symbol: int = -1
    extent: int = 1


@dataclass(frozen=True)
class LoadPlan:
    """How one load reads its Ref. `bytes_at_once`: nibbles are cut as bytes and unpacked afterwards."""

    axes: tuple[AxisPlan, ...]
    bytes_at_once: bool

    @property
    def symbols(self) -> list[int]:
        return [axis.symbol for axis in self.axes if axis.kind == "blocked"]


def plan_load(op: Load, ref: RefType, facts: Ranges, extents: dict[int, int]) -> LoadPlan:
    """`extents` are the coordinates that may be blocked by (symbol -> count), outermost first."""
    forms = [facts.affine(entry.start) for entry in op.index]
    shape = ref.shape
    packed = ref.dtype in NIBBLES and _whole_groups(forms[-1], size_of(op.index[-1]))
    if packed:
        forms[-1] = _halved(forms[-1])
        shape = ref.stored_shape
    axes, taken = [], set[int]()
    for number, (entry, form) in enumerate(zip(op.index, forms, strict=True)):
        size = size_of(entry)
        if packed and number == len(forms) - 1:
            size //= 2
        plan = _plan_axis(form, size, extents, taken)
        if plan.kind == "blocked":
            taken.add(plan.symbol)
        elif plan.kind == "slice":
            plan = _dynamic(entry, size, shape[number], facts, packed and number == len(forms) - 1)
        axes.append(plan)
    if any(axis.kind == "gather" and axis.size == 1 for axis in axes):
        # A place found in a table, as of a block of keys: an axis taken apart beside it would move the whole
        # Ref, where a gather of windows reads only those.
        axes = [
            _dynamic(entry, axis.size, extent, facts, packed and axis is axes[-1])
            if axis.kind == "blocked"
            else axis
            for entry, axis, extent in zip(op.index, axes, shape, strict=True)
        ]
    return LoadPlan(tuple(axes), packed)


def _whole_groups(form: Affine, size: int) -> bool:
    numbers = [form.constant, size, *form.terms.values()]
    return all(number % NIBBLE_GROUP == 0 for number in numbers)


def _halved(form: Affine) -> Affine:
    return Affine(form.constant // 2, {symbol: factor // 2 for symbol, factor in form.terms.items()})


def _plan_axis(form: Affine, size: int, extents: dict[int, int], taken: set[int]) -> AxisPlan:
    if not form.terms:
        return AxisPlan("static", size, form.constant)
    if len(form.terms) == 1 and form.constant >= 0:
        ((symbol, stride),) = form.terms.items()
        if symbol in extents and symbol not in taken and stride >= size:
            return AxisPlan("blocked", size, form.constant, stride, symbol, extents[symbol])
    return AxisPlan("slice", size)


def _dynamic(entry: At | Span, size: int, extent: int, facts: Ranges, halved: bool) -> AxisPlan:
    """dynamic_slice clamps its start: it serves where that is surely in 0 .. extent, given some padding."""
    low, high = facts.interval(entry.start)
    if high is not None and halved:
        high //= 2
    if low is None or low < 0 or high is None or high > extent:
        return AxisPlan("gather", size)
    return AxisPlan("slice", size, max(0, high + size - extent))


def prepare(array: jax.Array, plan: LoadPlan, other: jax.Array) -> jax.Array:
    """The Ref's array with static axes cut and blocked ones split, each block axis before its window's.

    `vmap` takes block axes from where they lie: nothing is transposed.
    """
    for axis, part in enumerate(plan.axes):
        if part.kind == "static":
            array = cut(array, axis, part.start, part.size, other)
        elif part.kind == "slice":
            array = cut(array, axis, 0, array.shape[axis] + part.start, other)
    position = 0
    for part in plan.axes:
        if part.kind == "blocked":
            array = cut(array, position, part.start, part.extent * part.stride, other)
            shape = (*array.shape[:position], part.extent, part.stride, *array.shape[position + 1 :])
            array = lax.slice_in_dim(array.reshape(shape), 0, part.size, axis=position + 1)
            position += 1
        position += 1
    return array


def place_of(plan: LoadPlan, symbol: int, gone: Container[int]) -> int:
    """Where the block axis of `symbol` is in a prepared array, once those in `gone` have been taken."""
    position = 0
    for part in plan.axes:
        if part.kind == "blocked" and part.symbol == symbol:
            return position
        position += 2 if part.kind == "blocked" and part.symbol not in gone else 1
    raise ValueError("this load is not blocked by the symbol")


def cut(array: jax.Array, axis: int, start: int, size: int, other: jax.Array) -> jax.Array:
    """Elements start .. start + size of an axis, `other` where it has none."""
    extent = array.shape[axis]
    low, high = min(max(start, 0), extent), min(max(start + size, 0), extent)
    array = lax.slice_in_dim(array, low, high, axis=axis)
    before = min(max(-start, 0), size)
    after = size - before - (high - low)
    if before or after:
        pads = [(before, after, 0) if number == axis else (0, 0, 0) for number in range(array.ndim)]
        array = lax.pad(array, other, pads)
    return array


def take(block: jax.Array, plan: LoadPlan, starts: list[jax.Array], other: jax.Array) -> jax.Array:
    """The window, one array axis for each Ref axis, once `vmap` has removed the block axes."""
    sizes = [axis.size for axis in plan.axes]
    places = [jnp.asarray(start, jnp.int32) for start in starts]
    single = [n for n, axis in enumerate(plan.axes) if axis.kind == "gather" and axis.size == 1]
    sliced = {n for n, axis in enumerate(plan.axes) if axis.kind == "slice"}.union(single)
    inside = [(places[n] >= 0) & (places[n] < block.shape[n]) for n in single]
    if sliced:
        at = [places[n] if n in sliced else jnp.int32(0) for n in range(block.ndim)]
        kept = [sizes[n] if n in sliced else size for n, size in enumerate(block.shape)]
        block = lax.dynamic_slice(block, at, kept)
    if inside:
        block = jnp.where(reduce(jnp.logical_and, inside), block, other)
    for number, axis in enumerate(plan.axes):
        if axis.kind == "gather" and axis.size > 1:
            run = places[number] + jnp.arange(axis.size, dtype=jnp.int32)
            found = (run >= 0) & (run < block.shape[number])
            block = jnp.take(block, jnp.clip(run, 0, block.shape[number] - 1), axis=number)
            shape = [sizes[number] if n == number else 1 for n in range(block.ndim)]
            block = jnp.where(found.reshape(shape), block, other)
    return block


def unpack(data: jax.Array, dtype: str) -> jax.Array:
    """Bytes (..., n / 2) -> int32 (..., n): see `dsl.ir` for the order."""
    shifts = jnp.array([[0], [4]], jnp.uint8)  # no concatenation: so XLA fuses it into what comes next
    groups = data.reshape(*data.shape[:-1], -1, 1, 16) if data.shape[-1] > 16 else data[..., None, :]
    both = ((groups >> shifts) & 15).astype(jnp.int32).reshape(*data.shape[:-1], data.shape[-1] * 2)
    return jnp.where(both > 7, both - 16, both) if dtype == "i4" else both

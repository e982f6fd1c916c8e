"""From what all programs stored to whole arrays: reshapes where windows tile the output, else a scatter."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from dsl.ir.access import size_of
from dsl.ir.affine import Ranges
from dsl.ir.ops import AtomicAdd, Index, Span, Store
from dsl.ir.types import RefType
from dsl.lang.arguments import NUMPY_NAME
from dsl.lower.windows import cut


@dataclass(frozen=True)
class Axis:
    """A leading axis of stored data: a grid axis or a loop. `symbol` is -1 where it is not an affine one."""

    symbol: int
    extent: int


@dataclass(frozen=True)
class Written:
    """One store or atomic add of all programs.

    `value` is (*axes, *window), `starts` (*axes, rank of the Ref), `valid` (*axes): was it reached.
    """

    op: Store | AtomicAdd
    axes: Sequence[Axis]
    value: jax.Array
    starts: jax.Array
    valid: jax.Array


def assemble(facts: Ranges, ref: RefType, initial: jax.Array | None, found: Sequence[Written]) -> jax.Array:
    """The output array `ref`, from the writes to it; `initial` is what an inout Ref begins as."""
    mine = [written for written in found if written.op.ref == ref.name]
    base = initial
    for written in mine:
        blocks = None if isinstance(written.op, AtomicAdd) else _blocks(facts, ref, written)
        if blocks is not None and base is None and len(mine) == 1:
            base = blocks[0]
            for axis, begin in enumerate(blocks[1]):
                base = cut(base, axis, -begin, ref.shape[axis], jnp.zeros((), base.dtype))
        else:
            start = jnp.zeros(ref.shape, NUMPY_NAME[ref.dtype]) if base is None else base
            base = _placed(start, ref, blocks) if blocks is not None else _scattered(start, ref, written)
    assert base is not None, "verified kernels write every output"
    return base


def _blocks(facts: Ranges, ref: RefType, written: Written) -> tuple[jax.Array, list[int]] | None:
    """The windows side by side in one array, and where it begins; None when they do not tile."""
    places: dict[int, int] = {}
    offsets: list[int] = []
    for number, entry in enumerate(written.op.index):
        form = facts.affine(entry.start)
        offsets.append(form.constant)
        if form.constant < 0 or len(form.terms) > 1:
            return None
        for symbol, stride in form.terms.items():
            position = next((n for n, axis in enumerate(written.axes) if axis.symbol == symbol), None)
            if position is None or position in places or stride != size_of(entry):
                return None
            places[position] = number
    if any(axis.extent > 1 and n not in places for n, axis in enumerate(written.axes)):
        return None
    return _tiled(written, places), offsets


def _tiled(written: Written, places: dict[int, int]) -> jax.Array:
    leading = len(written.axes)
    sizes = [size_of(entry) for entry in written.op.index]
    single = [n for n in range(leading) if n not in places]
    value = _by_ref_axis(written.value, written.op.index, leading)
    value = lax.squeeze(value, single)
    kept = [n for n in range(leading) if n in places]
    order: list[int] = []
    for axis in range(len(sizes)):
        order += [kept.index(n) for n in kept if places[n] == axis]
        order.append(len(kept) + axis)
    value = jnp.transpose(value, order)
    counts = [
        next((written.axes[n].extent for n in kept if places[n] == axis), 1) for axis in range(len(sizes))
    ]
    return value.reshape([count * size for count, size in zip(counts, sizes, strict=True)])


def _by_ref_axis(value: jax.Array, index: Index, leading: int) -> jax.Array:
    """(*leading, *window) -> (*leading, one axis for each Ref axis)."""
    spans = [entry.tile_axis for entry in index if isinstance(entry, Span)]
    if spans == [1, 0]:
        value = jnp.swapaxes(value, -1, -2)
    return value.reshape(*value.shape[:leading], *(size_of(entry) for entry in index))


def _placed(base: jax.Array, ref: RefType, blocks: tuple[jax.Array, list[int]]) -> jax.Array:
    data, starts = blocks
    for axis, start in enumerate(starts):
        data = cut(data, axis, 0, min(data.shape[axis], ref.shape[axis] - start), jnp.zeros((), data.dtype))
    where: tuple[Any, ...] = tuple(slice(s, s + n) for s, n in zip(starts, data.shape, strict=True))
    return base.at[where].set(data)


def _scattered(base: jax.Array, ref: RefType, written: Written) -> jax.Array:
    leading, rank = len(written.axes), len(ref.shape)
    value = _by_ref_axis(written.value, written.op.index, leading)
    inside = written.valid.reshape(*written.valid.shape, *[1] * rank)
    places = []
    for axis, entry in enumerate(written.op.index):
        shape = [size_of(entry) if n == axis else 1 for n in range(rank)]
        start = written.starts[..., axis].reshape(*written.valid.shape, *[1] * rank)
        place = start + jnp.arange(size_of(entry), dtype=jnp.int32).reshape(shape)
        inside = inside & (place >= 0) & (place < ref.shape[axis])
        places.append(place)
    # Negative positions would count from the end: send all that is outside beyond the last element.
    full = [jnp.where(inside, place, ref.shape[axis]) for axis, place in enumerate(places)]
    target = base.at[tuple(jnp.broadcast_to(place, value.shape) for place in full)]
    if isinstance(written.op, AtomicAdd):
        return target.add(value, mode="drop")
    return target.set(value, mode="drop", unique_indices=False)

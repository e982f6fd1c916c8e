"""From what all programs stored to whole arrays: reshapes where windows tile the output, else a scatter."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from dsl.ir.access import size_of
from dsl.ir.affine import Ranges
from dsl.ir.ops import At, AtomicAdd, Index, Span, Store
from dsl.ir.types import RefType
from dsl.lang.arguments import NUMPY_NAME
from dsl.lower.windows import cut


@dataclass(frozen=True)
class Axis:
    """A leading axis of stored data: a grid axis or a loop.

    Attributes:
        symbol: of its affine forms, or -1 where it has none.
        extent: how many programs or passes.
        certain: False for a loop that some programs may leave earlier.
    """

    symbol: int
    extent: int
    certain: bool = True


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


Blocks: TypeAlias = tuple[jax.Array, list[int]]
"""The windows of a write side by side in one array, and where on each Ref axis it begins."""


def assemble(facts: Ranges, ref: RefType, initial: jax.Array | None, found: Sequence[Written]) -> jax.Array:
    """The output array `ref`, from the writes to it; `initial` is what an inout Ref begins as."""
    mine = [written for written in found if written.op.ref == ref.name]
    tiled = [None if isinstance(w.op, AtomicAdd) else _blocks(facts, ref, w) for w in mine]
    joined = _joined(ref, tiled) if initial is None else None
    if joined is not None:
        return joined
    base = jnp.zeros(ref.shape, NUMPY_NAME[ref.dtype]) if initial is None else initial
    for written, blocks in zip(mine, tiled, strict=True):
        base = _scattered(facts, base, ref, written) if blocks is None else _placed(base, ref, blocks)
    return base


def _joined(ref: RefType, tiled: Sequence[Blocks | None]) -> jax.Array | None:
    """The whole output, when each write tiles a part and the parts lie side by side along one axis."""
    parts = [blocks for blocks in tiled if blocks is not None]
    if len(parts) < len(tiled) or not parts:
        return None
    axes = [n for n in range(len(ref.shape)) if len({starts[n] for _, starts in parts}) > 1]
    if len(axes) > 1:
        return None
    axis = axes[0] if axes else 0
    parts = sorted(parts, key=lambda part: part[1][axis])
    lows = [0, *(starts[axis] for _, starts in parts[1:])]
    highs = [*lows[1:], ref.shape[axis]]
    shares = [_share(ref, part, axis, low, high) for part, low, high in zip(parts, lows, highs, strict=True)]
    return shares[0] if len(shares) == 1 else jnp.concatenate(shares, axis)


def _share(ref: RefType, part: Blocks, axis: int, low: int, high: int) -> jax.Array:
    """One write's share of the output: low .. high of `axis`, all of the others; zero where unwritten."""
    data, starts = part
    for number, begin in enumerate(starts):
        first, last = (low, high) if number == axis else (0, ref.shape[number])
        data = cut(data, number, first - begin, last - first, jnp.zeros((), data.dtype))
    return data


def _blocks(facts: Ranges, ref: RefType, written: Written) -> Blocks | None:
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
    if any(not axis.certain or (axis.extent > 1 and n not in places) for n, axis in enumerate(written.axes)):
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


def _placed(base: jax.Array, ref: RefType, blocks: Blocks) -> jax.Array:
    data, starts = blocks
    for axis, start in enumerate(starts):
        data = cut(data, axis, 0, min(data.shape[axis], ref.shape[axis] - start), jnp.zeros((), data.dtype))
    where: tuple[Any, ...] = tuple(slice(s, s + n) for s, n in zip(starts, data.shape, strict=True))
    return base.at[where].set(data)


def _scattered(facts: Ranges, base: jax.Array, ref: RefType, written: Written) -> jax.Array:
    """One scatter; axes whose window is surely inside and starts at a constant are copied as slices."""
    rank, lead = len(ref.shape), written.valid.shape
    moving = [n for n, entry in enumerate(written.op.index) if not _is_slice(facts, ref, n, entry)] or [0]
    inside = written.valid.reshape(*lead, *[1] * len(moving))
    places = []
    for number, axis in enumerate(moving):
        size = size_of(written.op.index[axis])
        shape = [size if n == number else 1 for n in range(len(moving))]
        start = written.starts[..., axis].reshape(*lead, *[1] * len(moving))
        place = start + jnp.arange(size, dtype=jnp.int32).reshape(shape)
        inside = inside & (place >= 0) & (place < ref.shape[axis])
        places.append(place)
    # Negative positions would count from the end: send all that is outside beyond the last element.
    target = [jnp.where(inside, place, ref.shape[axis]) for axis, place in zip(moving, places, strict=True)]
    still = [n for n in range(rank) if n not in moving]
    value = _by_ref_axis(written.value, written.op.index, len(lead))
    value = jnp.moveaxis(value, [len(lead) + n for n in moving], range(len(lead), len(lead) + len(moving)))
    slices = [_constant_slice(facts, written.op.index[n]) for n in still]
    turned = jnp.transpose(base, moving + still).at[(*target, *slices)]
    atomic = isinstance(written.op, AtomicAdd)
    found = turned.add(value, mode="drop") if atomic else turned.set(value, mode="drop")
    return jnp.transpose(found, [(moving + still).index(n) for n in range(rank)])


def _is_slice(facts: Ranges, ref: RefType, axis: int, entry: At | Span) -> bool:
    return not facts.affine(entry.start).terms and facts.window_inside(ref, entry, axis)


def _constant_slice(facts: Ranges, entry: At | Span) -> slice:
    start = facts.affine(entry.start).constant
    return slice(start, start + size_of(entry))

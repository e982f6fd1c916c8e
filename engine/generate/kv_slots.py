"""Keys and values of several sequences in rows of one contiguous cache, and attention over them.

The arrays are no longer than the longest live sequence needs, rounded up to a bucket, and have no
more rows than are live, rounded up: so attention costs what is live, with static shapes and without
a gather. `Rows` is all that the decoder's caller sees; a paged pool can take its place.

Keys lie transposed, (row, kv_head, dim, position): the scores are then a plain matrix product,
which on a CPU is 1.5 times faster with four rows than (row, kv_head, position, dim). float32, as
XLA's CPU compiler reads float16 keys four times slower with four rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from engine.generate.programs import abstract
from engine.models.decoder import Attend, DecoderConfig
from engine.ops.activations import softcap
from engine.ops.attention import causal_mask
from engine.ops.dispatch import native_decode_attention

SLOTS = (1, 4, 8, 16, 32, 64)
"""Row counts. Without 2: a step of two rows costs what a step of four does (51 and 54 ms in int8)."""

Layer: TypeAlias = tuple[jax.Array, jax.Array]
"""keys (rows, kv_heads, head_dim, length) and values (rows, kv_heads, length, head_dim)."""
Cache: TypeAlias = list[Layer]

_MASKED = -1e30


def lengths_up_to(context: int) -> tuple[int, ...]:
    """Cache lengths for sequences of up to `context` tokens: 256, 512, ..., all multiples of 64."""
    longest = -(-context // 64) * 64
    doubling = (256 << n for n in range(24))
    return (*(length for length in doubling if length * 1.25 < longest), longest)


def bucket(size: int, sizes: Sequence[int]) -> int:
    """The smallest of `sizes` (ascending) that holds `size`."""
    return next(candidate for candidate in sizes if candidate >= size)


@dataclass(frozen=True)
class CacheShape:
    layers: int
    kv_heads: int
    head_dim: int

    def layer(self, rows: int, length: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return (rows, self.kv_heads, self.head_dim, length), (rows, self.kv_heads, length, self.head_dim)

    def empty(self, rows: int, length: int) -> Cache:
        keys, values = self.layer(rows, length)
        return [(_zeros(keys), _zeros(values)) for _ in range(self.layers)]

    def abstract(self, rows: int, length: int) -> list[tuple[Any, Any]]:
        """Shapes alone, for compiling ahead of time."""
        keys, values = (abstract(shape, jnp.float32) for shape in self.layer(rows, length))
        return [(keys, values)] * self.layers

    def nbytes(self, rows: int, length: int) -> int:
        return 8 * self.layers * rows * self.kv_heads * self.head_dim * length


def prefill_attend(config: DecoderConfig, start: jax.Array) -> Attend:
    """Attention of T tokens of one sequence at positions start.. over a cache of one row.

    `state` is the `Cache`; what lies after each token is masked, so stale entries do not matter.
    """

    def attend(layer: int, q: jax.Array, k: jax.Array, v: jax.Array, state: Cache) -> tuple[jax.Array, Cache]:
        keys, values = state[layer]
        keys = jax.lax.dynamic_update_slice(keys, k.transpose(0, 2, 3, 1), (0, 0, 0, start))
        values = jax.lax.dynamic_update_slice(values, v.transpose(0, 2, 1, 3), (0, 0, start, 0))
        positions = start + jnp.arange(q.shape[1])[None]
        out = _attention(q, keys, values, positions, config.window(layer), config.attn_softcap)
        return out, _replaced(state, layer, (keys, values))

    return attend


def decode_attend(config: DecoderConfig, positions: jax.Array) -> Attend:
    """Attention of one token a row, at positions Int [rows], over a cache of as many rows."""

    def attend(layer: int, q: jax.Array, k: jax.Array, v: jax.Array, state: Cache) -> tuple[jax.Array, Cache]:
        keys, values = state[layer]
        for row in range(q.shape[0]):
            at = positions[row]
            keys = jax.lax.dynamic_update_slice(keys, k[row, 0, None, :, :, None], (row, 0, 0, at))
            values = jax.lax.dynamic_update_slice(values, v[row, 0, None, :, None, :], (row, 0, at, 0))
        out = _attend_once(q, keys, values, positions, config.window(layer), config.attn_softcap)
        return out, _replaced(state, layer, (keys, values))

    return attend


@partial(jax.jit, static_argnums=(4, 5))
def _attend_once(
    q: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    positions: jax.Array,
    window: int | None,
    cap: float | None,
) -> jax.Array:
    """`_attention` of one token a row at positions [B], by a native kernel where there is one."""
    if cap is None:
        found = native_decode_attention(q[:, 0], keys, values, positions + 1, window)
        if found is not None:
            return found[:, None]
    portable: jax.Array = _attention(q, keys, values, positions[:, None], window, cap)
    return portable


@partial(jax.jit, static_argnums=(4, 5))
def _attention(
    q: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    positions: jax.Array,
    window: int | None,
    cap: float | None,
) -> jax.Array:
    """q [B,T,H,D] at positions [B,T] over a cache of B rows -> [B,T,H,D].

    A jit of its own, so that it is traced once for all layers with one window, and not once a layer.
    """
    batch, queries, heads, dim = q.shape
    kv_heads, length = keys.shape[1], keys.shape[3]
    group = heads // kv_heads
    grouped = q.reshape(batch, queries, kv_heads, group, dim).transpose(0, 2, 3, 1, 4) * dim**-0.5
    scores = grouped.reshape(batch, kv_heads, group * queries, dim) @ keys
    if cap is not None:
        scores = softcap(scores, cap)
    scores = scores.reshape(batch, kv_heads, group, queries, length)
    seen = causal_mask(positions, length, window)
    weights = jax.nn.softmax(jnp.where(seen[:, None, None], scores, _MASKED), axis=-1)
    out = weights.reshape(batch, kv_heads, group * queries, length) @ values
    out = out.reshape(batch, kv_heads, group, queries, dim).transpose(0, 3, 1, 2, 4)
    return out.reshape(batch, queries, heads, dim)


def _replaced(cache: Cache, index: int, layer: Layer) -> Cache:
    return [*cache[:index], layer, *cache[index + 1 :]]


class Rows:
    """The decode batch's cache: which slot has which row, and arrays just large enough.

    Rows of live slots are 0..n-1: when one leaves, the last takes its place. Not thread-safe.
    """

    def __init__(self, shape: CacheShape, lengths: Sequence[int]) -> None:
        self._shape = shape
        self._lengths = lengths
        self.cache: Cache = []
        self.slots: list[int] = []
        self.rows = 0
        self.length = 0

    def row(self, slot: int) -> int:
        return self.slots.index(slot)

    def insert(self, slot: int, one: Cache) -> None:
        """Copies the single row of `one` into a new row for `slot`."""
        self.slots.append(slot)
        self.fit(one[0][0].shape[3])
        row = self.row(slot)
        pairs = zip(self.cache, one, strict=True)
        self.cache = [(_put(k, k1, row), _put(v, v1, row)) for (k, v), (k1, v1) in pairs]

    def remove(self, slot: int) -> None:
        """Forgets `slot`; nothing happens if it has no row."""
        if slot not in self.slots:
            return
        row, last = self.row(slot), len(self.slots) - 1
        if row != last:
            self.cache = [(_move(k, last, row), _move(v, last, row)) for k, v in self.cache]
            self.slots[row] = self.slots[last]
        self.slots.pop()

    def clear(self) -> None:
        self.cache, self.slots, self.rows, self.length = [], [], 0, 0

    def fit(self, needed: int) -> None:
        """Gives the arrays a row for each live slot and at least `needed` positions.

        Length shrinks only when a quarter would do: a sequence at a boundary must not make the
        arrays go back and forth.
        """
        rows, length = bucket(max(len(self.slots), 1), SLOTS), bucket(needed, self._lengths)
        if length * 4 > self.length:
            length = max(length, self.length)
        if (rows, length) == (self.rows, self.length):
            return
        keys, values = self._shape.layer(rows, length)
        if self.cache:
            self.cache = [(_resized(k, keys), _resized(v, values)) for k, v in self.cache]
        else:
            self.cache = self._shape.empty(rows, length)
        self.rows, self.length = rows, length


def warm_moves(shape: CacheShape, rows: Sequence[int], lengths: Sequence[int]) -> None:
    """Compiles the copies between caches of these sizes (ascending), by making them once."""
    sizes = [(count, length) for count in rows for length in lengths]
    for count, length in sizes:
        for part in (0, 1):
            old = shape.layer(count, length)[part]
            _move(_zeros(old), 0, 0)
            for target in sizes:
                new = shape.layer(*target)[part]
                if target[0] >= count and target[1] >= length:
                    _put(_zeros(new), _zeros(old), 0)
                elif target[0] < count and target[1] == length:
                    _cut(_zeros(old), new)


def _zeros(shape: tuple[int, ...]) -> jax.Array:
    # From the host: jnp.zeros would compile a program for each shape.
    zeros: jax.Array = jax.device_put(np.zeros(shape, np.float32))
    return zeros


def _resized(cache: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """`cache` cut or filled up with zeros, at the end of each axis, to `shape`."""
    smaller = tuple(map(min, cache.shape, shape))
    kept = cache if smaller == cache.shape else _cut(cache, smaller)
    return kept if smaller == shape else _put(_zeros(shape), kept, 0)


@partial(jax.jit, donate_argnums=0)
def _put(cache: jax.Array, one: jax.Array, row: int) -> jax.Array:
    return jax.lax.dynamic_update_slice(cache, one, (row, 0, 0, 0))


@partial(jax.jit, donate_argnums=0)
def _move(cache: jax.Array, source: int, target: int) -> jax.Array:
    row = jax.lax.dynamic_slice_in_dim(cache, source, 1)
    return jax.lax.dynamic_update_slice_in_dim(cache, row, target, 0)


@partial(jax.jit, static_argnums=1)
def _cut(cache: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return cache[tuple(map(slice, shape))]

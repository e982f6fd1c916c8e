"""Keys and values of all sequences in blocks of one pool on the device, and attention through tables.

A table lists the blocks of one sequence in the order of its positions. Block `SCRATCH` belongs to
nobody: padding writes there. Keys of a block lie transposed, (kv_head, dim, position): then a row of
scores is a sum of rows, 1.4 to 2 times faster on a CPU. float32 there, as XLA's CPU compiler reads
float16 keys four times slower; bfloat16 beside weights of that.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from engine.generate.programs import abstract
from engine.models.decoder import Attend, DecoderConfig
from engine.ops.paged_attention import cached_attention, paged_attention

BLOCK = 32
"""Positions of a block."""
SCRATCH = 0

Layer: TypeAlias = tuple[jax.Array, jax.Array]
"""keys (blocks, kv_heads, head_dim, BLOCK) and values (blocks, kv_heads, BLOCK, head_dim)."""
Pool: TypeAlias = list[Layer]


def lengths_up_to(context: int) -> tuple[int, ...]:
    """Table lengths, in positions, for sequences of up to `context`: 256, 512, ..., multiples of 128."""
    longest = -(-context // 128) * 128
    doubling = (256 << n for n in range(24))
    return (*(length for length in doubling if length * 1.25 < longest), longest)


def blocks_for(tokens: int) -> int:
    """How many blocks hold `tokens` positions."""
    return -(-tokens // BLOCK)


@dataclass(frozen=True)
class PoolShape:
    """`blocks` counts the scratch block too; `dtype` is float32 or bfloat16."""

    layers: int
    kv_heads: int
    head_dim: int
    blocks: int
    dtype: DTypeLike = jnp.float32

    @property
    def block_bytes(self) -> int:
        numbers = self.layers * self.kv_heads * self.head_dim * BLOCK
        return 2 * numbers * jnp.dtype(self.dtype).itemsize

    def empty(self) -> Pool:
        keys, values = self._layer()
        return [(jnp.zeros(keys, self.dtype), jnp.zeros(values, self.dtype)) for _ in range(self.layers)]

    def abstract(self) -> list[tuple[Any, Any]]:
        """Shapes alone, for compiling ahead of time."""
        keys, values = (abstract(shape, self.dtype) for shape in self._layer())
        return [(keys, values)] * self.layers

    def _layer(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        outer = (self.blocks, self.kv_heads)
        return (*outer, self.head_dim, BLOCK), (*outer, BLOCK, self.head_dim)


def prefill_attend(config: DecoderConfig, start: jax.Array, table: jax.Array) -> Attend:
    """Attention of T tokens of one sequence at positions start.., both multiples of BLOCK.

    `state` is the `Pool`; table Int [W] covers start + T positions. What lies after each token is
    masked, so what its blocks held before does not matter.
    """

    def attend(layer: int, q: jax.Array, k: jax.Array, v: jax.Array, state: Pool) -> tuple[jax.Array, Pool]:
        keys, values = state[layer]
        k, v = k.astype(keys.dtype), v.astype(values.dtype)
        for index in range(q.shape[1] // BLOCK):
            at = (table[start // BLOCK + index], 0, 0, 0)
            part = slice(index * BLOCK, (index + 1) * BLOCK)
            keys = jax.lax.dynamic_update_slice(keys, k[:, part].transpose(0, 2, 3, 1), at)
            values = jax.lax.dynamic_update_slice(values, v[:, part].transpose(0, 2, 1, 3), at)
        positions = start + jnp.arange(q.shape[1])[None]
        window, cap = config.window(layer), config.attn_softcap
        out = cached_attention(q, keys, values, table[None], positions, window, cap)
        return out, _replaced(state, layer, (keys, values))

    return attend


def decode_attend(config: DecoderConfig, positions: jax.Array, tables: jax.Array) -> Attend:
    """Attention of one token a row, at positions Int [R], through tables Int [R,W].

    Several rows may belong to one sequence, at positions one after the other: all keys are written
    before any row looks.
    """

    def attend(layer: int, q: jax.Array, k: jax.Array, v: jax.Array, state: Pool) -> tuple[jax.Array, Pool]:
        keys, values = _written(state[layer], k[:, 0], v[:, 0], positions, tables)
        window, cap = config.window(layer), config.attn_softcap
        out = paged_attention(q[:, 0], keys, values, tables, positions + 1, window, cap)
        return out[:, None], _replaced(state, layer, (keys, values))

    return attend


def _written(layer: Layer, k: jax.Array, v: jax.Array, positions: jax.Array, tables: jax.Array) -> Layer:
    """The layer with k and v [R, kv_heads, head_dim] at positions [R] of the rows' tables.

    Row by row on a CPU, which is faster there than a scatter; a GPU would launch a kernel for each.
    """
    keys, values = layer
    k, v = k.astype(keys.dtype), v.astype(values.dtype)
    if jax.default_backend() != "cpu":
        blocks = jnp.take_along_axis(tables, positions[:, None] // BLOCK, axis=1)[:, 0]
        offsets = positions % BLOCK
        return keys.at[blocks, :, :, offsets].set(k), values.at[blocks, :, offsets].set(v)
    for row in range(k.shape[0]):
        block, offset = tables[row, positions[row] // BLOCK], positions[row] % BLOCK
        keys = jax.lax.dynamic_update_slice(keys, k[row, None, :, :, None], (block, 0, 0, offset))
        values = jax.lax.dynamic_update_slice(values, v[row, None, :, None, :], (block, 0, offset, 0))
    return keys, values


def _replaced(pool: Pool, index: int, layer: Layer) -> Pool:
    return [*pool[:index], layer, *pool[index + 1 :]]

"""Unpacked nibbles as two arrays, of the low and of the high ones of each group of 32.

Putting them in order costs XLA's CPU compiler several times what unpacking does, as its loop no longer
runs over whole vectors of bytes. Elementwise ops and sums need no order, so it waits until one asks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from dsl.ir.types import NIBBLE_GROUP

HALF = NIBBLE_GROUP // 2


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Halves:
    """A tile (rows, columns): `low` (rows, columns / 2) has columns 0 .. 15 of each group of 32."""

    low: jax.Array
    high: jax.Array

    @property
    def ordered(self) -> jax.Array:
        """(rows, columns)."""
        groups = (*self.low.shape[:-1], -1, HALF)
        both = jnp.stack([self.low.reshape(groups), self.high.reshape(groups)], -2)
        return both.reshape(*self.low.shape[:-1], -1)


def unpack_halves(data: jax.Array, dtype: str) -> Halves:
    """Bytes (rows, columns / 2) -> int32."""

    def wide(nibbles: jax.Array) -> jax.Array:
        found = nibbles.astype(jnp.int32)
        return jnp.where(found > 7, found - 16, found) if dtype == "i4" else found

    return Halves(wide(data & 15), wide(data >> 4))


def ordered(value: Any) -> Any:
    """The tile itself, whatever it is kept as."""
    return value.ordered if isinstance(value, Halves) else value


def elementwise(f: Callable[..., Any], *operands: Any) -> Any:
    """`f` of tiles and of what broadcasts to them; in halves where an operand is."""
    if not any(isinstance(operand, Halves) for operand in operands):
        return f(*operands)
    both = [split(operand) for operand in operands]
    return Halves(f(*(low for low, _ in both)), f(*(high for _, high in both)))


def split(value: Any) -> tuple[Any, Any]:
    """Low and high halves; twice the same for what broadcasts along columns."""
    if isinstance(value, Halves):
        return value.low, value.high
    if jnp.ndim(value) == 0 or value.shape[-1] == 1:
        return value, value
    groups = value.reshape(*value.shape[:-1], -1, 2, HALF)
    flat = (*value.shape[:-1], value.shape[-1] // 2)
    return groups[..., 0, :].reshape(flat), groups[..., 1, :].reshape(flat)

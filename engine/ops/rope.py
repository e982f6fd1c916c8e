"""Rotary position embedding (Su et al., 2021), in the half-split order of Hugging Face checkpoints."""

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

RopeKind: TypeAlias = Literal["default", "linear", "llama3", "factors"]


@dataclass(frozen=True)
class RopeConfig:
    """How angles grow with the position.

    Attributes:
        dim: rotated numbers of a head; even.
        theta: base of the geometric series of frequencies.
        kind: "default"; "linear" divides each frequency by `factor`; "llama3" divides the low ones
            and blends in between (Llama 3.1); "factors" divides each by its own number, as GGUF's
            `rope_freqs` tensor asks.
        low_freq_factor, high_freq_factor, original_context: of "llama3".
        factors: of "factors"; dim // 2 numbers.
    """

    dim: int
    theta: float
    kind: RopeKind = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8192
    factors: tuple[float, ...] = ()


def frequencies(config: RopeConfig) -> NDArray[np.float32]:
    """Radians per position, (dim // 2,) float32, computed in float64."""
    exponents = np.arange(0, config.dim, 2, dtype=np.float64) / config.dim
    plain = config.theta**-exponents
    if config.kind == "linear":
        plain = plain / config.factor
    elif config.kind == "factors":
        plain = plain / np.asarray(config.factors, dtype=np.float64)
    elif config.kind == "llama3":
        plain = _llama3(plain, config)
    return plain.astype(np.float32)


def _llama3(plain: NDArray[np.float64], config: RopeConfig) -> NDArray[np.float64]:
    """Keeps short wavelengths, divides long ones by `factor`, blends linearly between the two."""
    turns = config.original_context * plain / (2 * math.pi)
    low, high = config.low_freq_factor, config.high_freq_factor
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
    blended: NDArray[np.float64] = kept * plain + (1 - kept) * plain / config.factor
    return blended


def rope_tables(config: RopeConfig, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cosines and sines, each float32 (batch, seq, 1, dim // 2), for positions Int (batch, seq)."""
    angles = positions[..., None].astype(jnp.float32) * frequencies(config)
    return jnp.cos(angles)[:, :, None], jnp.sin(angles)[:, :, None]


def apply_rope(x: jax.Array, tables: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Rotates x (batch, seq, heads, dim): number i pairs with number i + dim // 2."""
    cos, sin = tables
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)

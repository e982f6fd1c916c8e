"""Rotary position embedding (Su et al., 2021), in the half-split order of Hugging Face checkpoints.

Frequencies are chosen once for a length (`for_length`) and hold for the whole sequence: keys rotated
with other frequencies than the queries that read them would be at no definite distance.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

RopeKind: TypeAlias = Literal["default", "linear", "dynamic", "llama3", "yarn", "factors"]


@dataclass(frozen=True)
class RopeConfig:
    """How angles grow with the position.

    Attributes:
        dim: rotated numbers of a head, its first ones; even. The rest pass through.
        theta: base of the geometric series of frequencies.
        kind: "default"; "linear" divides each frequency by `factor`; "dynamic" raises theta for
            sequences beyond `original_context` (NTK-aware); "llama3" divides the low frequencies
            and blends in between (Llama 3.1); "yarn" does so by place in the series (Peng et al.,
            2023); "factors" divides each by its own number (LongRoPE, GGUF's `rope_freqs`).
        low_freq_factor, high_freq_factor: turns within `original_context` below which a frequency is
            divided and above which it is kept: "llama3", and the beta_slow and beta_fast of "yarn".
        original_context: tokens of the first training, before the context was stretched.
        factors, long_factors: of "factors", dim // 2 numbers; the long ones, where there are any,
            are for sequences beyond `original_context`.
        scale: what cosines and sines are multiplied by ("yarn" and LongRoPE).
        whole_steps: "yarn" rounds the ends of its ramp to places of the series.
    """

    dim: int
    theta: float
    kind: RopeKind = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8192
    factors: tuple[float, ...] = ()
    long_factors: tuple[float, ...] = ()
    scale: float = 1.0
    whole_steps: bool = True


def for_length(config: RopeConfig, length: int) -> RopeConfig:
    """The settings for sequences of up to `length` tokens; the same for most kinds."""
    if length <= config.original_context:
        return config
    if config.kind == "factors" and config.long_factors:
        return replace(config, factors=config.long_factors)
    if config.kind == "dynamic":
        stretch = config.factor * length / config.original_context - (config.factor - 1)
        return replace(config, theta=config.theta * stretch ** (config.dim / (config.dim - 2)))
    return config


def frequencies(config: RopeConfig) -> NDArray[np.float32]:
    """Radians per position, (dim // 2,) float32, computed in float64."""
    exponents = np.arange(0, config.dim, 2, dtype=np.float64) / config.dim
    plain = config.theta**-exponents
    if config.kind == "linear":
        plain = plain / config.factor
    elif config.kind == "factors":
        plain = plain / np.asarray(config.factors, dtype=np.float64)
    elif config.kind == "llama3":
        plain = _blend(plain, config, _llama3_kept(plain, config))
    elif config.kind == "yarn":
        plain = _blend(plain, config, _yarn_kept(config))
    return plain.astype(np.float32)


def _blend(plain: NDArray[np.float64], config: RopeConfig, kept: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each frequency as it is where `kept` is 1, divided by `factor` where it is 0."""
    blended: NDArray[np.float64] = kept * plain + (1 - kept) * plain / config.factor
    return blended


def _llama3_kept(plain: NDArray[np.float64], config: RopeConfig) -> NDArray[np.float64]:
    """1 for short wavelengths, 0 for long ones, linear in the number of turns between."""
    turns = config.original_context * plain / (2 * math.pi)
    low, high = config.low_freq_factor, config.high_freq_factor
    return np.clip((turns - low) / (high - low), 0.0, 1.0)


def _yarn_kept(config: RopeConfig) -> NDArray[np.float64]:
    """1 for the first places of the series, 0 for the last, linear in the place between."""

    def place(turns: float) -> float:
        wavelengths = config.original_context / (turns * 2 * math.pi)
        return config.dim * math.log(wavelengths) / (2 * math.log(config.theta))

    start, end = place(config.high_freq_factor), place(config.low_freq_factor)
    if config.whole_steps:
        start, end = math.floor(start), math.ceil(end)
    start, end = max(start, 0), min(end, config.dim - 1)
    ramp = (np.arange(config.dim // 2, dtype=np.float64) - start) / (end - start or 1e-3)
    return 1 - np.clip(ramp, 0.0, 1.0)


def rope_tables(config: RopeConfig, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cosines and sines, each float32 (batch, seq, 1, dim // 2), for positions Int (batch, seq)."""
    angles = positions[..., None].astype(jnp.float32) * frequencies(config)
    return jnp.cos(angles)[:, :, None] * config.scale, jnp.sin(angles)[:, :, None] * config.scale


def apply_rope(x: jax.Array, tables: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Rotates the first `dim` numbers of x (batch, seq, heads, head_dim): i pairs with i + dim // 2."""
    cos, sin = tables
    half = cos.shape[-1]
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    turned = [first * cos - second * sin, second * cos + first * sin]
    return jnp.concatenate([*turned, rest] if rest.shape[-1] else turned, axis=-1)

"""Chooses the next token of every row of a batch, on the device, by each row's own parameters.

Order, as in vLLM: penalties, temperature, top-k, top-p over what top-k left, min-p. Nothing is
sorted: the k-th largest logit and the nucleus' smallest one are found exactly by bisection over the
bits of float32 (0.5 ms a row of 49k tokens on a CPU, where a sort takes 9 ms). Ties with the last
token kept are all kept. A row's draw depends on its key, its step and its logits alone, never on
its neighbours in the batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from engine.generate.request import SamplingParams


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RowSampling:
    """Parameters of a batch, one entry a row: float32 or int32 [S], `key` uint32 [S, 2].

    `step` counts the tokens a row has generated; `SamplingParams` says what the others mean.
    """

    temperature: jax.Array
    top_k: jax.Array
    top_p: jax.Array
    min_p: jax.Array
    repetition: jax.Array
    presence: jax.Array
    frequency: jax.Array
    key: jax.Array
    step: jax.Array

    @classmethod
    def of(cls, rows: Sequence[tuple[SamplingParams, NDArray[np.uint32], int]]) -> "RowSampling":
        """From (parameters, key, step) of each row, as arrays of the host."""
        params = [sampling for sampling, _, _ in rows]

        def floats(name: str) -> Any:
            return np.array([getattr(sampling, name) for sampling in params], np.float32)

        ints: Any = partial(np.array, dtype=np.int32)
        keys: Any = np.stack([key for _, key, _ in rows])
        return cls(
            temperature=floats("temperature"),
            top_k=ints([min(sampling.top_k, 2**31 - 1) for sampling in params]),
            top_p=floats("top_p"),
            min_p=floats("min_p"),
            repetition=floats("repetition_penalty"),
            presence=floats("presence_penalty"),
            frequency=floats("frequency_penalty"),
            key=keys,
            step=ints([step for _, _, step in rows]),
        )


def key_of(seed: int) -> NDArray[np.uint32]:
    """The two words of a threefry key, from any integer."""
    return np.array([(seed >> 32) & 0xFFFFFFFF, seed & 0xFFFFFFFF], np.uint32)


def is_greedy(sampling: SamplingParams) -> bool:
    """Whether the row's token is the plain argmax of its logits."""
    return sampling.temperature == 0 and not has_penalties(sampling)


def has_penalties(sampling: SamplingParams) -> bool:
    return (sampling.repetition_penalty, sampling.presence_penalty, sampling.frequency_penalty) != (1, 0, 0)


def penalise(logits: jax.Array, rows: RowSampling, in_prompt: jax.Array, counts: jax.Array) -> jax.Array:
    """Logits [S,V] after the three penalties.

    Args:
        in_prompt: bool [S,V], tokens of the prompt: only the repetition penalty sees them.
        counts: int32 [S,V], how often a row has generated each token.
    """
    divisor = rows.repetition[:, None]
    repeated = jnp.where(logits > 0, logits / divisor, logits * divisor)
    logits = jnp.where(in_prompt | (counts > 0), repeated, logits)
    logits -= rows.presence[:, None] * (counts > 0)
    return logits - rows.frequency[:, None] * counts


def sample(logits: jax.Array, rows: RowSampling) -> jax.Array:
    """One token a row, int32 [S], from float32 logits [S,V]. Rows at temperature 0 give their argmax."""
    greedy = jnp.argmax(logits, axis=-1)
    warm = rows.temperature > 0
    scaled = logits / jnp.where(warm, rows.temperature, 1.0)[:, None]
    weights = jnp.exp(scaled - scaled.max(axis=-1, keepdims=True))
    filtered = (rows.top_k > 0) | (rows.top_p < 1) | (rows.min_p > 0)
    weights = jax.lax.cond(jnp.any(filtered & warm), _filter, lambda w, _: w, weights, rows)
    return jnp.where(warm, _draw(weights, rows), greedy).astype(jnp.int32)


def sample_penalised(
    logits: jax.Array, rows: RowSampling, in_prompt: jax.Array, counts: jax.Array
) -> jax.Array:
    return sample(penalise(logits, rows, in_prompt, counts), rows)


def _draw(weights: jax.Array, rows: RowSampling) -> jax.Array:
    """Inverse transform sampling: one uniform number a row against the running sum of its weights."""

    def uniform(key: jax.Array, step: jax.Array) -> jax.Array:
        return jax.random.uniform(jax.random.fold_in(key, step))

    drawn = jax.vmap(uniform)(jax.random.wrap_key_data(rows.key), rows.step)
    running = jnp.cumsum(weights, axis=-1)
    return jnp.argmax(running > (drawn * running[:, -1])[:, None], axis=-1)


def _filter(weights: jax.Array, rows: RowSampling) -> jax.Array:
    """Weights [S,V], at most 1, with those outside top-k, top-p and min-p set to 0."""
    keys = jax.lax.bitcast_convert_type(weights, jnp.uint32)
    vocabulary = weights.shape[-1]
    k = jnp.where(rows.top_k > 0, jnp.minimum(rows.top_k, vocabulary), vocabulary)
    kth = _threshold(keys, lambda kept: kept.sum(axis=-1) >= k)
    weights = jnp.where(keys >= kth[:, None], weights, 0)
    wanted = jnp.where(rows.top_p < 1, rows.top_p * weights.sum(axis=-1), 0)
    last = _threshold(keys, lambda kept: jnp.where(kept, weights, 0).sum(axis=-1) >= wanted)
    nucleus = (keys >= last[:, None]) | (rows.top_p >= 1)[:, None]
    return jnp.where(nucleus & (weights >= rows.min_p[:, None]), weights, 0)


def _threshold(keys: jax.Array, enough: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """The largest t, uint32 [S], for which the mask `keys >= t` is still `enough`.

    Bits of float32 numbers that are not negative order as the numbers do, so t is built from the
    highest bit down.
    """

    def bit(index: jax.Array, found: jax.Array) -> jax.Array:
        candidate = found | (jnp.uint32(1) << (31 - index).astype(jnp.uint32))
        return jnp.where(enough(keys >= candidate[:, None]), candidate, found)

    found: jax.Array = jax.lax.fori_loop(0, 32, bit, jnp.zeros(keys.shape[0], jnp.uint32))
    return found

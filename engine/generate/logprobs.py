"""Log-probabilities of tokens by the model's own distribution, on the device."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from engine.generate.request import MOST_TOP_LOGPROBS, TokenLogprobs


def token_logprobs(logits: jax.Array, tokens: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Log-softmax of logits [S,V] at tokens [S], and its largest values with their tokens, best first.

    Returns float32 [S], float32 [S,K] and int32 [S,K] with K = min(20, V).
    """
    of_rows = jax.nn.log_softmax(logits, axis=-1)
    chosen = jnp.take_along_axis(of_rows, tokens[:, None], axis=-1)[:, 0]
    values, indices = jax.lax.top_k(of_rows, min(MOST_TOP_LOGPROBS, logits.shape[-1]))
    return chosen, values, indices


def by_row(
    wanted: Mapping[int, int], tokens: NDArray[np.int32], found: tuple[jax.Array, jax.Array, jax.Array]
) -> dict[int, TokenLogprobs]:
    """What `token_logprobs` gave, for the rows of `wanted` (row -> how many likeliest tokens)."""
    chosen, values, indices = map(np.asarray, found)
    return {
        row: TokenLogprobs(
            int(tokens[row]),
            float(chosen[row]),
            tuple(zip(indices[row, :count].tolist(), values[row, :count].tolist(), strict=True)),
        )
        for row, count in wanted.items()
    }

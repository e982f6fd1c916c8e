"""Ordering candidates anew by a function of the caller's."""

from collections.abc import Callable
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np

from stores.errors import InvalidQuery
from stores.query.request import Score
from stores.segment.view import Float32

_LEAST_ROWS = 16


def rescore(score: Score, query: Float32, vectors: Float32) -> Float32:
    """`score(query (dim,), vectors (n, dim))`: float32 (n,). InvalidQuery if it gives anything else.

    It is compiled once per power of two of rows and kept while the same function is asked for; the rows
    that fill up are copies of the last.
    """
    count = len(vectors)
    size = max(_LEAST_ROWS, 1 << (count - 1).bit_length())
    padded = np.concatenate([vectors, np.repeat(vectors[-1:], size - count, axis=0)])
    try:
        found = _compiled(score)(jnp.asarray(query), jnp.asarray(padded))
        scores = np.asarray(found, np.float32)
    except Exception as error:
        raise InvalidQuery(f"score: the function failed: {type(error).__name__}: {error}") from error
    if scores.shape != (size,):
        raise InvalidQuery(f"score: the function must give one number a row, ({size},), not {scores.shape}")
    if np.isnan(scores[:count]).any():
        raise InvalidQuery("score: the function gave NaN")
    return scores[:count]


@lru_cache(maxsize=32)
def _compiled(score: Score) -> Callable[[jax.Array, jax.Array], jax.Array]:
    return jax.jit(score)

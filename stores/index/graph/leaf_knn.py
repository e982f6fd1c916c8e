"""How near the rows of a leaf are to each other: one product of matrices on JAX."""

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from stores.index.graph.points import Points, padded

NEIGHBOURS = 24
"""Nearest rows of its leaf that a row takes as candidates."""
_SIZES = (64, 128, 256, 384, 512, 640, 768, 896, 1024)


@jax.jit
def _scores(rows: jax.Array, count: jax.Array) -> jax.Array:
    places = jnp.arange(len(rows))
    squares = jnp.sum(rows**2, axis=1) / 2
    scores = rows @ rows.T - squares[None] - squares[:, None]
    alone = (places[None] >= count) | (places[:, None] == places[None])
    return jnp.where(alone, -jnp.inf, scores)


def bucket(count: int) -> int:
    """The least of a few sizes that a leaf of `count` rows is padded to."""
    return next(size for size in _SIZES if size >= count)


def leaf_scores(points: Points, rows: NDArray[np.int32]) -> jax.Array:
    """Minus half the squared distance of each pair: float32 (m, m), m >= len(rows) one of few sizes.

    -inf of a row with itself and with padding. Started, not waited for.
    """
    found: jax.Array = _scores(jnp.asarray(padded(points.take(rows), bucket(len(rows)))), np.int32(len(rows)))
    return found

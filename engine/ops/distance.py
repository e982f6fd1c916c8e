"""Scores of vectors against queries. Everywhere higher is better, so one top-k serves all metrics."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def dot(queries: jax.Array, vectors: jax.Array) -> jax.Array:
    """Inner products. queries (q, dim), vectors (n, dim) -> (q, n)."""
    # In full: accelerators would round float32 operands to 10 bits by default.
    exact = jax.lax.Precision.HIGHEST
    return jax.lax.dot_general(queries, vectors, (((1,), (1,)), ((), ())), precision=exact)


def cosine(queries: jax.Array, vectors: jax.Array) -> jax.Array:
    """Cosines in [-1, 1]; a zero vector scores 0 against everything."""
    return dot(unit(queries), unit(vectors))


def l2(queries: jax.Array, vectors: jax.Array) -> jax.Array:
    """Negative squared Euclidean distances, never above 0.

    By |q|^2 - 2 q.v + |v|^2, so close pairs far from the origin lose digits to cancellation.
    """
    squares = jnp.sum(queries**2, axis=1)[:, None] + jnp.sum(vectors**2, axis=1)[None]
    return -jnp.maximum(squares - 2 * dot(queries, vectors), 0)


def hamming(queries: jax.Array, vectors: jax.Array) -> jax.Array:
    """Minus how many bits differ, packed in unsigned integers: (q, words), (n, words) -> int32 (q, n)."""
    differing = jax.lax.population_count(queries[:, None] ^ vectors[None])
    return -jnp.sum(differing.astype(jnp.int32), axis=-1)


def unit(vectors: jax.Array) -> jax.Array:
    """Rows divided by their length; rows of zeros stay zeros."""
    length = jnp.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / jnp.where(length == 0, 1, length)


def max_sim(query: jax.Array, documents: jax.Array, counted: jax.Array) -> jax.Array:
    """The mean over the query's tokens of their highest inner product with a token of each document.

    query (tokens, dim), documents (n, tokens, dim), counted bool (n, tokens): which of a document's
    tokens take part -> (n,). A document without any scores -1 (below every mean of cosines but -1).
    """
    likeness = jnp.einsum("qd,ntd->nqt", query, documents)
    best = jnp.max(jnp.where(counted[:, None], likeness, -jnp.inf), axis=-1)
    return jnp.where(jnp.any(counted, axis=-1), jnp.mean(best, axis=-1), -1.0)


METRICS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "cosine": cosine,
    "dot": dot,
    "l2": l2,
    "hamming": hamming,
}

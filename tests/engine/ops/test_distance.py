import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from engine.ops.distance import METRICS, cosine, hamming, unit

RNG = np.random.default_rng(0)
QUERIES = RNG.standard_normal((3, 17)).astype(np.float32)
VECTORS = RNG.standard_normal((40, 17)).astype(np.float32)


def exact(metric: str) -> np.ndarray:
    if metric == "dot":
        return QUERIES.astype(np.float64) @ VECTORS.T
    if metric == "cosine":
        return 1 - cdist(QUERIES, VECTORS, "cosine")
    return -cdist(QUERIES, VECTORS, "sqeuclidean")


@pytest.mark.parametrize("metric", ["dot", "cosine", "l2"])
def test_scores_equal_scipy_and_higher_is_better(metric):
    got = METRICS[metric](jnp.asarray(QUERIES), jnp.asarray(VECTORS))
    np.testing.assert_allclose(got, exact(metric), atol=1e-4)


def test_hamming_counts_differing_bits():
    bits = RNG.integers(0, 2, (12, 32), dtype=np.uint8)
    packed = jnp.asarray(np.packbits(bits, axis=1))
    expected = -(bits[:2, None] != bits[None]).sum(-1)
    np.testing.assert_array_equal(hamming(packed[:2], packed), expected)


def test_a_zero_vector_scores_zero_and_never_nan():
    zeros = jnp.zeros((2, 17))
    np.testing.assert_array_equal(cosine(jnp.asarray(QUERIES), zeros), np.zeros((3, 2)))
    np.testing.assert_array_equal(unit(zeros), zeros)


def test_a_vector_is_its_own_best_match_under_every_similarity():
    vectors = jnp.asarray(VECTORS)
    for metric in ("cosine", "l2"):
        np.testing.assert_array_equal(METRICS[metric](vectors, vectors).argmax(1), np.arange(40))

import jax.numpy as jnp
import numpy as np
import pytest

from engine.ops.topk import by_groups, top_k


def expected(scores: np.ndarray, k: int) -> np.ndarray:
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("count", [1, 10, 8192, 8193, 30_000, 200_001])
@pytest.mark.parametrize("k", [0, 1, 7, 100, 600])
@pytest.mark.parametrize("way", [top_k, by_groups])
def test_top_k_equals_a_stable_sort(count, k, way):
    # Few distinct values, so that ties are everywhere.
    scores = np.random.default_rng(count).integers(0, 50, (3, count)).astype(np.float32)
    k = min(k, count)
    values, indices = way(jnp.asarray(scores), k)
    np.testing.assert_array_equal(indices, expected(scores, k))
    np.testing.assert_array_equal(values, np.take_along_axis(scores, expected(scores, k), 1))


@pytest.mark.parametrize("way", [top_k, by_groups])
def test_padding_never_shows_when_all_scores_are_minus_infinity(way):
    _, indices = way(jnp.full((1, 10_001), -jnp.inf), 400)
    np.testing.assert_array_equal(indices[0], np.arange(400))


def test_nan_scores_come_last():
    scores = jnp.array([[jnp.nan, 1.0, 3.0, jnp.nan]])
    np.testing.assert_array_equal(top_k(scores, 2)[1][0], [2, 1])


def test_more_than_there_are_is_refused():
    with pytest.raises(ValueError, match=r"k must be in \[0, 3\]"):
        top_k(jnp.zeros((1, 3)), 4)

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stores.index.codecs import rabitq
from stores.index.codecs.frame import fit
from stores.index.codecs.rotation import padded_dim, rotation
from tests.stores.index.vectors import clustered, exact


@pytest.mark.parametrize("dim", [1, 3, 50, 64, 100, 384, 385, 1536])
def test_a_rotation_keeps_lengths_and_spreads_a_single_coordinate(dim: int) -> None:
    matrix = rotation(dim).astype(np.float64)
    assert matrix.shape == (dim, padded_dim(dim))
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(dim), atol=1e-6)
    assert np.abs(matrix).max() < 6 / np.sqrt(padded_dim(dim))


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("dim", [20, 384])
def test_distances_in_the_frame_order_rows_as_the_metric_does(metric: str, dim: int) -> None:
    rng = np.random.default_rng(1)
    rows = clustered(300, dim)
    if metric != "cosine":
        rows = rows * rng.uniform(0.2, 5, (300, 1)).astype(np.float32)
    queries = clustered(9, dim, seed=2)
    frame = fit(rows, metric)
    rotated, turned = frame.rotate(frame.residuals(rows)), frame.rotate(frame.queries(queries))
    scores = turned @ rotated.T
    if metric == "l2":
        scores -= np.einsum("nd,nd->n", rotated, rotated) / 2
    expected = exact(rows, queries, metric) * (0.5 if metric == "l2" else 1)
    # Equal up to what depends on the query alone.
    apart = scores - expected
    np.testing.assert_allclose(apart, np.broadcast_to(apart[:, :1], apart.shape), atol=2e-4)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 300), st.integers(0, 2**32 - 1), st.floats(0.01, 100))
def test_one_bit_estimates_are_off_by_the_deviation_they_state(dim: int, seed: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    rows = (rng.standard_normal((400, dim)) * size).astype(np.float32)
    queries = rng.standard_normal((50, dim)).astype(np.float32)
    rotated, turned = rows @ rotation(dim), queries @ rotation(dim)
    estimate, deviation = rabitq.estimate(rabitq.encode(rotated), turned)
    off = np.abs(estimate - turned @ rotated.T) / np.maximum(deviation, 1e-6 * size)
    if dim >= 16:
        # Of few dimensions, or padded to nearly twice as many, a rotated query's signs are less alike chance:
        # 0.92 on average of 65, 0.90 of 33, and 0.95 where hardly any are padded.
        assert np.mean(off < 2) > (0.85 if dim >= 64 else 0.8)
    assert np.isfinite(estimate).all() and (deviation >= 0).all()


def test_codes_of_zeros_and_of_alike_rows_are_finite() -> None:
    for rows in (np.zeros((50, 8), np.float32), np.ones((50, 8), np.float32)):
        frame = fit(rows, "l2")
        rotated = frame.rotate(frame.residuals(rows))
        assert (frame.encode(rotated) == 0).all()
        assert np.isfinite(rabitq.encode(rotated).view(np.float32)[:, -3:]).all()

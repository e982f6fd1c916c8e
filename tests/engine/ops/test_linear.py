import jax.numpy as jnp
import numpy as np
import pytest

from engine.ops.jit import compile
from engine.ops.linear import linear
from engine.ops.quant import dequantize, quantize


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_linear_is_x_times_w_transposed_plus_bias():
    x, w, b = draw(2, 5, 7), draw(3, 7, seed=1), draw(3, seed=2)
    expected = x.astype(np.float64) @ w.T.astype(np.float64) + b
    np.testing.assert_allclose(linear(jnp.asarray(x), jnp.asarray(w), jnp.asarray(b)), expected, atol=1e-5)


@pytest.mark.parametrize("path", ["auto", "xla"])
@pytest.mark.parametrize("kind", ["int8", "int4"])
@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize(
    ("out", "features"),
    [(24, 64), (24, 50), (7, 1), (3000, 1024), (2049, 600)],
    ids=["groups", "tail", "one-column", "blocks", "uneven-blocks-and-tail"],
)
def test_quantised_linear_equals_the_product_with_the_expanded_matrix(
    kind, rows, out, features, path, monkeypatch
):
    monkeypatch.setenv("TARSIA_OPS", path)
    w, x, b = quantize(draw(out, features), kind), draw(rows, features, seed=1), draw(out, seed=2)
    expected = x.astype(np.float64) @ np.asarray(dequantize(w), np.float64).T + b
    got = compile(lambda *a: linear(*a))(jnp.asarray(x), w, jnp.asarray(b))
    np.testing.assert_allclose(got, expected, atol=2e-4 * np.sqrt(features))


@pytest.mark.parametrize("kind", ["int8", "int4"])
@pytest.mark.parametrize("rows", [2, 3, 4, 5, 8])
def test_a_row_has_the_same_bits_alone_and_beside_others(kind, rows):
    w, x = quantize(draw(301, 608), kind), jnp.asarray(draw(rows, 608, seed=1))
    run = compile(lambda *a: linear(*a))
    together = run(x, w)
    for row in range(rows):
        np.testing.assert_array_equal(together[row], run(x[row : row + 1], w)[0])


def test_leading_axes_are_kept():
    assert linear(jnp.ones((2, 3, 50)), quantize(draw(6, 50), "int8")).shape == (2, 3, 6)
    assert linear(jnp.ones((50,)), quantize(draw(6, 50), "int8")).shape == (6,)

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from engine.ops import dispatch
from engine.ops.activations import ACTIVATIONS, gelu, gelu_tanh, silu
from engine.ops.norms import layer_norm, rms_norm

X = np.random.default_rng(0).standard_normal((3, 4, 16)) * 5 + 2
WEIGHT = np.random.default_rng(1).standard_normal(16)
BIAS = np.random.default_rng(2).standard_normal(16)


def f32(array: np.ndarray) -> jnp.ndarray:
    return jnp.asarray(array, jnp.float32)


def test_rms_norm_equals_its_formula_in_float64():
    expected = X / np.sqrt((X**2).mean(-1, keepdims=True) + 1e-5) * WEIGHT
    np.testing.assert_allclose(rms_norm(f32(X), f32(WEIGHT), 1e-5), expected, atol=1e-5)


def test_layer_norm_equals_its_formula_in_float64():
    expected = (X - X.mean(-1, keepdims=True)) / np.sqrt(X.var(-1, keepdims=True) + 1e-12) * WEIGHT + BIAS
    np.testing.assert_allclose(layer_norm(f32(X), f32(WEIGHT), f32(BIAS), 1e-12), expected, atol=1e-5)


@pytest.mark.parametrize("value", [-30.0, -3.0, -0.5, 0.0, 0.7, 4.0, 50.0])
def test_activations_equal_their_formulas(value):
    x = f32(np.array(value))
    inner = math.sqrt(2 / math.pi) * (value + 0.044715 * value**3)
    assert float(silu(x)) == pytest.approx(value / (1 + math.exp(-value)), abs=1e-6)
    assert float(gelu(x)) == pytest.approx(value * 0.5 * (1 + math.erf(value / math.sqrt(2))), abs=1e-6)
    assert float(gelu_tanh(x)) == pytest.approx(0.5 * value * (1 + math.tanh(inner)), abs=1e-6)
    assert float(ACTIVATIONS["relu"](x)) == max(float(x), 0.0)


@pytest.fixture
def wide():
    """x (4, 30, 192), weight and bias: large enough for the native kernel."""
    rng = np.random.default_rng(5)
    return [f32(rng.standard_normal(shape) * 3 + 1) for shape in ((4, 30, 192), (192,), (192,))]


def test_the_native_layer_norm_equals_its_formula_and_the_portable_one(wide):
    x, weight, bias = (np.asarray(each, np.float64) for each in wide)
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * weight + bias
    native = jax.jit(lambda *a: layer_norm(*a, 1e-6))(*wide)
    np.testing.assert_allclose(native, expected, atol=2e-5)
    with dispatch.portable():
        np.testing.assert_allclose(layer_norm(*wide, 1e-6), native, atol=2e-5)


def test_the_native_layer_norm_runs_where_it_can_and_nowhere_else(wide):
    def called(*arguments):
        return "custom_call" in jax.jit(lambda *a: layer_norm(*a, 1e-6)).lower(*arguments).as_text()

    x, weight, bias = wide
    assert called(x, weight, bias) == dispatch.native_wanted()
    assert not called(x[:1, :1], weight, bias) and not called(x, weight, None)
    assert not called(*(each.astype(jnp.bfloat16) for each in wide))
    with dispatch.portable():
        assert not called(x, weight, bias) and not dispatch.native_wanted()


def test_gradients_and_batches_of_the_native_layer_norm_are_the_portable_ones(wide):
    def loss(x, weight, bias):
        return jnp.sum(layer_norm(x, weight, bias, 1e-6) ** 3)

    found = jax.grad(loss, argnums=(0, 1, 2))(*wide)
    mapped = jax.vmap(lambda x: layer_norm(x, *wide[1:], 1e-6))(jnp.stack([wide[0], -wide[0]]))
    with dispatch.portable():
        expected = jax.grad(loss, argnums=(0, 1, 2))(*wide)
        each = [layer_norm(x, *wide[1:], 1e-6) for x in (wide[0], -wide[0])]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(mapped, jnp.stack(each), atol=2e-5)

import math

import jax.numpy as jnp
import numpy as np
import pytest

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

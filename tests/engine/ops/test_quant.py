import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.ops.linear import linear
from engine.ops.quant import (
    GROUP,
    QTensor,
    dequantize,
    pack_nibbles,
    quantize,
    take_rows,
    unpack_nibbles,
)


def random_matrix(rows: int, columns: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((rows, columns)) * scale).astype(np.float32)


def groups_of(weights: np.ndarray) -> list[np.ndarray]:
    return [weights[:, i : i + GROUP] for i in range(0, weights.shape[1], GROUP)]


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 100), st.integers(0, 1 << 30), st.sampled_from([1e-6, 1.0, 1e4]))
def test_int8_error_is_within_half_a_step_of_its_group(rows, columns, seed, scale):
    weights = random_matrix(rows, columns, seed, scale)
    restored = np.asarray(dequantize(quantize(weights, "int8")))
    assert restored.shape == weights.shape
    for before, after in zip(groups_of(weights), groups_of(restored), strict=True):
        step = np.abs(before).max(axis=1, keepdims=True) / 127
        assert (np.abs(before - after) <= 0.5001 * step).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 100), st.integers(0, 1 << 30), st.sampled_from([1e-6, 1.0, 1e4]))
def test_int4_error_is_within_half_a_step_of_its_group(rows, columns, seed, scale):
    weights = random_matrix(rows, columns, seed, scale)
    restored = np.asarray(dequantize(quantize(weights, "int4")))
    for before, after in zip(groups_of(weights), groups_of(restored), strict=True):
        step = (before.max(axis=1) - before.min(axis=1))[:, None] / 15
        assert (np.abs(before - after) <= 0.5001 * step + 1e-6 * np.abs(before)).all()


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_constant_and_zero_groups_survive(kind):
    weights = np.zeros((3, 64), np.float32)
    weights[1] = 0.5
    np.testing.assert_allclose(dequantize(quantize(weights, kind)), weights, rtol=1e-6)


def test_nibbles_unpack_to_what_was_packed():
    codes = np.random.default_rng(0).integers(0, 16, (5, 3, GROUP), dtype=np.uint8)
    np.testing.assert_array_equal(unpack_nibbles(jnp.asarray(pack_nibbles(codes))), codes)


@pytest.mark.parametrize(("kind", "bytes_per_weight"), [("int8", 1.125), ("int4", 0.75)])
def test_memory_is_what_the_format_promises(kind, bytes_per_weight):
    assert quantize(random_matrix(64, 256), kind).nbytes == 64 * 256 * bytes_per_weight


@pytest.mark.parametrize("kind", ["int8", "int4"])
@pytest.mark.parametrize("columns", [64, 50])
def test_rows_of_a_quantised_table_equal_those_of_the_whole(kind, columns):
    table = quantize(random_matrix(20, columns), kind)
    ids = jnp.array([[3, 3], [19, 0]])
    np.testing.assert_array_equal(take_rows(table, ids), np.asarray(dequantize(table))[np.asarray(ids)])


def test_a_qtensor_is_a_pytree_that_keeps_its_static_length():
    table = quantize(random_matrix(4, 50), "int4")
    doubled = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), table)
    assert isinstance(doubled, QTensor)
    assert doubled.shape == (8, 50)
    assert doubled.kind == "int4"


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_gradients_flow_through_a_quantised_matrix(kind):
    w = quantize(random_matrix(24, 50), kind)
    x = jnp.asarray(random_matrix(3, 50, seed=1))
    by_x = jax.jit(jax.grad(lambda x: jnp.sum(jnp.sin(linear(x, w)))))(x)
    plain = jax.grad(lambda x: jnp.sum(jnp.sin(x @ dequantize(w).T)))(x)
    np.testing.assert_allclose(by_x, plain, rtol=1e-4, atol=1e-4)


def test_gradients_reach_the_scales():
    w = quantize(random_matrix(8, 64), "int8")
    x = jnp.ones((1, 64))

    def total(scale: jax.Array) -> jax.Array:
        return jnp.sum(linear(x, QTensor(w.values, scale, None, 64)))

    expected = np.asarray(w.values, np.float32).sum(-1)
    np.testing.assert_allclose(jax.grad(total)(w.scale), expected, rtol=1e-5)

"""Compiled C++ against the oracle and the plain expressions: the library, random kernels, odd windows."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dsl
from dsl import Packed, atomic_add, cdiv, loop, pid, tile, where
from dsl.kernels.matmul import matmul
from dsl.kernels.quant_linear import int4_linear, int8_linear
from dsl.kernels.softmax import softmax
from tests.dsl.kernels.catalogue import normal

NUMPY = {"f32": jnp.float32, "f16": jnp.float16, "bf16": jnp.bfloat16}


def listed(found):
    return found if isinstance(found, tuple) else (found,)


def close(found, expected, tolerance=5e-5):
    for mine, theirs in zip(listed(found), listed(expected), strict=True):
        assert mine.shape == theirs.shape
        mine, theirs = (np.asarray(x, np.float64) for x in (mine, theirs))
        np.testing.assert_allclose(mine, theirs, rtol=tolerance, atol=tolerance)


def weights(kind, out, features):
    rng = np.random.default_rng(5)
    scale, minimum = (jnp.asarray(rng.standard_normal((out, features // 32)), jnp.float32) for _ in range(2))
    if kind == "int8":
        values = rng.integers(-127, 128, (out, features), dtype=np.int8)
        return (jnp.asarray(values), scale), values * np.repeat(np.asarray(scale), 32, 1)
    data = rng.integers(0, 256, (out, features // 2), dtype=np.uint8)
    groups = data.reshape(out, -1, 16)
    wide = np.concatenate([groups & 15, groups >> 4], -1) * np.asarray(scale)[..., None]
    dense = (wide + np.asarray(minimum)[..., None]).reshape(out, features)
    return (Packed(jnp.asarray(data), "u4"), scale, minimum), dense


@pytest.mark.parametrize("backend", ["cpu", "xla", "oracle"])
@pytest.mark.parametrize(("kind", "rows"), [("int8", 1), ("int8", 5), ("int4", 1), ("int4", 6)])
def test_quantised_products(kind, rows, backend):
    kernel = int8_linear if kind == "int8" else int4_linear
    args, dense = weights(kind, 41, 96)
    x = normal(rows, 96) * 0.1
    expected = np.asarray(x, np.float64) @ dense.astype(np.float64).T
    np.testing.assert_allclose(
        kernel(x, *args, backend=backend), expected, rtol=1e-4, atol=1e-4 * abs(expected).max()
    )


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_quantised_products_differentiate_and_batch(kind):
    kernel = int8_linear if kind == "int8" else int4_linear
    args, dense = weights(kind, 9, 64)
    x = normal(3, 2, 64)
    run = partial(kernel, backend="cpu")
    found = jax.jit(jax.vmap(lambda x: run(x, *args)))(x)
    np.testing.assert_allclose(found, np.asarray(x) @ dense.T, rtol=1e-3, atol=abs(dense).max() * 1e-3)
    slope = jax.grad(lambda x: run(x, *args).sum())(x[0])
    np.testing.assert_allclose(slope, np.tile(dense.sum(0), (2, 1)), rtol=1e-3, atol=abs(dense).max() * 1e-3)


@dsl.kernel(grid=lambda x: cdiv(x.shape[0], 4), out=lambda x: (dsl.like(x, shape=(6,)), dsl.like(x)))
def counted(x, at, counts, moved):
    """Atomic adds, a column, a window that starts at data, integer arithmetic, a loop that ends at data."""
    block = tile(pid(0) * 4, 4)
    column = x.column[block]
    real = where(block.rows() < x.shape[0], where(column == tile(0, 6).cols(), 1, 0), 0)
    atomic_add(counts, tile(0, 6), real.sum(0))
    near = x.column.load(tile(pid(0) * 4 + at[0], 4), other=7)
    total = loop(0, at[1], lambda j, t: t + j, 0)
    moved.column[block] = (near - 9) // 4 * 100 + (near - 9) % 4 + total + dsl.popcount(near) * 1000


def test_integers_atomics_and_windows_that_start_at_data():
    x = jnp.asarray(np.random.default_rng(3).integers(0, 6, 23), jnp.int32)
    at = jnp.asarray([-2, 3], jnp.int32)
    for mine, theirs in zip(counted(x, at, backend="cpu"), counted(x, at, backend="oracle"), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@dsl.kernel(grid=1, out=lambda x: dsl.like(x, shape=(6, x.shape[0])))
def functions(x, o):
    t = x[:]
    rows = (dsl.exp(t), dsl.log(t), dsl.tanh(t), dsl.erf(t), dsl.rsqrt(t), dsl.round_(t))
    for row, value in enumerate(rows):
        o[row, :] = value


def test_functions_are_accurate_over_their_ranges_and_at_the_special_values():
    special = [0.0, np.inf, -np.inf, np.nan, 3e38, -3e38, 88.7, -103.0, 0.5, 1.5, -0.5]
    x = np.concatenate([np.linspace(-20, 20, 999), np.geomspace(1e-38, 1e38, 500), special])
    x = jnp.asarray(x, jnp.float32)
    expected = np.asarray(functions(x, backend="oracle"), np.float64)
    found = np.asarray(functions(x, backend="cpu"), np.float64)
    np.testing.assert_allclose(found, expected, rtol=6e-7, atol=2e-38)


def test_threads_of_xla_share_a_large_grid():
    a, b = normal(300, 200), normal(200, 150)
    assert "#define SPLIT true" in matmul.source("cpu", a, b)
    close(jax.jit(partial(matmul, backend="cpu"))(a, b), a @ b, 1e-3)


def test_an_updated_array_may_be_donated_and_otherwise_is_left_alone():
    @dsl.kernel(grid=lambda new: new.shape[0])
    def put(new, at, cache):
        cache[at[0] + pid(0), :] = new[pid(0), :]

    run = lambda c: put(jnp.ones((2, 3)), jnp.array([1], jnp.int32), out=dsl.update(c), backend="cpu")  # noqa: E731
    cache = jnp.zeros((4, 3))
    np.testing.assert_array_equal(run(cache).sum(1), [0, 3, 3, 0])
    assert cache.sum() == 0
    np.testing.assert_array_equal(jax.jit(run, donate_argnums=0)(cache + 1).sum(1), [3, 3, 3, 3])


def test_infinities_and_nan_pass_through():
    x = jnp.asarray([[1.0, jnp.nan, 2.0], [jnp.inf, 0.0, 1.0], [-jnp.inf, 0.0, 0.0]])
    found = np.asarray(softmax(x, backend="cpu"))
    assert np.isnan(found[0]).all() and np.isnan(found[1, 0])
    np.testing.assert_allclose(found[2], [0, 0.5, 0.5])

"""Native products and attention: when they run, and that nobody can tell but by the clock."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from engine.ops import dispatch
from engine.ops.jit import compile
from engine.ops.linear import linear
from engine.ops.quant import QTensor, quantize

OUT, FEATURES = 300, 250


def draw(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


@pytest.fixture(params=["int8", "int4"])
def weights(request) -> QTensor:
    return quantize(draw(OUT, FEATURES), request.param)


def is_native(x: jax.Array, w: QTensor) -> bool:
    return "tarsia_dsl" in jax.jit(lambda *a: linear(*a)).lower(x, w).as_text()


@pytest.fixture
def portable(monkeypatch):
    """Runs a function on the portable path."""

    def run(function, *args):
        with monkeypatch.context() as patch:
            patch.setenv("TARSIA_OPS", "xla")
            return function(*args)

    return run


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_both_paths_agree(weights, portable, rows):
    x = draw(rows, FEATURES, seed=1)
    assert is_native(x, weights) and not portable(is_native, x, weights)
    found, expected = compile(lambda *a: linear(*a))(x, weights), portable(linear, x, weights)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


def test_prompts_and_small_matrices_stay_with_xla(weights):
    assert not is_native(draw(dispatch.NATIVE_ROWS + 1, FEATURES), weights)
    assert not is_native(draw(1, 64), quantize(draw(9, 64), weights.kind))


def test_gradients_and_batches_agree(weights, portable):
    x = draw(4, 2, FEATURES, seed=2)

    def loss(x, scale):
        w = QTensor(weights.values, scale, weights.minimum, FEATURES)
        return (jax.vmap(lambda row: linear(row, w))(x) ** 2).sum()

    gradient = jax.grad(loss, (0, 1))
    found, expected = jax.jit(gradient)(x, weights.scale), portable(gradient, x, weights.scale)
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-3 * float(jnp.abs(theirs).max()))


def test_a_step_with_a_donated_cache_runs_it(weights, portable):
    def step(cache, x, at):
        y = linear(x, weights)
        return jax.lax.dynamic_update_slice(cache, y, (at, 0)), y.sum()

    def steps(run):
        cache = jnp.zeros((5, OUT))
        for at in range(5):
            cache, total = run(cache, draw(1, FEATURES, seed=at), at)
        return cache, total

    found = steps(compile(lambda *a: step(*a), donate_argnums=0))
    for mine, theirs in zip(found, portable(steps, step), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-3)


def test_without_a_compiler_it_says_so_once_and_goes_on(weights, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(dispatch, "_say_once", dispatch.functools.cache(dispatch._say_once.__wrapped__))
    odd = quantize(draw(OUT + 1, FEATURES), weights.kind)
    with caplog.at_level(logging.WARNING):
        for rows in (1, 1, 2):
            assert not is_native(draw(rows, FEATURES), odd)
    assert len(caplog.records) == 1
    assert "no C++ compiler" in caplog.text and "more slowly" in caplog.text

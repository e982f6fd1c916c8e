"""Kernels that the library was not made for: every target runs them alike, or says why it does not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dsl
from dsl import (
    BackendError,
    KernelError,
    atomic_add,
    cdiv,
    dot,
    exp,
    full,
    loop,
    maximum,
    pid,
    rsqrt,
    tile,
    where,
    zeros,
)
from dsl.runtime import targets


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


@dsl.kernel(grid=lambda x, BM: cdiv(x.shape[0], BM), out=lambda x: dsl.like(x))
def bias_dropout_residual_layer_norm(x, bias, mask, residual, weight, shift, o, *, BM=4, keep=0.9):
    rows = tile(pid(0) * BM, BM)
    kept = where(mask[rows, :] == 1, (x[rows, :] + bias[:]) * (1 / keep), 0.0)
    t = kept + residual[rows, :]
    centred = t - t.sum(1) * (1 / x.shape[1])
    variance = (centred * centred).sum(1) * (1 / x.shape[1])
    o[rows, :] = centred * rsqrt(variance + 1e-5) * weight[:] + shift[:]


def dropout_case():
    x, residual = normal(11, 19), normal(11, 19, seed=1)
    bias, weight, shift = (normal(19, seed=n) for n in range(3))
    mask = (np.random.default_rng(0).random((11, 19)) < 0.9).astype(np.int8)
    t = np.where(mask, (x + bias) / 0.9, 0) + residual
    expected = (t - t.mean(1, keepdims=True)) / np.sqrt(t.var(1, keepdims=True) + 1e-5) * weight + shift
    return bias_dropout_residual_layer_norm, (x, bias, mask, residual, weight, shift), expected


@dsl.kernel(grid=lambda q, BM: (q.shape[0], cdiv(q.shape[1], BM)), out=lambda q: dsl.like(q))
def sink_attention(q, k, v, o, *, BM=8, BN=8, window=8, sinks=2):
    """Each query sees the last `window` keys and the first `sinks` ones."""
    rows = tile(pid(1) * BM, BM)
    scaled = q[pid(0), rows, :] * q.shape[2] ** -0.5

    def step(j, carry):
        top, total, mixed = carry
        keys = tile(j * BN, BN)
        near = (rows.rows() - keys.cols() < window) | (keys.cols() < sinks)
        scores = dot(scaled, k[pid(0), keys, :], transpose_b=True)
        scores = where((keys.cols() <= rows.rows()) & near, scores, -1e30)
        higher = maximum(top, scores.max(1))
        p, fade = exp(scores - higher), exp(top - higher)
        return higher, total * fade + p.sum(1), mixed * fade + dot(p, v[pid(0), keys, :])

    start = full((BM, 1), -1e30), zeros((BM, 1)), zeros((BM, q.shape[2]))
    _, total, mixed = loop(0, cdiv((pid(1) + 1) * BM, BN), step, start)
    o[pid(0), rows, :] = mixed / total


def sinks_case():
    q, k, v = (normal(2, 21, 8, seed=n) for n in range(3))
    at, key = np.arange(21)[:, None], np.arange(21)
    seen = (key <= at) & ((at - key < 8) | (key < 2))
    e = np.exp(np.where(seen, q @ k.swapaxes(1, 2) / np.sqrt(8), -np.inf))
    return sink_attention, (q, k, v), e / e.sum(-1, keepdims=True) @ v


@dsl.kernel(grid=lambda x: cdiv(x.shape[0], 8), out=lambda x: dsl.like(x, shape=(6,)))
def histogram(x, o):
    some = tile(pid(0) * 8, 8)
    real = (x.column[some] == tile(0, 6).cols()) & (some.rows() < x.shape[0])
    atomic_add(o, tile(0, 6), where(real, 1, 0).sum(0))


def histogram_case():
    x = np.random.default_rng(3).integers(-1, 8, 45).astype(np.int32)
    return histogram, (x,), np.bincount(x[(x >= 0) & (x < 6)], minlength=6)


@dsl.kernel(grid=3, out=lambda re, im: dsl.like(re, shape=(im.shape[0], re.shape[0]), dtype="i32"))
def mandelbrot(re, im, o, *, passes=12):
    rows = tile(pid(0) * 4, 4)
    a, b = re[:] + zeros((4, re.shape[0])), im.column[rows]

    def step(_, carry):
        x, y, n = carry
        inside = x * x + y * y < 4.0
        return where(inside, x * x - y * y + a, x), where(inside, 2 * x * y + b, y), n + inside

    o[rows, :] = loop(0, passes, step, (zeros(a.shape), zeros(a.shape), zeros(a.shape, "i32")))[2]


def mandelbrot_case():
    # Points whose orbits leave the circle clearly, so that no rounding moves a count.
    re, im = np.linspace(-1.9, 0.7, 9, dtype=np.float32), np.linspace(-1.3, 1.3, 10, dtype=np.float32)
    c = re + 1j * im[:, None].astype(np.complex128)
    z, count = np.zeros_like(c), np.zeros(c.shape, int)
    for _ in range(12):
        inside = np.abs(z) < 2
        count += inside
        z = np.where(inside, z * z + c, z)
    return mandelbrot, (re, im), count


@dsl.kernel(grid=lambda a, BM: cdiv(a.shape[0], BM), out=lambda a: dsl.like(a, shape=(a.shape[0], 2)))
def three_way(a, b, c, o, *, BM=4):
    """Sum and greatest element of each row of (a @ b) * c."""
    rows = tile(pid(0) * BM, BM)
    product = dot(a[rows, :], b[:, :]) * c[rows, :]
    o.column[rows, 0] = product.sum(1)
    o.column[rows, 1] = product.max(1)


def three_way_case():
    a, b, c = normal(10, 7), normal(7, 13), normal(10, 13, seed=1)
    product = a @ b * c
    return three_way, (a, b, c), np.stack([product.sum(1), product.max(1)], 1)


@dsl.kernel(grid=lambda x: x.shape[0], out=lambda x: dsl.like(x))
def prefix_sum(x, o):
    def step(j, total):
        total = total + x[pid(0), j]
        o[pid(0), j] = total
        return total

    loop(0, x.shape[1], step, 0.0)


def prefix_case():
    x = normal(3, 17)
    return prefix_sum, (x,), np.cumsum(x.astype(np.float64), 1)


STRANGERS = {
    "bias, dropout, residual, LayerNorm": dropout_case,
    "sliding window with sinks": sinks_case,
    "histogram": histogram_case,
    "Mandelbrot": mandelbrot_case,
    "product of three with two reductions": three_way_case,
    "prefix sum": prefix_case,
}


@pytest.mark.parametrize("backend", targets.names())
@pytest.mark.parametrize("name", STRANGERS)
def test_every_target_agrees_or_says_why_not(name, backend):
    kernel, args, expected = STRANGERS[name]()
    try:
        found = jax.jit(lambda *a: kernel(*a, backend=backend))(*map(jnp.asarray, args))
    except BackendError as error:
        told = str(error)
        assert f"{backend}: " in told and len(told.split(f"{backend}: ", 1)[1]) > 20, told
        return
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)


def test_a_prefix_sum_that_reads_what_it_wrote_is_refused():
    @dsl.kernel(grid=1, out=lambda x: dsl.like(x))
    def running(x, o):
        o[0] = x[0]
        loop(1, x.shape[0], lambda j, _: o.__setitem__(j, o[j - 1] + x[j]), ())

    with pytest.raises(KernelError, match=r"test_strangers.py:\d+: .*o is an output"):
        running.ir(jnp.ones(4))


def test_a_histogram_without_atomics_is_refused():
    @dsl.kernel(grid=lambda x: x.shape[0], out=lambda x: dsl.like(x, shape=(6,)))
    def counted(x, o):
        o[x[pid(0)]] = 1

    with pytest.raises(KernelError, match=r"pid\(0\) \(extent 4\).* may write the same.*use atomic_add"):
        counted.ir(jnp.ones(4, jnp.int32))


def test_a_loop_until_convergence_is_refused():
    @dsl.kernel(grid=1, out=lambda x: dsl.like(x))
    def newton(x, o):
        t = x[:]
        while (t * t - x[:]).max(1) >= 1e-6:
            t = 0.5 * (t + x[:] / t)
        o[:] = t

    with pytest.raises(KernelError, match=r"no truth while the kernel is traced.*write where\(condition"):
        newton.ir(jnp.ones(4))

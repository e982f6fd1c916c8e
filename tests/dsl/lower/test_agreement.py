"""The XLA lowering against the float64 oracle: random kernels, and each way to reach memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dsl
from dsl import atomic_add, cdiv, loop, pid, tile, where, zeros
from dsl.lower import oracle, xla

NUMPY = {"f32": jnp.float32, "f16": jnp.float16, "bf16": jnp.bfloat16}


def both(kernel, *args, **kwargs):
    """(oracle's first output, XLA's) for a call."""
    out = kwargs.pop("out", None)
    ir = kernel.ir(*args, out=out, **kwargs)
    arrays = kernel.prepare(args, out, kwargs).arrays
    return oracle.run(ir, *arrays)[0], np.asarray(jax.jit(xla.lower(ir))(*arrays)[0])


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


@pytest.mark.parametrize(
    ("start", "expected"), [(-3, [0, 0, 0, 1, 2]), (4, [5, 6, 0, 0, 0]), (1, [2, 3, 4, 5, 6])]
)
def test_a_window_reads_zero_outside_of_its_array(start, expected):
    @dsl.kernel(grid=1, out=lambda x: dsl.like(x, shape=(5,)))
    def shifted(x, o):
        o[:] = x[tile(start, 5)]

    for data in both(shifted, jnp.arange(1.0, 7.0)):
        np.testing.assert_array_equal(data, expected)


@pytest.mark.parametrize("at", [0, 3, 9, -2, 40])
def test_a_window_that_starts_at_data_is_guarded(at):
    @dsl.kernel(grid=1, out=lambda x: dsl.like(x, shape=(4, 3)))
    def cut(x, where_, o):
        o[:, :] = x.load((tile(where_[0], 4), slice(None)), other=7.0)

    x = normal(11, 3)
    padded = np.full((100, 3), 7.0)
    padded[50:61] = x
    for data in both(cut, x, jnp.array([at], jnp.int32)):
        np.testing.assert_allclose(data, padded[50 + at : 54 + at])


def test_stores_in_a_loop_make_a_prefix_sum():
    @dsl.kernel(grid=lambda x: x.shape[0], out=lambda x: dsl.like(x))
    def prefix_sum(x, o):
        def step(j, total):
            total = total + x[pid(0), j]
            o[pid(0), j] = total
            return total

        loop(0, x.shape[1], step, 0.0)

    x = normal(3, 17)
    for data in both(prefix_sum, x):
        np.testing.assert_allclose(data, np.cumsum(np.asarray(x, np.float64), 1), atol=1e-5)


def test_stores_in_a_loop_that_ends_differently_in_each_program():
    @dsl.kernel(grid=5, out=lambda x: dsl.like(x))
    def triangle(x, o):
        def step(j, _):
            o[pid(0), tile(j * 2, 2)] = x[pid(0), tile(j * 2, 2)] + 1.0
            return 0

        loop(0, pid(0), step, 0)

    x = normal(5, 9)
    expected = np.where(np.arange(9)[None] < 2 * np.arange(5)[:, None], np.asarray(x) + 1, 0)
    for data in both(triangle, x):
        np.testing.assert_allclose(data, expected, rtol=1e-6)


def test_atomic_adds_make_a_histogram():
    @dsl.kernel(grid=lambda x: cdiv(x.shape[0], 4), out=lambda x: dsl.like(x, shape=(6,)))
    def histogram(x, o):
        block = tile(pid(0) * 4, 4)
        counted = where(x.column[block] == tile(0, 6).cols(), 1, 0)
        real = where(block.rows() < x.shape[0], counted, 0)
        atomic_add(o, tile(0, 6), real.sum(0))

    x = jnp.asarray(np.random.default_rng(3).integers(0, 6, 23), jnp.int32)
    for data in both(histogram, x):
        np.testing.assert_array_equal(data, np.bincount(np.asarray(x), minlength=6))


def test_atomic_add_at_data():
    @dsl.kernel(grid=lambda x: x.shape[0], out=lambda x: dsl.like(x, shape=(6,)))
    def histogram(x, o):
        atomic_add(o, x[pid(0)], 1)

    x = jnp.asarray([0, 5, 5, 2, 9, -1], jnp.int32)
    for data in both(histogram, x):
        np.testing.assert_array_equal(data, [1, 0, 1, 0, 0, 2])


def test_a_loop_whose_end_is_data():
    @dsl.kernel(grid=2, out=lambda x: dsl.like(x, shape=(2,)))
    def total(x, lengths, o):
        o[pid(0)] = loop(0, lengths[pid(0)], lambda j, t: t + x[pid(0), j], 0.0)

    x = normal(2, 9)
    for data in both(total, x, jnp.array([3, 9], jnp.int32)):
        np.testing.assert_allclose(data, [x[0, :3].sum(), x[1].sum()], rtol=1e-5)


def test_an_updated_output_keeps_what_is_not_stored():
    @dsl.kernel(grid=lambda new: new.shape[0])
    def append(new, at, cache):
        cache[at[0] + pid(0), :] = new[pid(0), :]

    cache = normal(7, 3)
    expected = np.array(cache)
    expected[5:7] = 1.0
    for data in both(append, jnp.ones((4, 3)), jnp.array([5], jnp.int32), out=dsl.update(cache)):
        np.testing.assert_allclose(data, expected)


@pytest.mark.parametrize("dtype", ["i4", "u4"])
@pytest.mark.parametrize(("start", "size"), [(0, 64), (32, 32), (5, 40), (50, 30)])
def test_nibbles_unpack_in_any_window(dtype, start, size):
    data = np.random.default_rng(1).integers(0, 256, (5, 32), dtype=np.uint8)
    groups = data.reshape(5, 2, 16).astype(int)
    wide = np.concatenate([groups & 15, groups >> 4], -1).reshape(5, 64)
    wide = np.where(wide > 7, wide - 16, wide) if dtype == "i4" else wide
    wide = np.pad(wide, ((0, 1), (0, 100)))

    @dsl.kernel(grid=3, out=lambda w: dsl.like(w, shape=(6, size), dtype="i32"))
    def unpacked(w, o):
        rows = tile(pid(0) * 2, 2)
        o[rows, :] = w[rows, tile(start, size)]

    expected, found = both(unpacked, dsl.Packed(jnp.asarray(data), dtype))
    np.testing.assert_array_equal(expected, wide[:, start : start + size])
    np.testing.assert_array_equal(found, expected)


def test_transposed_windows_and_columns():
    @dsl.kernel(grid=(2, 2), out=lambda x: dsl.like(x, shape=(2, 5, 2, 3)))
    def moved(x, g, o):
        rows = tile(pid(1) * 3, 3)
        o[pid(0), :, pid(1), :] = x[pid(0), :, rows] * g.column[0:5]

    x, g = normal(2, 5, 6), normal(5)
    expected = (np.asarray(x) * np.asarray(g)[:, None]).reshape(2, 5, 2, 3)
    for data in both(moved, x, g):
        np.testing.assert_allclose(data, expected, rtol=1e-6)


def test_mandelbrot():
    @dsl.kernel(grid=3, out=lambda re, im: dsl.like(re, shape=(im.shape[0], re.shape[0]), dtype="i32"))
    def mandelbrot(re, im, o):
        rows = tile(pid(0) * 4, 4)
        a, b = re[:] + zeros((4, re.shape[0])), im.column[rows]

        def step(_, carry):
            x, y, n = carry
            inside = x * x + y * y < 4.0
            return where(inside, x * x - y * y + a, x), where(inside, 2 * x * y + b, y), n + inside

        start = zeros(a.shape), zeros(a.shape), zeros(a.shape, "i32")
        o[rows, :] = loop(0, 20, step, start)[2]

    re, im = jnp.linspace(-2, 0.6, 13), jnp.linspace(-1.1, 1.1, 11)
    expected, found = both(mandelbrot, re.astype(jnp.float32), im.astype(jnp.float32))
    assert expected.max() == 20 and expected.min() < 3
    assert (found != expected).mean() < 0.02


def test_integers_floor_and_wrap():
    @dsl.kernel(grid=1, out=lambda x: dsl.like(x, shape=(6, x.shape[0])))
    def integers(x, o):
        t = x[:]
        for row, value in enumerate((t // 3, t % 3, t >> 1, t * 2_000_000_000, dsl.popcount(t), ~t)):
            o[row, :] = value

    x = jnp.asarray([-7, -1, 0, 5, 2_000_000_000], jnp.int32)
    expected, found = both(integers, x)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(expected[:2, 0], [-3, 2])

"""Generated CUDA C++ and Metal source, executed, against the float64 oracle of the same kernel.

The library is in test_mutation.py: there each kernel must be right before it is broken.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dsl
from dsl import atomic_add, cdiv, loop, pid, tile, where, zeros
from dsl.kernels.softmax import softmax
from dsl.lower.c.dialects import CUDA, METAL
from dsl.lower.c.emit import emit
from tests.dsl.targets.sim.cases import agrees, normal, prepared

DIALECTS = (CUDA, METAL)
NUMPY = {"f32": jnp.float32, "f16": jnp.float16, "bf16": jnp.bfloat16}


def dialects(function):
    return pytest.mark.parametrize("dialect", DIALECTS, ids=lambda d: d.name)(function)


def _swapped(case, dialect):
    ir, arrays, expected = case
    return ir, dialect, arrays, expected


def check(kernel, args, dialect, out=None, **keywords):
    return agrees(*_swapped(prepared(kernel, args, keywords, out), dialect))


@dialects
@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_narrow_storage_is_rounded_once_at_the_end(dialect, dtype):
    ir, arrays, (expected,) = prepared(softmax, (normal(9, 40, dtype=NUMPY[dtype]),), {})
    (found,) = agrees(ir, dialect, arrays, (expected,), tolerance=4e-3)
    assert found.dtype == NUMPY[dtype]
    close = np.asarray(found, np.float64) == np.asarray(expected.astype(NUMPY[dtype]), np.float64)
    assert close.mean() > 0.99


@dialects
def test_rows_in_runs_of_sixteen_bytes(dialect):
    """Of f16 and, twice as many bytes, f32; with a row shared by all, and both reductions."""

    @dsl.kernel(grid=3, out=lambda x, w: [dsl.like(x, dtype="f32"), dsl.like(x, shape=(3, x.shape[1]))])
    def scaled(x, w, o, m):
        rows = tile(pid(0) * 4, 4)
        t = x[rows, :].f32 * w[:]
        o[rows, :] = t - t.max(1)
        m[pid(0), :] = where(rows.rows() < x.shape[0], t, -1e4).max(0)

    ir, arrays, expected = prepared(scaled, (normal(11, 256, dtype=jnp.float16), normal(256)), {})
    program = emit(ir, dialect)
    assert program.source.count("fetch<uint4>(&v") == 2 and "keep<uint4>" in program.source
    agrees(ir, dialect, arrays, expected, program=program, tolerance=4e-3)


@dialects
def test_atomic_adds_make_a_histogram(dialect):
    @dsl.kernel(grid=lambda x: cdiv(x.shape[0], 4), out=lambda x: dsl.like(x, shape=(6,)))
    def histogram(x, o):
        block = tile(pid(0) * 4, 4)
        counted = where(x.column[block] == tile(0, 6).cols(), 1, 0)
        real = where(block.rows() < x.shape[0], counted, 0)
        atomic_add(o, tile(0, 6), real.sum(0))

    x = jnp.asarray(np.random.default_rng(3).integers(0, 6, 23), jnp.int32)
    check(histogram, (x,), dialect)


@dialects
def test_carries_that_change_places(dialect):
    @dsl.kernel(grid=2, out=lambda x: dsl.like(x))
    def swapped(x, o):
        rows = tile(pid(0) * 5, 5)
        first = x[rows, :]
        a, b = loop(0, 3, lambda j, c: (c[1], c[0]), (first, first * 2.0))
        o[rows, :] = a + 10.0 * b

    check(swapped, (normal(9, 35),), dialect)


@dialects
def test_an_update_at_data_keeps_the_rest(dialect):
    @dsl.kernel(grid=lambda new: new.shape[0])
    def append(new, at, cache):
        cache[at[0] + pid(0), :] = new[pid(0), :]

    for at in (5, -1, 40):
        args = (jnp.ones((4, 3)), jnp.array([at], jnp.int32))
        check(append, args, dialect, out=dsl.update(normal(7, 3)))


@dialects
@pytest.mark.parametrize("dtype", ["i4", "u4"])
def test_nibbles_unpack_in_any_window(dialect, dtype):
    data = np.random.default_rng(1).integers(0, 256, (5, 32), dtype=np.uint8)

    @dsl.kernel(grid=3, out=lambda w: dsl.like(w, shape=(6, 30), dtype="i32"))
    def unpacked(w, o):
        rows = tile(pid(0) * 2, 2)
        o[rows, :] = w[rows, tile(50, 30)]

    check(unpacked, (dsl.Packed(jnp.asarray(data), dtype),), dialect)


@dialects
def test_integers_floor_wrap_and_narrow(dialect):
    @dsl.kernel(grid=1, out=lambda x, d: [dsl.like(x, shape=(9, x.shape[0])), dsl.like(x, dtype="i8")])
    def integers(x, d, o, narrow):
        t = x[:]
        powers = (t // d[:], t % d[:], t // -3, t >> 1, t * 2_000_000_000, dsl.popcount(t), ~t, -t)
        for row, value in enumerate(powers):
            o[row, :] = value
        o[8, :] = dsl.round_(t.f32 / 2.0).i32
        narrow[:] = t

    x = jnp.asarray([-7, -1, 0, 5, 2_000_000_000, -(2**31)], jnp.int32)
    d = jnp.asarray([2, -3, 5, -5, 7, -1], jnp.int32)
    check(integers, (x, d), dialect)


@dialects
def test_special_functions(dialect):
    @dsl.kernel(grid=1, out=lambda x: dsl.like(x, shape=(7, x.shape[0])))
    def functions(x, o):
        t = x[:]
        positive = dsl.abs_(t) + 0.5
        for row, value in enumerate(
            (dsl.erf(t), dsl.tanh(t), dsl.log(positive), dsl.sqrt(positive), dsl.rsqrt(positive))
        ):
            o[row, :] = value
        o[5, :] = dsl.round_(t * 2.0)
        o[6, :] = where((t < 0.0) ^ (t < 1.0), t, 0.0)

    agrees(*_swapped(prepared(functions, (jnp.linspace(-5.0, 5.0, 41),), {}), dialect), tolerance=2e-6)


@dialects
def test_a_dot_too_deep_for_shared_memory_goes_in_chunks(dialect):
    @dsl.kernel(grid=1, out=lambda a, b: dsl.like(a, shape=(a.shape[0], b.shape[0])))
    def product(a, b, o):
        o[:, :] = dsl.dot(a[:, :], b[:, :], transpose_b=True)

    check(product, (normal(12, 333), normal(40, 333, seed=1)), dialect)


@dialects
def test_columns_of_integers_and_floats_reduce_over_warps(dialect):
    @dsl.kernel(grid=1, out=lambda x, n: [dsl.like(x, shape=(4, x.shape[1])), dsl.like(n, shape=(3, 1))])
    def reduced(x, n, o, m):
        t = x[:, :] + zeros(x.shape)
        o[0, :], o[1, :] = t.max(0), t.min(0)
        o[2, :] = t.sum(0)
        o[3, :] = t.sum(1).sum(0)
        column = n.column[:]
        m[0, :], m[1, :], m[2, :] = column.sum(0), column.max(0), column.min(0)

    check(reduced, (normal(19, 37), jnp.arange(-9, 14, dtype=jnp.int32) * 100_000_000), dialect)


@pytest.mark.parametrize("backend", ["sim:cuda", "sim:metal"])
def test_backends_run_inside_jit_vmap_and_grad(backend):
    x = normal(3, 4, 9)
    call = jax.jit(jax.vmap(lambda x: softmax(x, backend=backend, BM=4)))
    np.testing.assert_allclose(call(x), jax.nn.softmax(x), rtol=1e-5)
    found = jax.grad(lambda x: (softmax(x, backend=backend, BM=4) ** 2).sum())(x[0])
    expected = jax.grad(lambda x: (jax.nn.softmax(x) ** 2).sum())(x[0])
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("backend", ["sim:cuda", "sim:metal"])
def test_what_a_target_cannot_hold_is_refused_with_the_reason(backend):
    with pytest.raises(dsl.BackendError, match="registers of each of"):
        softmax(normal(8, 40_000), backend=backend)


def test_without_a_compiler_the_reason_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(dsl.BackendError, match="install g"):
        softmax(normal(2, 3), backend="sim:cuda")

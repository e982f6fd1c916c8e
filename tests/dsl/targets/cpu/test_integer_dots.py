"""Row sums of 8- and 16-bit products: exact against NumPy on each instruction set that this machine has."""

from functools import partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dsl
from dsl import Packed, cdiv, loop, pid, tile, zeros
from dsl.kernels.integer_linear import int4_int16_linear, int8_int16_linear
from dsl.kernels.round16 import round_to_int16
from dsl.targets.cpu import build
from dsl.targets.cpu.target import CpuTarget


@dsl.kernel(
    grid=lambda w, BM: cdiv(w.shape[0], BM),
    out=lambda x, w: dsl.like(x, shape=(w.shape[0], 1), dtype="f32"),
)
def row_sums(x, w, scale, o, *, BM=4, BK=32):
    """o = 1000 + sum over chunks of scale * (w * x): of the form that integer dots are made of."""
    rows = tile(pid(0) * BM, BM)

    def add(j, total):
        some = tile(j * BK, BK)
        return total + scale[rows, tile(j, 1)] * (w[rows, some] * x[0, some]).sum(1).f32

    o[rows, :] = loop(0, cdiv(w.shape[1], BK), add, zeros((BM, 1)) + 1000.0)


EXTREMES = {"i8": (-128, 127), "u8": (0, 255), "i4": (-8, 7), "u4": (0, 15)}


def numbers(dtype, *shape, seed=0):
    """Random numbers of a dtype, many of them its least and its greatest."""
    rng = np.random.default_rng(seed)
    low, high = EXTREMES[dtype]
    found = rng.integers(low, high + 1, shape)
    return np.where(rng.random(shape) < 0.5, rng.choice([low, high], shape), found)


def stored(values, dtype):
    """As the kernel takes it: nibbles in groups of 32, low halves first."""
    if dtype in ("i8", "u8"):
        return jnp.asarray(values, jnp.int8 if dtype == "i8" else jnp.uint8)
    groups = (values & 15).reshape(len(values), -1, 2, 16)
    return Packed(
        jnp.asarray(groups[:, :, 0] | groups[:, :, 1] << 4, jnp.uint8).reshape(len(values), -1), dtype
    )


def expected(x, w, scale, chunk):
    parts = (w.astype(np.int64) * x).reshape(len(w), -1, chunk).sum(2)
    return 1000 + (parts * scale.astype(np.float64)).sum(1, keepdims=True)


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from(list(EXTREMES)), st.integers(1, 19), st.sampled_from([2, 3, 5]), st.sampled_from([32, 64])
)
def test_sums_are_exact_whatever_the_bytes(dtype, out, chunks, size):
    x, w = numbers("i8", 1, chunks * size), numbers(dtype, out, chunks * size, seed=1)
    scale = np.random.default_rng(2).standard_normal((out, chunks)).astype(np.float32)
    run = partial(row_sums, jnp.asarray(x, jnp.int8), stored(w, dtype), jnp.asarray(scale), BK=size)
    assert "integer_dots.h" in row_sums.source("cpu", *run.args, BK=size)
    wanted = expected(x, w, scale, size)
    np.testing.assert_allclose(run(backend="cpu"), wanted, rtol=1e-5, atol=abs(wanted).max() * 1e-6)


def test_the_worst_case_does_not_saturate():
    """-128 times -128 and 255 times -128 all along: where the 8-bit instruction of AVX2 would clip."""
    for dtype, value in (("i8", -128), ("u8", 255)):
        w, x = np.full((4, 64), value), np.full((1, 64), -128)
        found = row_sums(jnp.asarray(x, jnp.int8), stored(w, dtype), jnp.ones((4, 2)), backend="cpu")
        np.testing.assert_array_equal(found, np.full((4, 1), 1000 + 64 * -128 * value, np.float32))


def test_a_sum_that_is_used_in_the_loop_is_computed_as_written():
    @dsl.kernel(grid=1, out=lambda x, w: dsl.like(x, shape=(4, 1), dtype="f32"))
    def decaying(x, w, o):
        def add(j, total):
            some = tile(j * 32, 32)
            return total * 0.5 + (w[:, some] * x[0, some]).sum(1).f32

        o[:, :] = loop(0, 2, add, zeros((4, 1)))

    x, w = numbers("i8", 1, 64), numbers("i8", 4, 64, seed=1)
    parts = (w.astype(np.int64) * x).reshape(4, 2, 32).sum(2)
    args = jnp.asarray(x, jnp.int8), jnp.asarray(w, jnp.int8)
    assert "integer_dots.h" not in decaying.source("cpu", *args)
    np.testing.assert_allclose(decaying(*args, backend="cpu")[:, 0], parts[:, 0] * 0.5 + parts[:, 1])


@pytest.mark.parametrize("march", ["x86-64", "haswell", "native"])
@pytest.mark.parametrize("kind", ["i8", "u4"])
def test_each_instruction_set_gives_the_oracles_answer(kind, march, tmp_path, monkeypatch):
    used = build.compiler()
    if "-march=native" not in used.flags:
        pytest.skip("not x86-64")
    if march == "haswell" and "avx2" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this processor has no AVX2")
    flags = tuple(flag for flag in used.flags if flag != "-march=native")
    other = build.Compiler(used.path, (*flags, f"-march={march}"), used.identity + march)
    monkeypatch.setattr(build, "compiler", lambda: other)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((3, 96)), jnp.float32)
    high, low, step, sums = round_to_int16(x, backend="oracle")
    w, scale = stored(numbers(kind, 11, 96), kind), jnp.ones((11, 3))
    kernel = (
        int8_int16_linear.ir(high, low, step, w, scale, target="cpu")
        if kind == "i8"
        else int4_int16_linear.ir(high, low, step, sums, w, scale, scale, target="cpu")
    )
    assert CpuTarget().refuses(kernel) is None  # compiled, run and compared with the oracle


@pytest.mark.parametrize("backend", ["cpu", "xla", "oracle"])
@pytest.mark.parametrize("rows", [1, 4, 5, 6])
@pytest.mark.parametrize("kind", ["i8", "u4"])
def test_products_with_16_bit_activations(kind, rows, backend):
    x = np.random.default_rng(0).standard_normal((rows, 96)).astype(np.float32)
    high, low, step, sums = round_to_int16(jnp.asarray(x), backend=backend)
    w = numbers(kind, 41, 96)
    scale, minimum = np.random.default_rng(1).standard_normal((2, 41, 3)).astype(np.float32)
    dense = w * np.repeat(scale, 32, 1).astype(np.float64)
    if kind == "i8":
        found = int8_int16_linear(high, low, step, stored(w, kind), jnp.asarray(scale), backend=backend)
    else:
        dense = dense + np.repeat(minimum, 32, 1)
        given = stored(w, kind), jnp.asarray(scale), jnp.asarray(minimum)
        found = int4_int16_linear(high, low, step, sums, *given, backend=backend)
    wanted = x @ dense.T
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=2e-5 * abs(wanted).max())


@pytest.mark.parametrize("kind", ["i8", "u4"])
def test_a_row_has_the_same_bits_alone_and_beside_others(kind):
    x = jnp.asarray(np.random.default_rng(0).standard_normal((8, 608)), jnp.float32)
    w, scale = stored(numbers(kind, 101, 608), kind), jnp.ones((101, 19))

    def product(x):
        high, low, step, sums = round_to_int16(x, backend="cpu")
        if kind == "i8":
            return int8_int16_linear(high, low, step, w, scale, backend="cpu")
        return int4_int16_linear(high, low, step, sums, w, scale, scale, backend="cpu")

    alone = [np.asarray(product(x[row : row + 1]))[0] for row in range(8)]
    for rows in (2, 3, 5, 8):
        np.testing.assert_array_equal(product(x[:rows]), alone[:rows])

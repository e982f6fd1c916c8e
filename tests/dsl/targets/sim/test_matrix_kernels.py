"""Kernels in the layouts of matrix units, executed, against the float64 oracle: ragged, odd, several passes.

f16 runs as CUDA and bf16 as Metal; the other way round, and more shapes, is a long run.
"""

import jax.numpy as jnp
import numpy as np
import pytest

import dsl
from dsl import dot, exp, loop, pid, tile, zeros
from dsl.kernels.attention import flash_attention, ragged_attention
from dsl.kernels.decode import decode_attention
from dsl.kernels.distance import distance
from dsl.kernels.matmul import batched_matmul, matmul, matmul_bias
from dsl.kernels.quant_matmul import int4_matmul, int8_matmul
from dsl.kernels.softmax import softmax
from dsl.lower.c.dialects import CUDA, METAL
from dsl.lower.c.emit import emit
from dsl.lower.c.layout import matrix_layout
from tests.dsl.targets.sim.cases import agrees, normal, packed, prepared

TOLERANCE = {jnp.float16: 2e-3, jnp.bfloat16: 1.6e-2, jnp.float32: 2e-4}
"""Of narrow inputs and outputs, as in the tests of the library on XLA."""


def ints(*shape):
    return jnp.asarray(np.random.default_rng(4).integers(-128, 128, shape), jnp.int8)


def attended(queries, keys, dim, dtype):
    q, k, v = (queries, 4, 0), (keys, 2, 1), (keys, 2, 2)
    return tuple(normal(1, heads, length, dim, seed=seed, dtype=dtype) for length, heads, seed in (q, k, v))


LENGTHS = jnp.asarray([19, 37], jnp.int32)
KERNELS = {
    "matmul": lambda t: (matmul, (normal(70, 75, dtype=t), normal(75, 40, dtype=t)), {"BM": 64}),
    "matmul of odd tiles": lambda t: (
        matmul,
        (normal(45, 43, dtype=t), normal(43, 27, dtype=t)),
        {"BM": 36, "BN": 20, "BK": 22},
    ),
    "matmul_bias": lambda t: (
        matmul_bias,
        (normal(17, 45, dtype=t), normal(45, 23, dtype=t), normal(23, dtype=t)),
        {"activation": "gelu"},
    ),
    "batched_matmul": lambda t: (
        batched_matmul,
        (normal(2, 17, 40, dtype=t), normal(2, 40, 24, dtype=t)),
        {"BM": 16, "BN": 16},
    ),
    "flash_attention": lambda t: (flash_attention, attended(37, 70, 24, t), {"BM": 32, "BN": 32}),
    "flash_attention windowed": lambda t: (
        flash_attention,
        attended(20, 45, 16, t),
        {"BM": 16, "BN": 16, "window": 7},
    ),
    "ragged_attention": lambda t: (
        ragged_attention,
        (*(normal(2, 2, 37, 16, seed=n, dtype=t) for n in range(3)), LENGTHS),
        {"BM": 32, "BN": 16, "causal": False},
    ),
    "decode_attention": lambda t: (
        decode_attention,
        (
            normal(2, 8, 40, dtype=t),
            normal(2, 2, 37, 40, seed=1, dtype=t),
            normal(2, 2, 37, 40, seed=2, dtype=t),
            LENGTHS,
        ),
        {"BN": 16},
    ),
    "distance": lambda t: (
        distance,
        (normal(21, 24, dtype=t), normal(37, 24, seed=1, dtype=t)),
        {"metric": "l2"},
    ),
    "int8_matmul": lambda t: (
        int8_matmul,
        (normal(37, 96, dtype=t) / 16, ints(41, 96), normal(41, 3, seed=1)),
        {},
    ),
    "int4_matmul": lambda t: (
        int4_matmul,
        (normal(37, 64, dtype=t), packed(41, 32), normal(41, 2, seed=1), normal(41, 2, seed=2)),
        {},
    ),
}


def check(name, dialect, dtype):
    kernel, args, keywords = KERNELS[name](dtype)
    ir, arrays, expected = prepared(kernel, args, keywords)
    program = emit(ir, dialect)
    assert dialect.unit.name in program.layout
    agrees(ir, dialect, arrays, expected, program=program, tolerance=TOLERANCE[dtype])


@pytest.mark.parametrize(("dialect", "dtype"), [(CUDA, jnp.float16), (METAL, jnp.bfloat16)])
@pytest.mark.parametrize("name", KERNELS)
def test_library_kernels(name, dialect, dtype):
    check(name, dialect, dtype)


@pytest.mark.soak
@pytest.mark.parametrize(("dialect", "dtype"), [(CUDA, jnp.bfloat16), (METAL, jnp.float16)])
@pytest.mark.parametrize("name", KERNELS)
def test_library_kernels_the_other_way_round(name, dialect, dtype):
    check(name, dialect, dtype)


@dsl.kernel(grid=1, out=lambda a, c: dsl.like(a, shape=(a.shape[0], c.shape[1]), dtype="f32"))
def mixed(a, b, c, o):
    """Two dots, one of them of f32, reductions of both axes, and a window of the columns."""
    ab = dot(a[:, :], b[:, :])
    ab = exp((ab - ab.max(1)) * 0.1) + (ab - ab.min(0)) * 0.01 + ab.sum(0).max(1) * 0.001
    o[:, :] = dot(ab, c[:, :].f32) + a[:, tile(0, c.shape[1])].f32.sum(1)


@pytest.mark.parametrize("dialect", (CUDA, METAL), ids=lambda d: d.name)
def test_reductions_of_both_axes_and_two_kinds_of_dots(dialect):
    args = tuple(normal(*shape, dtype=jnp.float16) for shape in ((37, 21), (21, 34), (34, 7)))
    ir, arrays, expected = prepared(mixed, args, {})
    program = emit(ir, dialect, matrix_layout(dialect.unit, 2))
    agrees(ir, dialect, arrays, expected, program=program, tolerance=1e-3)


@pytest.mark.parametrize("dialect", (CUDA, METAL), ids=lambda d: d.name)
def test_softmax_and_column_reductions_in_this_layout(dialect):
    @dsl.kernel(grid=1, out=lambda x: [dsl.like(x, shape=(3, x.shape[1])), dsl.like(x)])
    def columns(x, o, p):
        t = x[:, :] + zeros(x.shape)
        o[0, :], o[1, :], o[2, :] = t.max(0), t.min(0), t.sum(0)
        e = exp(t - t.max(1))
        p[:, :] = e / e.sum(1)

    for kernel, args in ((columns, (normal(45, 37),)), (softmax, (normal(13, 40),))):
        ir, arrays, expected = prepared(kernel, args, {})
        layout = matrix_layout(dialect.unit, 4)
        agrees(ir, dialect, arrays, expected, program=emit(ir, dialect, layout))


@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("dialect", (CUDA, METAL), ids=lambda d: d.name)
def test_a_dot_too_deep_for_shared_memory_goes_in_chunks(dialect, transpose_b):
    @dsl.kernel(grid=1, out=lambda a: dsl.like(a, shape=(12, 64), dtype="f32"))
    def product(a, b, o):
        o[:, :] = dot(a[:, :], b[:, :], transpose_b=transpose_b)

    right = normal(*((64, 533) if transpose_b else (533, 64)), seed=1, dtype=jnp.float16)
    ir, arrays, expected = prepared(product, (normal(12, 533, dtype=jnp.float16), right), {})
    program = emit(ir, dialect, matrix_layout(dialect.unit, 4))
    assert program.source.count(dialect.barrier) > 2
    agrees(ir, dialect, arrays, expected, program=program)


@pytest.mark.parametrize("dialect", (CUDA, METAL), ids=lambda d: d.name)
def test_wide_weights_are_rounded_on_their_way_to_the_unit(dialect):
    """Of f32, 16 bytes are half of what a thread takes of a row; these weights are exact in f16."""

    @dsl.kernel(grid=1, out=lambda a, b: dsl.like(a, shape=(a.shape[0], b.shape[0]), dtype="f32"))
    def rounded(a, b, o):
        o[:, :] = dot(a[:, :], (b[:, :] * 0.5).f16, transpose_b=True)

    args = (normal(20, 40, dtype=jnp.float16), jnp.round(normal(24, 40) * 8))
    ir, arrays, expected = prepared(rounded, args, {})
    program = emit(ir, dialect)
    assert program.source.count("fetch<uint4>") == 1 and dialect.unit.name in program.layout
    agrees(ir, dialect, arrays, expected, program=program)


def test_f32_dots_on_apples_units_stay_exact():
    ir, arrays, expected = prepared(matmul, (normal(30, 45), normal(45, 23, seed=1)), {"BM": 16})
    program = emit(ir, METAL, matrix_layout(METAL.unit, 2))
    assert "simdgroup_matrix<float, 8, 8> b" in program.source
    agrees(ir, METAL, arrays, expected, program=program)


@dsl.kernel(grid=3, out=lambda a: dsl.like(a, shape=(3, 40, 40), dtype="f32"))
def grams(a, o):
    """One tile as both operands, in as many passes as the program has of them: none, one or two."""

    def step(n, total):
        part = a[:, tile(n * 20, 20)]
        return total + dot(part, part, transpose_b=True)

    o[pid(0), :, :] = loop(0, pid(0), step, zeros((40, 40)))


@pytest.mark.parametrize(("dialect", "dtype"), [(CUDA, jnp.float16), (METAL, jnp.bfloat16)])
def test_a_loop_with_no_pass_or_some_loads_no_more_than_it_has(dialect, dtype):
    ir, arrays, expected = prepared(grams, (normal(40, 40, dtype=dtype),), {})
    program = emit(ir, dialect)
    assert "next" in program.source
    agrees(ir, dialect, arrays, expected, program=program, tolerance=TOLERANCE[dtype])

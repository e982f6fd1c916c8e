"""Kernels in the layouts of matrix units, executed, against the float64 oracle: ragged, odd, several passes.

f16 runs as CUDA and bf16 as Metal; the other way round, and more shapes, is a long run.
"""

import jax.numpy as jnp
import pytest

import dsl
from dsl import dot, exp, loop, pid, tile, zeros
from dsl.kernels.matmul import matmul
from dsl.kernels.softmax import softmax
from dsl.lower.c.dialects import CUDA, METAL
from dsl.lower.c.emit import emit
from dsl.lower.c.layout import matrix_layout
from tests.dsl.targets.sim.cases import agrees, normal, prepared
from tests.dsl.targets.sim.matrix_cases import KERNELS, SMALL, TOLERANCE, deep


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


@pytest.mark.parametrize("dialect", (CUDA, METAL), ids=lambda d: d.name)
def test_reductions_of_both_axes_and_two_kinds_of_dots(dialect):
    ir, arrays, expected = prepared(*SMALL["mixed"])
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
    ir, arrays, expected = prepared(*deep(transpose_b), {})
    program = emit(ir, dialect, matrix_layout(dialect.unit, 4))
    assert program.source.count(dialect.barrier) > 2
    agrees(ir, dialect, arrays, expected, program=program)


@pytest.mark.parametrize("dialect", (CUDA, METAL), ids=lambda d: d.name)
def test_wide_weights_are_rounded_on_their_way_to_the_unit(dialect):
    ir, arrays, expected = prepared(*SMALL["narrowed"])
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


@pytest.mark.parametrize("dialect", (CUDA, METAL), ids=lambda d: d.name)
@pytest.mark.parametrize("name", ["beside_runs", "tails", "both_sides", "shallow"])
def test_windows_amid_runs_tails_and_tiles_of_several_uses(name, dialect):
    ir, arrays, expected = prepared(*SMALL[name])
    program = emit(ir, dialect)
    assert dialect.unit.name in program.layout
    agrees(ir, dialect, arrays, expected, program=program, tolerance=2e-3)

"""Which layout kernels are emitted in, and what the matrix layouts need of registers and shared memory."""

import dataclasses

import jax.numpy as jnp
import pytest

import dsl
from dsl.kernels.attention import flash_attention
from dsl.kernels.decode import decode_attention
from dsl.kernels.matmul import matmul
from dsl.kernels.quant_matmul import int8_matmul
from dsl.kernels.softmax import softmax
from dsl.lower.c.choose import choose, choose_row
from dsl.lower.c.dialects import CUDA, METAL
from dsl.lower.c.emit import Unsupported, emit
from dsl.lower.c.layout import MMA_16_8_16, matrix_layout, wide_layout
from dsl.lower.c.placement import place
from dsl.lower.c.registers import SCRATCH, pressure
from dsl.lower.c.shared import plan

DIALECTS = pytest.mark.parametrize("dialect", (CUDA, METAL), ids=lambda d: d.name)


def ones(*shape, dtype=jnp.float16):
    return jnp.ones(shape, dtype)


def one_dot(m, k, n, transpose_b=False, dtype=jnp.float16):
    @dsl.kernel(grid=1, out=lambda a: dsl.like(a, shape=(m, n), dtype="f32"))
    def product(a, b, o):
        o[:, :] = dsl.dot(a[:, :], b[:, :], transpose_b=transpose_b)

    return product.ir(ones(m, k, dtype=dtype), ones(*((n, k) if transpose_b else (k, n)), dtype=dtype))


@DIALECTS
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_dots_of_narrow_floats_choose_the_matrix_unit(dialect, dtype):
    q = ones(1, 4, 64, 64, dtype=dtype)
    weights, scale = ones(64, 64, dtype=jnp.int8), ones(64, 2, dtype=jnp.float32)
    for ir in (
        matmul.ir(q[0, 0], q[0, 0]),
        flash_attention.ir(q, q, q),
        decode_attention.ir(q[:, :, 0], q[:, :1], q[:, :1], jnp.ones(1, jnp.int32)),
        int8_matmul.ir(q[0, 0], weights, scale),
    ):
        assert choose(ir, dialect).layout.unit == dialect.unit, ir.name
        assert dialect.unit.name in emit(ir, dialect).layout


@DIALECTS
def test_other_kernels_are_in_rows_and_the_reason_is_said(dialect):
    told = {
        "no dot takes f16 or bf16": [softmax.ir(ones(8, 8)), one_dot(32, 32, 32, dtype=jnp.float32)],
        "would fill little of": [one_dot(1, 64, 32), one_dot(32, 64, 1)],
    }
    for reason, kernels in told.items():
        for ir in kernels:
            choice = choose(ir, dialect)
            assert choice.layout == choose_row(ir) and reason in choice.reason
            assert reason in emit(ir, dialect).layout


def test_a_gpu_without_a_matrix_unit_gets_rows():
    old = dataclasses.replace(CUDA, unit=None)
    choice = choose(one_dot(32, 32, 32), old)
    assert choice.layout.unit is None and choice.reason == "there is no matrix unit"


@DIALECTS
def test_what_does_not_fit_shared_memory_or_registers_falls_back_with_the_reason(dialect):
    wide = choose(one_dot(16, 32, 2048), dialect)
    assert wide.layout.unit is None and ("shared memory" in wide.reason or "registers" in wide.reason)


def test_operands_that_a_loop_loads_are_shared_and_read_sixteen_bytes_at_a_time():
    source = emit(matmul.ir(ones(64, 64), ones(64, 64), BM=64, BN=64), CUDA).source
    assert source.count("put<uint4>(halves") == 2 and "pool[" in source
    assert (
        "fetch<uint4>(&v" in source and "fetch<unsigned>(" not in source and "keep<unsigned>(&o_ref" in source
    )


def test_a_left_operand_that_stays_for_the_loop_stays_in_registers():
    q = ones(1, 1, 64, 64)
    source = emit(flash_attention.ir(q, q, q, BM=64, BN=32), CUDA).source
    assert source.count("put<uint4>(halves") == 2 and "fetch<unsigned>(&v" in source


def test_what_is_added_to_a_dot_goes_in_before_it():
    ir = matmul.ir(ones(64, 64), ones(64, 64))
    source = emit(ir, CUDA).source
    (dot,) = [op for loop in ir.body if isinstance(loop, dsl.ir.ops.Loop) for op in loop.body[-2:-1]]
    assert isinstance(dot, dsl.ir.ops.Dot)
    assert f"v{dot.result.id}[" not in source


@DIALECTS
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("depth", [16, 48, 1000])
def test_the_inner_axis_is_cut_to_what_shared_memory_holds(dialect, depth, transpose_b):
    ir = one_dot(64, depth, 128, transpose_b)
    layout = matrix_layout(dialect.unit, 4)
    placement = place(ir, layout)
    found = plan(ir, placement, dialect.shared_limit)
    assert 0 < 4 * found.count <= dialect.shared_limit
    (chunk,) = found.chunks.values()
    assert chunk == depth or chunk % 32 == 0
    assert (chunk == depth) == (depth < 1000)


def test_two_dots_share_their_barriers_in_this_layout_too():
    q = ones(1, 1, 64, 32)
    for dialect in (CUDA, METAL):
        assert emit(flash_attention.ir(q, q, q), dialect).source.count(dialect.barrier) == 2


def test_registers_are_those_alive_at_once():
    """A chain of elementwise ops over one tile of 2 x 8 slots needs one tile at a time, a sum of two two."""

    @dsl.kernel(grid=1, out=lambda x: dsl.like(x))
    def chain(x, o):
        o[:, :] = dsl.exp(x[:, :] * 2.0 + 1.0)

    @dsl.kernel(grid=1, out=lambda x: dsl.like(x))
    def both(x, o):
        t = x[:, :]
        o[:, :] = t * dsl.exp(t)

    layout = matrix_layout(MMA_16_8_16, 1)
    tile = 16
    for kernel, tiles in ((chain, 1), (both, 2)):
        ir = kernel.ir(ones(16, 32, dtype=jnp.float32))
        scalars = pressure(ir, place(ir, layout)) - SCRATCH - tiles * tile
        assert 0 <= scalars < 8


@DIALECTS
def test_tiles_that_load_zeros_past_their_end_are_not_cut_again(dialect):
    """Of 24 columns, a step of the unit has 16 or 8; a window within a longer axis holds what follows it."""

    def cuts(keys, columns):
        @dsl.kernel(grid=1, out=lambda a: dsl.like(a, shape=(16, 16), dtype="f32"))
        def product(a, b, o):
            some = dsl.tile(keys, 22)
            o[:, :] = dsl.dot(a[:, some], b[:, some], transpose_b=True)

        args = ones(16, columns), ones(16, columns)
        return emit(product.ir(*args), dialect, matrix_layout(dialect.unit, 1)).source.count(" < 22 ? v")

    assert cuts(0, 22) == 0 and cuts(3, 40) == 0
    assert cuts(30, 40) > 0


def softmax_over(rows, columns, dtype=jnp.float32):
    return softmax.ir(ones(rows, columns, dtype=dtype), BM=rows)


@DIALECTS
@pytest.mark.parametrize(
    ("columns", "dtype", "warps", "run"),
    [
        (1029, "f32", 2, 1),
        (1536, "f16", 2, 8),
        (4096, "f32", 8, 4),
        (4096, "f16", 8, 8),
        (5000, "f32", 8, 4),
        (16384, "f16", 16, 8),
        (20000, "f16", 32, 8),
        (20001, "f32", 32, 1),
    ],
)
def test_long_rows_lie_along_all_warps_with_sixteen_or_more_elements_a_thread(
    dialect, columns, dtype, warps, run
):
    for rows in (1, 7):
        choice = choose(softmax_over(rows, columns, {"f32": jnp.float32, "f16": jnp.float16}[dtype]), dialect)
        assert choice.layout == wide_layout(warps, run)
        assert 16 <= choice.layout.columns.count(columns) <= 32 and "many columns" in choice.reason


@DIALECTS
def test_short_rows_many_rows_and_dots_do_not_lie_along_all_warps(dialect):
    for ir in (softmax_over(1, 1024), softmax_over(8, 4096), one_dot(1, 2048, 4, dtype=jnp.float32)):
        assert choose(ir, dialect).layout.name == "row"


@DIALECTS
def test_dots_are_refused_in_the_wide_layout(dialect):
    with pytest.raises(Unsupported, match="wide layout has no dots"):
        emit(one_dot(4, 32, 32), dialect, wide_layout(2, 1))


@DIALECTS
def test_a_wide_row_is_joined_through_shared_memory_by_one_barrier_a_reduction(dialect):
    program = emit(softmax_over(1, 4096), dialect)
    assert program.source.count(dialect.barrier) == 2 and program.shared_bytes == 2 * 8 * 4
    assert program.source.count("if (lane == 0) pool[") == 2


@pytest.mark.parametrize(("columns", "rows"), [(64, 32), (512, 8), (1024, 4), (1025, 1), (20000, 1)])
def test_row_kernels_take_fewer_rows_on_a_gpu_the_longer_they_are(columns, rows):
    for target in ("cuda", "metal"):
        ir = softmax.ir(ones(64, columns), target=target)
        assert ir.grid == (64 // rows,)

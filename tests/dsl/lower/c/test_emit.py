"""What the emitted source holds and leaves out: guards, barriers, shared memory, names."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

import dsl
from dsl import pid, tile
from dsl.kernels.attention import flash_attention
from dsl.kernels.matmul import matmul
from dsl.kernels.softmax import softmax
from dsl.lower.c.choose import choose_row
from dsl.lower.c.dialects import CUDA, METAL
from dsl.lower.c.emit import Unsupported, emit
from dsl.lower.c.layout import row_layout
from dsl.lower.c.placement import place
from dsl.lower.c.shared import plan

DIALECTS = pytest.mark.parametrize("dialect", (CUDA, METAL), ids=lambda d: d.name)


def ones(*shape, dtype=jnp.float32):
    return jnp.ones(shape, dtype)


@DIALECTS
def test_windows_that_fit_have_no_guards(dialect):
    source = emit(softmax.ir(ones(16, 64), BM=8), dialect).source
    body = source[source.index("softmax_kernel") :]
    assert " < 16" not in body and " < 64" not in body and "if (" not in body


@DIALECTS
def test_ragged_windows_are_guarded_where_they_end(dialect):
    source = emit(softmax.ir(ones(13, 37), BM=5), dialect).source
    assert "< 13 && (lane + 32 * j) < 37 ? " in source


@DIALECTS
def test_a_bound_is_not_guarded_twice(dialect):
    """A window of 16 over 9 columns: what is within the columns is within the window."""
    source = emit(matmul.ir(ones(17, 9), ones(9, 9), BM=6, BN=16, BK=9), dialect).source
    stores = [line for line in source.splitlines() if "if (" in line and "o_ref[" in line]
    assert len(stores) == 1 and "lane < 16" not in stores[0] and "< 9" in stores[0] and "< 6" in stores[0]


@DIALECTS
def test_softmax_needs_no_shared_memory_and_no_barrier(dialect):
    program = emit(softmax.ir(ones(13, 37)), dialect)
    assert program.shared_bytes == 0
    assert dialect.barrier not in program.source and "pool" not in program.source


@DIALECTS
def test_two_dots_in_a_loop_share_their_barriers(dialect):
    q = ones(1, 1, 64, 32)
    assert emit(flash_attention.ir(q, q, q), dialect).source.count(dialect.barrier) == 2


@DIALECTS
def test_one_dot_in_a_loop_has_one_barrier_before_and_one_after_it_is_staged(dialect):
    assert emit(matmul.ir(ones(64, 64), ones(64, 64)), dialect).source.count(dialect.barrier) == 2


@pytest.mark.parametrize("depth", [1, 31, 33, 100, 1000])
@DIALECTS
def test_shared_memory_stays_within_the_limit_however_deep_a_dot(dialect, depth):
    @dsl.kernel(grid=1, out=lambda a, b: dsl.like(a, shape=(a.shape[0], b.shape[1])))
    def product(a, b, o):
        o[:, :] = dsl.dot(a[:, :], b[:, :])

    ir = product.ir(ones(48, depth), ones(depth, 40))
    found = plan(ir, place(ir, choose_row(ir)), dialect.shared_limit)
    assert 0 < 4 * found.count <= dialect.shared_limit
    (chunk,) = found.chunks.values()
    assert chunk == depth or chunk % 32 == 0


def test_a_dot_too_wide_for_metal_is_refused_there_and_taken_by_cuda():
    ir = matmul.ir(ones(256, 64), ones(64, 64), BM=256, BN=64)
    assert emit(ir, CUDA).shared_bytes <= 48 * 1024
    with pytest.raises(Unsupported, match=r"metal: a dot of .* needs 40960 B of shared memory .* has 32768"):
        emit(ir, METAL)


def test_a_tile_of_too_many_registers_is_refused():
    with pytest.raises(Unsupported, match="use smaller tiles or loop over them"):
        emit(softmax.ir(ones(8, 60_000)), CUDA)


@pytest.mark.parametrize(("rows", "warps"), [(1, 1), (2, 2), (3, 4), (8, 4)])
def test_a_block_has_no_more_warps_than_its_tiles_have_rows(rows, warps):
    assert choose_row(softmax.ir(ones(32, 8), BM=rows)) == row_layout(warps)


def test_a_grid_of_several_axes_is_laid_out_with_the_last_one_innermost():
    @dsl.kernel(grid=(2, 3, 5), out=lambda x: dsl.like(x))
    def plus(x, o):
        o[pid(0), pid(1), pid(2)] = x[pid(0), pid(1), pid(2)] + 1.0

    program = emit(plus.ir(ones(2, 3, 5)), CUDA)
    assert program.blocks == 30
    for text in ("block / 15;", "block / 5 % 3;", "block % 5;"):
        assert text in program.source


@DIALECTS
def test_names_of_the_user_do_not_meet_those_of_the_language(dialect):
    @dsl.kernel(grid=1, out=lambda lane: dsl.like(lane))
    def double(lane, pool):
        pool[:, :] = lane[:, :] * 2.0

    source = emit(double.ir(ones(3, 4)), dialect).source
    assert "double_kernel(" in source and "lane_ref" in source and "pool_ref" in source


def test_inputs_come_before_outputs_and_an_update_stands_twice():
    @dsl.kernel(grid=1)
    def both(x, kept, fresh):
        kept[:] = x[:]
        fresh[:] = x[:]

    ir = both.ir(ones(4), out=[dsl.update(ones(4)), dsl.like(ones(4))])
    assert [ref.name for ref in emit(ir, CUDA).parameters] == ["x", "kept", "kept", "fresh"]


@DIALECTS
def test_only_the_helpers_that_are_called_are_defined(dialect):
    assert "floor_div" not in emit(softmax.ir(ones(4, 4)), dialect).source

    @dsl.kernel(grid=1, out=lambda x: dsl.like(x))
    def halves(x, o):
        o[:] = x[:] // 2

    source = emit(halves.ir(jnp.arange(4)), dialect).source
    assert source.count("int floor_div(") == 1 and "nibble" not in source


def test_constants_are_those_of_f32():
    @dsl.kernel(grid=1, out=lambda x: dsl.like(x))
    def constants(x, o):
        o[:] = dsl.where(x[:] < -1.5, 0.1, float("inf")) * -2.0

    source = emit(constants.ir(ones(4)), CUDA).source
    for text in (f"{float(np.float32(0.1))!r}f", "INF", "(-2.0f)", "(-1.5f)"):
        assert text in source


def test_a_window_at_data_is_guarded_below_and_above():
    @dsl.kernel(grid=1, out=lambda x: dsl.like(x, shape=(4,)))
    def cut(x, at, o):
        o[:] = x[tile(at[0], 4)]

    source = emit(cut.ir(ones(9), jnp.array([1])), CUDA).source
    assert " >= 0 && (v" in source and " < 9" in source


@DIALECTS
def test_rows_that_are_whole_runs_are_read_and_written_sixteen_bytes_at_a_time(dialect):
    for dtype, wide in ((jnp.float32, 128), (jnp.float16, 256)):
        source = emit(softmax.ir(ones(13, 3 * wide, dtype=dtype)), dialect).source
        assert source.count("fetch<uint4>(&v") == source.count("keep<uint4>(&o_ref") == 1
        for columns in (3 * wide + 1, wide + 16):
            source = emit(softmax.ir(ones(13, columns, dtype=dtype)), dialect).source
            assert "fetch<uint4>" not in source


def test_a_kernel_with_dots_keeps_neighbours_on_neighbouring_lanes():
    assert "(lane + 32 * j)" in emit(matmul.ir(ones(64, 128), ones(128, 128), BN=128), CUDA).source


def pieces(source):
    """Positions of the pass's loads, its barrier, the next pass's loads and the first multiplication."""
    loop = source.index("for (int v")
    early, barrier = source.index("fetch<uint4>("), source.index(CUDA.barrier, loop)
    return early, loop, barrier, source.index("fetch<uint4>(", loop), source.index("load_transposed(b", loop)


def test_the_next_pass_is_loaded_when_this_one_is_staged_and_before_it_is_multiplied():
    half = ones(64, 192, dtype=jnp.float16), ones(192, 64, dtype=jnp.float16)
    source = emit(matmul.ir(*half, BM=64, BN=64, BK=64), CUDA).source
    assert list(pieces(source)) == sorted(pieces(source))
    assert source.count("fetch<uint4>(&v") == 4 and "const int next = 0;" in source
    assert len(re.findall(r"\n +if \(v\d+ < 3\) \{\n", source)) == 1, "no pass that is not there is loaded"


def test_a_load_whose_place_the_pass_finds_out_is_not_early():
    @dsl.kernel(grid=1, out=lambda a, b: dsl.like(a, shape=(32, 32), dtype="f32"))
    def chained(a, b, o):
        def step(_, carry):
            at, total = carry
            part = dsl.dot(a[tile(0, 32), tile(at * 32, 32)], b[tile(at * 32, 32), tile(0, 32)])
            return at + 1, total + part

        o[:, :] = dsl.loop(0, 4, step, (0, dsl.zeros((32, 32))))[1]

    half = ones(32, 128, dtype=jnp.float16), ones(128, 32, dtype=jnp.float16)
    assert "next" not in emit(chained.ir(*half), CUDA).source

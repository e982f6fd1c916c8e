"""Rows along all warps of a block, at odd widths, against the float64 oracle of the same kernel."""

import jax.numpy as jnp
import numpy as np
import pytest

import dsl
from dsl import atomic_add, loop, pid, tile, where, zeros
from dsl.kernels.norm import layer_norm
from dsl.kernels.softmax import softmax
from dsl.lower.c.choose import choose_row
from dsl.lower.c.dialects import CUDA, METAL
from dsl.lower.c.emit import emit
from dsl.targets.sim.mutate import draws, harmless, mutants, survivors
from tests.dsl.targets.sim.cases import agrees, normal, prepared

both_dialects = pytest.mark.parametrize("dialect", (CUDA, METAL), ids=lambda d: d.name)
widths = pytest.mark.parametrize("columns", [1029, 1536, 2048, 5000])


def check(kernel, args, dialect, tolerance=2e-4, **keywords):
    ir, arrays, expected = prepared(kernel, args, keywords)
    program = emit(ir, dialect)
    assert program.layout.startswith("wide, ")
    return agrees(ir, dialect, arrays, expected, program=program, tolerance=tolerance)


def per_row(x, dtype):
    return dsl.like(x, shape=(x.shape[0], 1), dtype=dtype)


@both_dialects
@widths
def test_several_reductions_of_a_row(dialect, columns):
    """In runs of 8 where the width is a multiple, with a thread's last run past the end or not."""
    x, weight, bias = (normal(n, columns, seed=n, dtype=jnp.bfloat16) for n in (2, 1, 3))
    check(layer_norm, (x, weight[0], bias[0]), dialect, tolerance=1.6e-2, BM=1)


@both_dialects
@widths
def test_each_kind_of_reduction_over_either_axis(dialect, columns):
    @dsl.kernel(
        grid=1,
        out=lambda x, n: [
            *(per_row(x, "f32"),) * 3,
            *(per_row(x, "i32"),) * 3,
            dsl.like(n, shape=n.shape[1:]),
        ],
    )
    def folded(x, n, add, top, low, total, most, least, down):
        t, whole = x[:, :], n[:, :]
        add[:, :], top[:, :], low[:, :] = t.sum(1), t.max(1), t.min(1)
        total[:, :], most[:, :], least[:, :] = whole.sum(1), whole.max(1), whole.min(1)
        down[:] = whole.max(0)

    n = jnp.asarray(np.random.default_rng(0).integers(-(2**31), 2**31, (3, columns)), jnp.int32)
    found = check(folded, (normal(3, columns) - 9.0, n), dialect)
    assert (found[3][:, 0] == np.asarray(n).sum(1, dtype=np.int32)).all()


@both_dialects
@pytest.mark.parametrize(("rows", "lanes", "dtype"), [(9, 16, jnp.float32), (20, 8, jnp.bfloat16)])
def test_short_rows_share_a_warp_for_longer_runs(dialect, rows, lanes, dtype):
    @dsl.kernel(grid=1, out=lambda x: [dsl.like(x), per_row(x, "f32"), dsl.like(x, shape=(x.shape[1],))])
    def folded(x, o, across, down):
        t = x[:, :].f32
        o[:, :] = t * 2.0
        across[:, :], down[:] = t.sum(1), t.max(0)

    ir, arrays, expected = prepared(folded, (normal(rows, 64, dtype=dtype),), {})
    program = emit(ir, dialect)
    assert choose_row(ir).columns.mask == lanes - 1
    assert program.layout.startswith("row, ") and f"fetch<{dialect.words[16]}>" in program.source
    agrees(ir, dialect, arrays, expected, program=program, tolerance=1.6e-2)


@both_dialects
def test_reductions_in_a_loop_take_turns_in_shared_memory(dialect):
    @dsl.kernel(grid=2, out=lambda x: dsl.like(x, shape=(x.shape[0], 1)))
    def repeated(x, o):
        def step(j, total):
            t = x[pid(0), :] + total
            return t.max(1) + (t * 1e-3).sum(1)

        o[pid(0), :] = loop(0, 3, step, zeros((1, 1)))

    check(repeated, (normal(2, 1500),), dialect)


@both_dialects
def test_one_thread_adds_what_all_hold(dialect):
    @dsl.kernel(grid=3, out=lambda x: dsl.like(x, shape=(2,), dtype="i32"))
    def counted(x, o):
        positive = where(x[pid(0), :] > 0.0, 1, 0).sum(1)
        atomic_add(o, tile(pid(0) % 2, 1), positive.sum(0))

    check(counted, (normal(3, 1100),), dialect)


@both_dialects
def test_thirty_two_warps_take_the_longest_rows(dialect):
    ir, arrays, expected = prepared(softmax, (normal(1, 20000),), {"BM": 1})
    program = emit(ir, dialect)
    assert program.threads == 1024 and "fetch<uint4>" in program.source
    agrees(ir, dialect, arrays, expected, program=program, orders=(0,))


@both_dialects
@pytest.mark.parametrize("rows", [1, 2])
def test_every_mistake_in_a_wide_softmax_is_caught(dialect, rows):
    """The last lane of each warp has all that counts of a row, far below the zeros past its end."""
    x = (normal(rows, 1029) - 600.0).at[:, np.array([31, 63])].set(-300.0)
    ir, arrays, expected = prepared(softmax, (x,), {"BM": rows})
    program = emit(ir, dialect)
    planted = mutants(program, dialect)
    assert sum(each.what == "barrier dropped" for each in planted) == 2
    left = survivors(ir, dialect, program, planted, arrays, expected)
    assert [each.line for each in left if harmless(ir, dialect, program, each, draws(ir)) is None] == []

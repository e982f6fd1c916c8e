"""How the XLA lowering puts stores together: parts side by side, windows at data, loops left early."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dsl
from dsl import atomic_add, loop, pid, tile
from dsl.lower import oracle, xla

X = jnp.arange(1.0, 31.0).reshape(5, 6)


def agree(kernel, *args, out=None):
    """The output of XLA, having compared it with the oracle's."""
    ir, arrays = kernel.ir(*args, out=out), kernel.prepare(args, out, {}).arrays
    found = np.asarray(jax.jit(xla.lower(ir))(*arrays)[0])
    np.testing.assert_array_equal(found, oracle.run(ir, *arrays)[0])
    return found


@pytest.mark.parametrize("cuts", [(0, 2, 6), (1, 3, 5), (0, 1, 2, 6), (2, 6)])
@pytest.mark.parametrize("width", [1, 2])
def test_parts_side_by_side_leave_zeros_between_them(cuts, width):
    @dsl.kernel(grid=5, out=lambda x: dsl.like(x))
    def parts(x, o):
        for low, high in pairwise(cuts):
            size = min(width, high - low)
            o[pid(0), tile(low, size)] = x[pid(0), tile(low, size)]

    found = agree(parts, X)
    assert (found != 0).sum() == 5 * sum(min(width, b - a) for a, b in pairwise(cuts))


def test_parts_over_an_updated_array_keep_the_rest():
    @dsl.kernel(grid=5)
    def ends(x, o):
        o[pid(0), 0:1] = x[pid(0), 0:1]
        o[pid(0), 5:6] = x[pid(0), 5:6]

    assert (agree(ends, X, out=dsl.update(jnp.full((5, 6), -1.0)))[:, 1:5] == -1).all()


@pytest.mark.parametrize("at", [-1, 0, 4, 9])
def test_windows_at_data_are_scattered_whole(at):
    @dsl.kernel(grid=2)
    def put(x, where_, o):
        o[1:4, tile(where_[0], 2), pid(0)] = x[tile(0, 3), tile(pid(0) * 2, 2)]

    agree(put, X, jnp.asarray([at], jnp.int32), out=dsl.update(jnp.zeros((5, 6, 2))))


def test_atomic_adds_of_whole_rows_at_data():
    @dsl.kernel(grid=5, out=lambda x: dsl.like(x))
    def sums(x, where_, o):
        atomic_add(o, (where_[pid(0)], slice(None)), x[pid(0), :])

    found = agree(sums, X, jnp.asarray([1, 1, 4, 7, -1], jnp.int32))
    np.testing.assert_array_equal(found[1], X[0] + X[1])


@pytest.mark.parametrize("passes", [0, 1, 2, 3])
@pytest.mark.parametrize("most", [1, 2])
def test_a_pass_that_is_not_made_stores_nothing(passes, most):
    @dsl.kernel(grid=2, out=lambda x: dsl.like(x))
    def some(x, n, o):
        def step(j, _):
            o[pid(0) * 2 + j, :] = x[pid(0) * 2 + j, :]
            return 0

        loop(0, n[0], step, 0, max_trip=most)

    found = agree(some, X, jnp.asarray([passes], jnp.int32))
    assert (found.any(1)).sum() == 2 * min(passes, most)

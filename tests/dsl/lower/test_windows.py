"""Windows found at run time: no copy of a whole array for the sake of a few blocks of it."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dsl
from dsl import pid
from dsl.kernels.paged import paged_decode_attention
from dsl.lower import oracle, xla


def lowered(kernel, *args):
    """The XLA lowering, and its arrays, once it agrees with the oracle."""
    ir, arrays = kernel.ir(*args), kernel.prepare(args, None, {}).arrays
    run = jax.jit(xla.lower(ir))
    for mine, theirs in zip(run(*arrays), oracle.run(ir, *arrays), strict=True):
        np.testing.assert_allclose(np.asarray(mine, np.float64), theirs, rtol=1e-4, atol=1e-4)
    return run, arrays


def test_a_table_of_blocks_does_not_move_the_whole_cache():
    rng = np.random.default_rng(0)
    normal = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)  # noqa: E731
    keys, values = normal(40, 2, 16, 8), normal(40, 2, 8, 16)
    table = jnp.asarray(rng.permutation(40)[:12].reshape(3, 4), jnp.int32)
    run, arrays = lowered(
        paged_decode_attention, normal(3, 4, 16), keys, values, table, jnp.array([30, 9, 1], jnp.int32)
    )
    text = run.lower(*arrays).compile().as_text()
    moved = [line for line in text.splitlines() if re.search(r"(copy|transpose)[\w.]* = ", line)]
    sizes = [
        np.prod([int(n) for n in found.split(",")]) for found in re.findall(r"f32\[([\d,]+)\]", str(moved))
    ]
    assert max(sizes, default=0) < keys.size


@pytest.mark.parametrize("places", [[4, 0, 2], [-1, 5, 2]])
def test_rows_found_in_a_table_are_read_and_those_outside_are_zeros(places):
    @dsl.kernel(grid=lambda at: (at.shape[0], 2), out=lambda x, at: dsl.like(x, shape=(at.shape[0], 2, 6)))
    def picked(x, at, o):
        o[pid(0), pid(1), :] = x[at[pid(0)], pid(1), :] * 2

    lowered(picked, jnp.arange(60.0).reshape(5, 2, 6), jnp.array(places, jnp.int32))

"""Attention through tables of blocks is attention over the gathered blocks, and each row is alone."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsl.kernels.paged import paged_decode_attention
from tests.dsl.kernels.catalogue import gathered, paged_args

SIZE, WIDTH = 8, 5


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("TARSIA_DSL_CACHE", str(tmp_path_factory.getbasetemp() / "paged"))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_narrow_blocks_are_computed_wide(dtype):
    q, keys, values, *ints = paged_args()
    keys, values = keys.astype(dtype), values.astype(dtype)
    found = paged_decode_attention(q, keys, values, *ints, backend="cpu")
    expected = gathered(q, keys.astype(jnp.float32), values.astype(jnp.float32), *ints)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_blocks_before_the_window_are_not_seen():
    args = paged_args()
    found = paged_decode_attention(*args, window=10, backend="cpu")
    np.testing.assert_allclose(found, gathered(*args, window=10), rtol=1e-4, atol=1e-4)


def test_a_rows_bits_depend_on_nothing_but_the_row():
    q, keys, values, table, lengths = paged_args(rows=5)
    run = jax.jit(partial(paged_decode_attention, backend="cpu"))
    together = run(q, keys, values, table, lengths)
    for row in range(5):
        one = slice(row, row + 1)
        alone = run(q[one], keys, values, table[one], lengths[one])
        np.testing.assert_array_equal(alone[0], together[row])
    longer = jnp.pad(table, ((0, 0), (0, 3)))
    np.testing.assert_array_equal(run(q, keys, values, longer, lengths), together)


def test_what_lies_beyond_the_length_never_matters():
    q, keys, values, table, lengths = paged_args(rows=2)
    table = jnp.arange(2 * WIDTH, dtype=jnp.int32).reshape(2, WIDTH)
    run = jax.jit(partial(paged_decode_attention, backend="cpu"))
    clean = run(q, keys, values, table, lengths)
    spoiled, keys_too = values, keys
    for row, length in enumerate(lengths.tolist()):
        for position in range(length, SIZE * WIDTH):
            spoiled = spoiled.at[table[row, position // SIZE], :, position % SIZE].set(jnp.nan)
            keys_too = keys_too.at[table[row, position // SIZE], :, :, position % SIZE].set(jnp.nan)
    np.testing.assert_array_equal(run(q, keys_too, spoiled, table, lengths), clean)

"""Attention through tables of blocks is attention over the gathered blocks, and each row is alone."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsl.kernels.paged import paged_decode_attention
from tests.dsl.kernels.catalogue import attention, normal

BLOCKS, SIZE, WIDTH = 11, 8, 5
BACKENDS = ["oracle", "xla", "cpu"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("TARSIA_DSL_CACHE", str(tmp_path_factory.getbasetemp() / "paged"))


def arguments(rows=3, heads=6, kv_heads=2, dim=16):
    table = np.random.default_rng(4).permutation(BLOCKS * WIDTH)[: rows * WIDTH].reshape(rows, WIDTH) % BLOCKS
    lengths = [1, 19, SIZE * WIDTH, 8, 33][:rows]
    keys = normal(BLOCKS, kv_heads, dim, SIZE, seed=1)
    values = normal(BLOCKS, kv_heads, SIZE, dim, seed=2)
    ints = (jnp.asarray(table, jnp.int32), jnp.asarray(lengths, jnp.int32))
    return normal(rows, heads, dim), keys, values, *ints


def gathered(q, keys, values, table, lengths, window=10**6):
    rows, kv_heads, dim = q.shape[0], keys.shape[1], q.shape[2]
    k = keys[table].transpose(0, 2, 1, 4, 3).reshape(rows, kv_heads, -1, dim)
    v = values[table].transpose(0, 2, 1, 3, 4).reshape(rows, kv_heads, -1, dim)
    places = jnp.arange(k.shape[2])
    seen = (places < lengths[:, None]) & (places >= lengths[:, None] - window)
    return attention(q[:, :, None], k, v, seen[:, None, None])[:, :, 0]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("window", [None, 10])
def test_it_is_attention_over_the_gathered_blocks(backend, window):
    args = arguments()
    found = paged_decode_attention(*args, window=window, backend=backend)
    np.testing.assert_allclose(found, gathered(*args, window=window or 10**6), rtol=3e-5, atol=3e-5)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_narrow_blocks_are_computed_wide(dtype):
    q, keys, values, *ints = arguments()
    keys, values = keys.astype(dtype), values.astype(dtype)
    found = paged_decode_attention(q, keys, values, *ints, backend="cpu")
    expected = gathered(q, keys.astype(jnp.float32), values.astype(jnp.float32), *ints)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_gradients_are_those_of_the_gathered_blocks():
    q, keys, values, *ints = arguments()

    def loss(f):
        return lambda *floats: (f(*floats, *ints) ** 2).sum()

    found = jax.grad(loss(paged_decode_attention), (0, 1, 2))(q, keys, values)
    expected = jax.grad(loss(gathered), (0, 1, 2))(q, keys, values)
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=2e-4, atol=2e-4)


def test_a_rows_bits_depend_on_nothing_but_the_row():
    q, keys, values, table, lengths = arguments(rows=5)
    run = jax.jit(partial(paged_decode_attention, backend="cpu"))
    together = run(q, keys, values, table, lengths)
    for row in range(5):
        one = slice(row, row + 1)
        alone = run(q[one], keys, values, table[one], lengths[one])
        np.testing.assert_array_equal(alone[0], together[row])
    longer = jnp.pad(table, ((0, 0), (0, 3)))
    np.testing.assert_array_equal(run(q, keys, values, longer, lengths), together)


def test_what_lies_beyond_the_length_never_matters():
    q, keys, values, table, lengths = arguments(rows=2)
    table = jnp.arange(2 * WIDTH, dtype=jnp.int32).reshape(2, WIDTH)
    run = jax.jit(partial(paged_decode_attention, backend="cpu"))
    clean = run(q, keys, values, table, lengths)
    spoiled, keys_too = values, keys
    for row, length in enumerate(lengths.tolist()):
        for position in range(length, SIZE * WIDTH):
            spoiled = spoiled.at[table[row, position // SIZE], :, position % SIZE].set(jnp.nan)
            keys_too = keys_too.at[table[row, position // SIZE], :, :, position % SIZE].set(jnp.nan)
    np.testing.assert_array_equal(run(q, keys_too, spoiled, table, lengths), clean)

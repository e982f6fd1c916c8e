"""The engine's paged attention is the plain one, natively and by XLA's gather."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from engine.ops.attention import attention
from engine.ops.paged_attention import paged_attention, walks_tables

ROWS, HEADS, KV_HEADS, DIM, SIZE = 3, 4, 2, 32, 32


def arguments():
    random = np.random.default_rng(0)
    q = jnp.asarray(random.normal(size=(ROWS, HEADS, DIM)), jnp.float32)
    keys = jnp.asarray(random.normal(size=(9, KV_HEADS, DIM, SIZE)), jnp.float32)
    values = jnp.asarray(random.normal(size=(9, KV_HEADS, SIZE, DIM)), jnp.float32)
    tables = jnp.asarray([[3, 1], [8, 2], [5, 7]], jnp.int32)
    return q, keys, values, tables, jnp.asarray([1, 40, 64], jnp.int32)


def plain(q, keys, values, tables, lengths, window=None):
    found = []
    for row in range(ROWS):
        k = jnp.concatenate([keys[block].transpose(2, 0, 1) for block in tables[row]])[: lengths[row]]
        v = jnp.concatenate([values[block].transpose(1, 0, 2) for block in tables[row]])[: lengths[row]]
        start = 0 if window is None else max(0, int(lengths[row]) - window)
        found.append(attention(q[row][None, None], k[None, start:], v[None, start:])[0, 0])
    return jnp.stack(found)


@pytest.mark.parametrize("path", ["", "xla"])
@pytest.mark.parametrize("window", [None, 20])
def test_both_paths_are_plain_attention(monkeypatch, path: str, window: int | None):
    monkeypatch.setenv("TARSIA_OPS", path)
    assert walks_tables() is (path == "")
    found = jax.jit(lambda *args: paged_attention(*args, window))(*arguments())
    np.testing.assert_allclose(found, plain(*arguments(), window), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("path", ["", "xla"])
def test_what_an_earlier_sequence_left_behind_does_not_matter(monkeypatch, path: str):
    monkeypatch.setenv("TARSIA_OPS", path)
    q, keys, values, tables, lengths = arguments()
    run = jax.jit(lambda *args: paged_attention(*args))
    clean = run(q, keys, values, tables, lengths)
    # Row 0 sees position 0 alone; the rest of its blocks holds what is no number.
    keys = keys.at[3, :, :, 1:].set(jnp.nan).at[1].set(jnp.nan)
    values = values.at[3, :, 1:].set(jnp.nan).at[1].set(jnp.nan)
    np.testing.assert_array_equal(run(q, keys, values, tables, lengths), clean)

"""Products of 16 rows of weights at a time, a lane a row: right at every size, the same bits in any batch."""

import jax.numpy as jnp
import numpy as np
import pytest

from dsl import Packed
from dsl.kernels.integer_linear import int4_int16_linear, int8_int16_linear
from dsl.lower.host import turned

FEATURES = 96
BATCHES = (1, 2, 3, 4, 5, 7, 8, 13, 16)
FEW = (1, 3, 8, 13)
"""A row alone, an odd block, a whole one, and rows that no block divides: each is compiled apart."""


def product(kind, out):
    """(a function of how many rows, the product in float64 of the most): bytes at random, all signs."""
    rng = np.random.default_rng([out, kind == "int8"])
    high, low = (rng.integers(least, least + 256, (max(BATCHES), FEATURES)) for least in (-128, 0))
    step, sums = (rng.standard_normal((max(BATCHES), FEATURES // 32)).astype(np.float32) for _ in range(2))
    scale, minimum = (rng.standard_normal((out, FEATURES // 32)).astype(np.float32) for _ in range(2))
    x = step[..., None] * (256.0 * high + low).reshape(max(BATCHES), -1, 32)
    if kind == "int8":
        w = rng.integers(-128, 128, (out, FEATURES))
        expected = np.einsum("xgk,ogk,og->xo", x, w.reshape(out, -1, 32), scale.astype(np.float64))

        def of(rows):
            given = jnp.asarray(high[:rows], jnp.int8), jnp.asarray(low[:rows], jnp.uint8), step[:rows]
            return int8_int16_linear, (*given, jnp.asarray(w, jnp.int8), scale)

        return of, expected
    data = rng.integers(0, 256, (out, FEATURES // 2), dtype=np.uint8)
    groups = data.reshape(out, -1, 16)
    w = np.concatenate([groups & 15, groups >> 4], -1).astype(np.float64)
    expected = (
        np.einsum("xgk,ogk,og->xo", x, w, scale.astype(np.float64)) + sums.astype(np.float64) @ minimum.T
    )

    def of_nibbles(rows):
        given = (
            jnp.asarray(high[:rows], jnp.int8),
            jnp.asarray(low[:rows], jnp.uint8),
            step[:rows],
            sums[:rows],
        )
        return int4_int16_linear, (*given, Packed(jnp.asarray(data), "u4"), scale, minimum)

    return of_nibbles, expected


@pytest.mark.parametrize("kind", ["int8", "int4"])
@pytest.mark.parametrize("out", [16, 40])
@pytest.mark.parametrize("batches", [FEW, pytest.param(BATCHES, marks=pytest.mark.soak)], ids=["few", "all"])
def test_whole_blocks_and_a_ragged_last_one_in_every_batch(out, kind, batches):
    of, expected = product(kind, out)
    alone = None
    for rows in batches:
        kernel, args = of(rows)
        assert f"#ifdef {turned.MACRO}" in kernel.source("cpu", *args)
        found = np.asarray(kernel(*args, backend="cpu"))
        np.testing.assert_allclose(found, expected[:rows], rtol=1e-5, atol=1e-5 * np.abs(expected).max())
        alone = found[:1] if alone is None else alone
        np.testing.assert_array_equal(found[:1], alone)

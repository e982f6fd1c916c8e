"""What the engine's decode steps run on the `cpu` target, at odd shapes.

As `engine.ops.dispatch` and `engine.ops.paged_attention` call them: each case is (IR, arrays of inputs).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from dsl import Packed
from dsl.ir.ops import Kernel
from dsl.kernels.integer_linear import int4_int16_linear, int8_int16_linear
from dsl.kernels.norm import rms_norm
from dsl.kernels.paged import paged_decode_attention
from dsl.kernels.round16 import round_to_int16

Made = tuple[Kernel, list[np.ndarray[Any, Any]]]


def _specialised(function: Any, *args: Any, **sizes: Any) -> Made:
    given = function.prepare(args, None, sizes)
    return function.specialise(given.refs, "cpu", sizes), [np.asarray(each) for each in given.arrays]


def _rounded(rows: int, groups: int) -> Made:
    """Quarters of a step, so that no quotient is near a half, which f32 may round away from the oracle's."""
    rng = np.random.default_rng(rows)
    whole = rng.integers(-32766, 32767, (rows, groups, 32)) + rng.integers(-1, 2, (rows, groups, 32)) / 4
    whole[..., 5] = 32767
    whole[0, 0] = 0
    return _specialised(round_to_int16, jnp.asarray(whole.reshape(rows, -1) * 2.0**-15, jnp.float32))


def _product(kind: str, rows: int, out: int, groups: int) -> Made:
    """Bytes at random, the extremes among them: nothing may saturate."""
    rng = np.random.default_rng([rows, out, groups])
    high, low = (rng.integers(least, least + 256, (rows, groups * 32)) for least in (-128, 0))
    high[:, ::7], low[:, ::5] = -128, 255
    step, sums, scale, minimum = (
        jnp.asarray(rng.standard_normal((size, groups)) * 1e-3, jnp.float32)
        for size in (rows, rows, out, out)
    )
    given = jnp.asarray(high, jnp.int8), jnp.asarray(low, jnp.uint8), step
    if kind == "int8":
        weights = jnp.asarray(rng.integers(-128, 128, (out, groups * 32)), jnp.int8)
        return _specialised(int8_int16_linear, *given, weights, scale)
    nibbles = Packed(jnp.asarray(rng.integers(0, 256, (out, groups * 16)), jnp.uint8), "u4")
    return _specialised(int4_int16_linear, *given, sums, nibbles, scale, minimum)


def _normed(rows: int, columns: int) -> Made:
    rng = np.random.default_rng(columns)
    x, weight = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in ((rows, columns), columns))
    return _specialised(rms_norm, x, weight, eps=1e-5, BM=1)


def _attended(heads: int, kv_heads: int, dim: int, lengths: list[int], window: int | None = None) -> Made:
    """Blocks in any order; behind a sequence's end the table names blocks that there are not."""
    rng, size, width, blocks = np.random.default_rng(dim), 32, 4, 9
    tables = rng.permutation(np.arange(len(lengths) * width) % blocks).reshape(len(lengths), width)
    for row, length in enumerate(lengths):
        tables[row, -(-length // size) :] = rng.choice([-1, blocks, 2**31 - 1])
    shapes = (len(lengths), heads, dim), (blocks, kv_heads, dim, size), (blocks, kv_heads, size, dim)
    q, keys, values = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes)
    places = jnp.asarray(tables, jnp.int32), jnp.asarray(lengths, jnp.int32)
    return _specialised(paged_decode_attention, q, keys, values, *places, window=window)


CASES: dict[str, Callable[[], Made]] = {
    **{f"rounding of {rows} rows": partial(_rounded, rows, groups) for rows, groups in ((1, 1), (5, 3))},
    **{
        f"{kind} product of {rows}x{groups * 32} and {out}": partial(_product, kind, rows, out, groups)
        for kind in ("int8", "int4")
        for rows, out, groups in ((1, 1, 1), (1, 41, 3), (3, 17, 5), (5, 9, 2), (16, 23, 3))
    },
    **{f"norm of {columns}": partial(_normed, 3, columns) for columns in (1, 97, 576)},
    "attention": partial(_attended, 9, 3, 64, [1, 33, 128]),
    "attention of odd heads": partial(_attended, 5, 1, 20, [32, 0, 127]),
    "attention windowed": partial(_attended, 4, 2, 16, [1, 65, 128], 40),
}

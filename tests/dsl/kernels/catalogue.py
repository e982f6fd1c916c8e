"""Every kernel of the library beside the plain jnp expression of the same thing, at odd and ragged sizes.

`CASES` maps a name to a `Case`; the tests run each on every backend, differentiate it and batch it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import nn

import dsl
from dsl.kernels.activation import ACTIVATIONS, gelu, silu, swiglu
from dsl.kernels.attention import flash_attention, ragged_attention
from dsl.kernels.decode import decode_attention, kv_append
from dsl.kernels.distance import distance, hamming, nearest
from dsl.kernels.matmul import batched_matmul, gemv, matmul, matmul_bias
from dsl.kernels.norm import add_layer_norm, add_rms_norm, layer_norm, rms_norm
from dsl.kernels.paged import paged_decode_attention
from dsl.kernels.quant_linear import int4_linear, int8_linear
from dsl.kernels.quant_matmul import int4_matmul, int8_matmul
from dsl.kernels.rope import rope, rope_interleaved, rope_tables
from dsl.kernels.round8 import round_to_int8
from dsl.kernels.round16 import round_to_int16
from dsl.kernels.softmax import softmax
from tests.dsl.kernels.matvec import int4_matvec


@dataclass(frozen=True)
class Case:
    """`kernel(*args, backend=...)` must equal `plain(*args)`; `differentiable` in its float arguments.

    Attributes:
        narrow: whether f32 arguments may as well be f16 or bf16.
        telling: arguments in which more mistakes show, where the plain expression means another thing.
    """

    kernel: Callable[..., Any]
    plain: Callable[..., Any]
    args: Callable[[], tuple[Any, ...]]
    differentiable: bool = True
    narrow: bool = True
    telling: Callable[[], tuple[Any, ...]] | None = None


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng([seed, *shape]).standard_normal(shape), jnp.float32)


def ints(low, high, *shape, dtype=jnp.int32):
    return jnp.asarray(np.random.default_rng(3).integers(low, high, shape), dtype)


def attention(q, k, v, seen):
    """q (B, H, Q, D), k and v (B, KV, K, D), seen broadcasts to (B, H, Q, K)."""
    k, v = (jnp.repeat(x, q.shape[1] // k.shape[1], 1) for x in (k, v))
    scores = jnp.einsum("bhqd,bhkd->bhqk", q, k) * q.shape[-1] ** -0.5
    return jnp.einsum("bhqk,bhkd->bhqd", nn.softmax(jnp.where(seen, scores, -1e30)), v)


def causal(queries, keys, window=None):
    at, key = np.arange(queries)[:, None] + keys - queries, np.arange(keys)
    return (key <= at) & (key > at - (window or keys + 1))


def ragged(q, k, v, lengths, window=None):
    real = jnp.arange(q.shape[2]) < lengths[:, None]
    found = attention(q, k, v, real[:, None, None] & causal(q.shape[2], k.shape[2], window))
    return jnp.where(real[:, None, :, None], found, 0)


def decoded(q, k, v, lengths, window=10**6):
    slots = jnp.arange(k.shape[2])
    seen = (slots < lengths[:, None]) & (slots >= lengths[:, None] - window)
    return attention(q[:, :, None], k, v, seen[:, None, None])[:, :, 0]


def gathered(q, keys, values, table, lengths, window=10**6):
    """`decoded` over the blocks that the rows of `table` list; keys of a block lie transposed."""
    rows, kv_heads, dim = q.shape[0], keys.shape[1], q.shape[2]
    k = keys[table].transpose(0, 2, 1, 4, 3).reshape(rows, kv_heads, -1, dim)
    v = values[table].transpose(0, 2, 1, 3, 4).reshape(rows, kv_heads, -1, dim)
    return decoded(q, k, v, lengths, window)


def appended(new, starts, cache):
    put = jax.vmap(lambda c, n, at: jax.lax.dynamic_update_slice(c, n, (0, at, 0)))
    return put(cache, new, starts)


def rms(x, w, eps=1e-6):
    return x * jax.lax.rsqrt((x**2).mean(-1, keepdims=True) + eps) * w


def layer(x, w, b):
    return (x - x.mean(-1, keepdims=True)) * jax.lax.rsqrt(x.var(-1, keepdims=True) + 1e-5) * w + b


def turned(x, cos, sin):
    a, b = jnp.split(x, 2, -1)
    c, s = cos[:, None], sin[:, None]
    return jnp.concatenate([a * c - b * s, b * c + a * s], -1)


def turned_pairs(x, cos, sin):
    a, b, c, s = x[..., 0], x[..., 1], cos[:, None], sin[:, None]
    return jnp.stack([a * c - b * s, b * c + a * s], -1)


def scores(queries, vectors, metric):
    products = queries @ vectors.T
    if metric == "dot":
        return products
    a, b = (queries**2).sum(1)[:, None], (vectors**2).sum(1)
    return -jnp.maximum(a + b - 2 * products, 0) if metric == "l2" else products / jnp.sqrt(a * b)


def differing(queries, vectors):
    return -jax.lax.population_count(queries[:, None] ^ vectors[None]).astype(jnp.int32).sum(-1)


def rounded(x):
    groups = x.reshape(x.shape[0], -1, 32)
    scale = jnp.abs(groups).max(-1) / 127
    return jnp.rint(groups / jnp.where(scale == 0, 1, scale)[..., None]).reshape(x.shape), scale


def rounded_to_two_bytes(x):
    groups = x.reshape(x.shape[0], -1, 32)
    step = jnp.abs(groups).max(-1) / 32767
    whole = jnp.rint(groups / jnp.where(step == 0, 1, step)[..., None]).astype(jnp.int32)
    high, low = (whole // 256).astype(jnp.int8), (whole % 256).astype(jnp.uint8)
    return high.reshape(x.shape), low.reshape(x.shape), step, whole.sum(-1) * step


def weighed(x, w, scale, minimum=None):
    """x W^T for whole numbers w with a scale, and a minimum, for each 32 of a row."""
    wide = w.reshape(w.shape[0], -1, 32) * scale[..., None]
    wide = wide if minimum is None else wide + minimum[..., None]
    return x @ wide.reshape(w.shape).T


NIBBLES = np.random.default_rng(6).integers(0, 256, (23, 32), dtype=np.uint8)


def nibble_matmul(x, scale, minimum, **kw):
    return int4_matmul(x, dsl.Packed(jnp.asarray(NIBBLES), "u4"), scale, minimum, **kw)


def unpacked(data):
    groups = data.reshape(data.shape[0], -1, 16).astype(np.float32)
    return np.concatenate([groups % 16, groups // 16], -1).reshape(data.shape[0], -1)


def small(kernel, **sizes):
    """The kernel at tile sizes that leave ragged ends, on every backend."""
    return partial(kernel, **sizes)


def at_its_own_sizes(kernel):
    """What `small` made, at the sizes tuned for the backend: fewer loops, so faster to compile."""
    if not isinstance(kernel, partial):
        return kernel
    return partial(kernel.func, **{k: v for k, v in kernel.keywords.items() if k not in ("BM", "BN", "BK")})


def paged_args(rows=3, heads=6, kv_heads=2, dim=16, blocks=11, size=8, width=5):
    table = np.random.default_rng(4).permutation(blocks * width)[: rows * width].reshape(rows, width) % blocks
    lengths = [1, 19, size * width, 8, 33][:rows]
    keys = normal(blocks, kv_heads, dim, size, seed=1)
    values = normal(blocks, kv_heads, size, dim, seed=2)
    ints = (jnp.asarray(table, jnp.int32), jnp.asarray(lengths, jnp.int32))
    return normal(rows, heads, dim), keys, values, *ints


def paged_beside(lengths):
    """Some blocks of three rows, last ones too, are before the first that there is or behind the last."""
    q, keys, values, table, _ = paged_args(rows=4)
    table = table.at[0, 0].set(-1).at[0, 2].set(11)
    table = table.at[1, 0].set(11).at[1, 2].set(11).at[1, 4].set(-1)
    table = table.at[2].set(jnp.asarray([10, 11, -1, 10, 3]))
    return q, keys, values, table, jnp.asarray(lengths, jnp.int32)


def append_to(new, starts, cache, **kw):
    return kv_append(new, starts, out=dsl.update(cache), **kw)


def with_nibbles(x, w, *rest, of, **keywords):
    return of(x, dsl.Packed(w, "u4"), *rest, **keywords)


def nibbles(data):
    groups = data.reshape(data.shape[0], -1, 16)
    return jnp.concatenate([groups & 15, groups >> 4], -1).reshape(data.shape[0], -1)


def dense(codes, scale, minimum=0):
    groups = codes.reshape(codes.shape[0], -1, 32).astype(jnp.float32)
    return (groups * scale[..., None] + jnp.asarray(minimum)[..., None]).reshape(codes.shape)


def _four_bits(out, features):
    bytes_ = ints(0, 256, out, features // 2, dtype=jnp.uint8)
    return bytes_, normal(out, features // 32), normal(out, features // 32, seed=1)


def _apart_from_halves():
    """Elements for `round_to_int16` at quarters of a step: none is near a half.

    A quotient of f32 may be 0.002 steps off, so of others some would be rounded one away from the oracle's.
    """
    rng = np.random.default_rng(8)
    whole = rng.integers(-32766, 32767, (13, 3, 32)) + rng.integers(-1, 2, (13, 3, 32)) / 4
    whole[..., 5] = np.where(rng.integers(0, 2, (13, 3)), 32767, -32767)
    whole[2, 1] = 0
    return (jnp.asarray(whole.reshape(13, 96) * 2.0**-15, jnp.float32),)


def _attention_args(queries, keys):
    """Heads of 12 elements: with 8, a quarter of a warp, what joins the others would not matter."""
    return normal(2, 4, queries, 12), normal(2, 2, keys, 12, seed=1), normal(2, 2, keys, 12, seed=2)


def _decode_args():
    return normal(2, 6, 12), normal(2, 2, 37, 12, seed=1), normal(2, 2, 37, 12, seed=2), jnp.asarray([19, 37])


def _rope_args(pairs):
    shape = (2, 3, 13, 5, 2) if pairs else (2, 3, 13, 10)
    return normal(*shape), *rope_tables(jnp.arange(26).reshape(2, 13), 10)


EPILOGUES = {"none": lambda x: x, "relu": nn.relu, "silu": nn.silu, "gelu_tanh": nn.gelu}
EPILOGUES["gelu"] = lambda x: nn.gelu(x, approximate=False)
assert set(EPILOGUES) == set(ACTIVATIONS)

CASES = {
    # Far from zero, so that a zero from outside of a row would show as its greatest element.
    "softmax": Case(small(softmax, BM=5), nn.softmax, lambda: (normal(13, 37) - 300.0,)),
    "silu": Case(small(silu, BM=5), nn.silu, lambda: (normal(13, 37) * 3,)),
    "gelu": Case(small(gelu, BM=5), EPILOGUES["gelu"], lambda: (normal(13, 37),)),
    "gelu tanh": Case(small(gelu, BM=5, approximate=True), nn.gelu, lambda: (normal(13, 37),)),
    "swiglu": Case(
        small(swiglu, BM=5), lambda g, u: nn.silu(g) * u, lambda: (normal(13, 37), normal(13, 37, seed=1))
    ),
    "rms_norm": Case(small(rms_norm, BM=5), rms, lambda: (normal(13, 37), normal(37))),
    "layer_norm": Case(
        small(layer_norm, BM=5), layer, lambda: (normal(13, 37) + 3, normal(37), normal(37, seed=1))
    ),
    "add_rms_norm": Case(
        small(add_rms_norm, BM=5),
        lambda x, r, w: (rms(x + r, w), x + r),
        lambda: (normal(13, 37), normal(13, 37, seed=1), normal(37)),
    ),
    "add_layer_norm": Case(
        small(add_layer_norm, BM=5),
        lambda x, r, w, b: (layer(x + r, w, b), x + r),
        lambda: (normal(13, 37), normal(13, 37, seed=1), normal(37), normal(37, seed=1)),
    ),
    "matmul": Case(small(matmul, BM=16, BN=16, BK=16), jnp.matmul, lambda: (normal(17, 45), normal(45, 23))),
    **{
        f"matmul_bias {name}": Case(
            small(matmul_bias, BM=16, BN=16, BK=32, activation=name),
            lambda a, b, bias, f=after: f(a @ b + bias),
            lambda: (normal(17, 45), normal(45, 23), normal(23)),
        )
        for name, after in EPILOGUES.items()
    },
    "batched_matmul": Case(
        small(batched_matmul, BM=16, BN=16, BK=16), jnp.matmul, lambda: (normal(3, 17, 21), normal(3, 21, 9))
    ),
    "int8_matmul": Case(
        small(int8_matmul, BM=16, BN=16),
        weighed,
        lambda: (normal(17, 64) / 16, ints(-128, 128, 23, 64, dtype=jnp.int8), normal(23, 2)),
    ),
    "int4_matmul": Case(
        small(nibble_matmul, BM=16, BN=16),
        lambda x, scale, minimum: weighed(x, unpacked(NIBBLES), scale, minimum),
        lambda: (normal(17, 64) / 4, normal(23, 2), normal(23, 2, seed=1)),
    ),
    "gemv": Case(small(gemv, BM=16, BK=16), jnp.matmul, lambda: (normal(37, 45), normal(45))),
    "flash_attention": Case(
        small(flash_attention, BM=16, BN=16),
        lambda q, k, v: attention(q, k, v, causal(20, 45)),
        lambda: _attention_args(20, 45),
    ),
    "flash_attention of all": Case(
        small(flash_attention, BM=10, BN=32, causal=False),
        lambda q, k, v: attention(q, k, v, True),
        lambda: _attention_args(20, 45),
    ),
    "flash_attention windowed": Case(
        small(flash_attention, BM=16, BN=8, window=20),
        lambda q, k, v: attention(q, k, v, causal(20, 45, 20)),
        lambda: _attention_args(20, 45),
    ),
    "ragged_attention": Case(
        small(ragged_attention, BM=16, BN=16),
        ragged,
        lambda: (*_attention_args(37, 37), jnp.asarray([5, 37], jnp.int32)),
    ),
    "ragged_attention windowed": Case(
        small(ragged_attention, BM=16, BN=16, window=9),
        lambda *a: ragged(*a, window=9),
        lambda: (*_attention_args(37, 37), jnp.asarray([0, 37], jnp.int32)),
    ),
    "decode_attention": Case(small(decode_attention, BN=16), decoded, _decode_args),
    "decode_attention windowed": Case(
        small(decode_attention, BN=8, window=35), lambda *a: decoded(*a, window=35), _decode_args
    ),
    "paged_decode_attention": Case(
        paged_decode_attention, gathered, paged_args, telling=lambda: paged_beside([1, 19, 40, 24])
    ),
    # With telling lengths one row takes all blocks, from the last position of the first on; two skip it.
    "paged_decode_attention windowed": Case(
        partial(paged_decode_attention, window=32),
        lambda *a: gathered(*a, window=32),
        paged_args,
        telling=lambda: paged_beside([19, 40, 39, 40]),
    ),
    "kv_append": Case(
        append_to,
        appended,
        lambda: (normal(2, 3, 4, 5), jnp.asarray([0, 7], jnp.int32), normal(2, 3, 11, 5)),
        telling=lambda: (normal(2, 3, 4, 5), jnp.asarray([-2, 9], jnp.int32), normal(2, 3, 11, 5)),
    ),
    "rope": Case(small(rope, BM=8), turned, lambda: _rope_args(False), narrow=False),
    "rope_interleaved": Case(
        small(rope_interleaved, BM=8), turned_pairs, lambda: _rope_args(True), narrow=False
    ),
    "round_to_int8": Case(small(round_to_int8, BM=5), rounded, lambda: (normal(13, 96),), False, False),
    "round_to_int16": Case(
        small(round_to_int16, BM=5),
        rounded_to_two_bytes,
        _apart_from_halves,
        False,
        False,
    ),
    **{
        f"distance {metric}": Case(
            small(distance, BM=8, BN=16, metric=metric),
            lambda q, v, m=metric: scores(q, v, m),
            lambda: (normal(5, 24), normal(37, 24)),
        )
        for metric in ("dot", "l2", "cosine")
    },
    "hamming": Case(
        small(hamming, BM=8, BN=16),
        differing,
        lambda: (ints(0, 256, 5, 12, dtype=jnp.uint8), ints(0, 256, 37, 12, dtype=jnp.uint8)),
        False,
        False,
    ),
    # Near ones come together, so that one chunk holds nearly all that a query wants; one is the last.
    "nearest": Case(
        small(nearest, k=10, BM=4, BN=16),
        lambda q, v: tuple(jax.lax.top_k(scores(q, v, "l2"), 10)),
        lambda: (normal(5, 24), normal(37, 24).at[:16].multiply(0.1).at[36].set(normal(5, 24)[0])),
        False,
        False,
    ),
    "int4_matvec": Case(
        small(with_nibbles, of=int4_matvec, BM=10),
        lambda x, w, s, m: jnp.einsum("nk,k->n", dense(nibbles(w), s, m), x[0])[:, None],
        lambda: (normal(1, 96) * 0.1, *_four_bits(41, 96)),
    ),
    "int8_linear": Case(
        small(int8_linear, BM=5, BX=2),
        lambda x, w, s: x @ dense(w, s).T,
        lambda: (normal(3, 96) * 0.1, ints(-127, 128, 41, 96, dtype=jnp.int8), normal(41, 3)),
    ),
    "int4_linear": Case(
        small(with_nibbles, of=int4_linear, BM=5, BX=2),
        lambda x, w, s, m: x @ dense(nibbles(w), s, m).T,
        lambda: (normal(3, 96) * 0.1, *_four_bits(41, 96)),
    ),
}


class Taken(Exception):
    """Carries (kernel function, its Call, keywords) out of a call that is not to run."""


def taken(case, args=None):
    """(kernel function, Call, keywords) that a case's call comes to."""

    def take(function, given, backend, meta):
        raise Taken(function, given, meta)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dsl.runtime.select.call", take)
        try:
            case.kernel(*(case.args() if args is None else args))
        except Taken as call:
            return call.args
    raise AssertionError("the case calls no kernel")


def specialised(case, args=None, target=None):
    """(IR, the arrays of its inputs) of a case, or of other arguments of it."""
    function, given, meta = taken(case, args)
    return function.specialise(given.refs, target, meta), [np.asarray(x) for x in given.arrays]

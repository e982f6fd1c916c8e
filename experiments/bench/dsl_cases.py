"""Each kernel of the DSL's library beside the plain jnp expression of the same thing, at a model's sizes.

Products with quantised weights run over as many different matrices as a model has layers, so that weights
come from memory; their plain expression is what the engine does without native kernels.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import dsl.kernels
from dsl import Packed, update
from dsl.kernels import (
    activation,
    attention,
    decode,
    distance,
    integer_linear,
    matmul,
    norm,
    paged,
    quant_linear,
    quant_matmul,
    rope,
)
from dsl.kernels.round8 import round_to_int8
from dsl.kernels.round16 import LARGEST, round_to_int16
from dsl.kernels.softmax import softmax
from dsl.lang.kernel import KernelFunction
from engine.ops import distance as plain_distance
from engine.ops.linear import linear
from engine.ops.quant import QTensor, quantize, unpack_nibbles
from engine.ops.topk import top_k

SHAPES = ((1536, 576), (576, 1536), (49152, 576))
"""(out, in) of SmolLM2 135M's products."""
STREAMED = 10_000_000
"""Weights read in a run, so that they do not stay in the cache."""


@dataclass(frozen=True)
class Case:
    """`kernel(*args, backend=...)` computes what `plain(*args)` does; `bound`: how many times plain's time
    the XLA lowering may take."""

    name: str
    of: KernelFunction
    plain: Callable[..., Any]
    args: tuple[Any, ...]
    run: Callable[..., Any] | None = None
    bound: float = 1.3

    @property
    def kernel(self) -> Callable[..., Any]:
        return self.run or self.of


def library() -> set[str]:
    """Names of all kernels in `dsl.kernels`."""
    modules = [import_module(f"dsl.kernels.{each.name}") for each in iter_modules(dsl.kernels.__path__)]
    return {
        value.name for each in modules for value in vars(each).values() if isinstance(value, KernelFunction)
    }


def cases() -> Iterator[Case]:
    for family in (rows, products, attentions, caches, distances, quantised):
        yield from family()


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng([seed, *shape]).standard_normal(shape), jnp.float32)


def rms(x: jax.Array, w: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6) * w


def layer(x: jax.Array, w: jax.Array, b: jax.Array) -> jax.Array:
    centred = x - x.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * w + b


def rows() -> Iterator[Case]:
    x, y, w = normal(512, 2048), normal(512, 2048, seed=1), normal(2048)
    tanh_gelu = partial(jax.nn.gelu, approximate=True)
    yield Case("softmax 512x2048", softmax, jax.nn.softmax, (x,))
    yield Case("rms_norm 512x2048", norm.rms_norm, rms, (x, w))
    yield Case("layer_norm 512x2048", norm.layer_norm, layer, (x, w, w))
    yield Case("add_rms_norm 512x2048", norm.add_rms_norm, lambda x, r, w: (rms(x + r, w), x + r), (x, y, w))
    yield Case(
        "add_layer_norm 512x2048",
        norm.add_layer_norm,
        lambda x, r, w, b: (layer(x + r, w, b), x + r),
        (x, y, w, w),
    )
    yield Case("silu 512x2048", activation.silu, jax.nn.silu, (x,))
    yield Case("gelu 512x2048", activation.gelu, partial(jax.nn.gelu, approximate=False), (x,))
    yield Case(
        "gelu_tanh 512x2048", activation.gelu, tanh_gelu, (x,), partial(activation.gelu, approximate=True)
    )
    yield Case("swiglu 512x2048", activation.swiglu, lambda g, u: jax.nn.silu(g) * u, (x, y))
    yield Case("round_to_int8 512x2048", round_to_int8, rounded, (x,))
    yield Case("round_to_int16 512x2048", round_to_int16, rounded_to_16_bits, (x,))


def rounded_to_16_bits(x: jax.Array) -> tuple[jax.Array, ...]:
    groups = x.reshape(x.shape[0], -1, 32)
    step = jnp.abs(groups).max(-1) * (1 / LARGEST)
    n = jnp.rint(groups / jnp.where(step == 0, 1, step)[..., None]).astype(jnp.int32)
    high, low = (n >> 8).astype(jnp.int8), (n & 255).astype(jnp.uint8)
    return high.reshape(x.shape), low.reshape(x.shape), step, n.sum(-1) * step


def rounded(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    groups = x.reshape(x.shape[0], -1, 32)
    step = jnp.abs(groups).max(-1) / 127.0
    values = jnp.rint(groups / jnp.where(step == 0, 1, step)[..., None]).astype(jnp.int8)
    return values.reshape(x.shape), step


def products() -> Iterator[Case]:
    a, b = normal(256, 512), normal(512, 512)
    yield Case("matmul 256x512x512", matmul.matmul, jnp.matmul, (a, b))
    yield Case("matmul 512x576x1536", matmul.matmul, jnp.matmul, (normal(512, 576), normal(576, 1536)))
    yield Case(
        "matmul_bias 256x512x512",
        matmul.matmul_bias,
        lambda a, b, c: jax.nn.gelu(a @ b + c, approximate=True),
        (a, b, normal(512)),
        partial(matmul.matmul_bias, activation="gelu_tanh"),
    )
    yield Case(
        "batched_matmul 8x128^3",
        matmul.batched_matmul,
        jnp.matmul,
        (normal(8, 128, 128), normal(8, 128, 128)),
    )
    yield Case("gemv 2048x2048", matmul.gemv, jnp.matmul, (normal(2048, 2048), normal(2048)))


def causal(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    scores = jnp.einsum("bhqd,bhkd->bhqk", q, k) * q.shape[-1] ** -0.5
    seen = jnp.tril(jnp.ones(scores.shape[-2:], bool))
    return jnp.einsum("bhqk,bhkd->bhqd", jax.nn.softmax(jnp.where(seen, scores, -1e30)), v)


def ragged(q: jax.Array, k: jax.Array, v: jax.Array, lengths: jax.Array) -> jax.Array:
    scores = jnp.einsum("bhqd,bhkd->bhqk", q, k) * q.shape[-1] ** -0.5
    real = jnp.arange(q.shape[2]) < lengths[:, None]
    seen = jnp.tril(jnp.ones(scores.shape[-2:], bool)) & real[:, None, None]
    found = jnp.einsum("bhqk,bhkd->bhqd", jax.nn.softmax(jnp.where(seen, scores, -1e30)), v)
    return jnp.where(real[:, None, :, None], found, 0)


def decoded(q: jax.Array, k: jax.Array, v: jax.Array, lengths: jax.Array) -> jax.Array:
    scores = jnp.einsum("bhd,bhkd->bhk", q, k) * q.shape[-1] ** -0.5
    seen = (jnp.arange(k.shape[2]) < lengths[:, None])[:, None]
    return jnp.einsum("bhk,bhkd->bhd", jax.nn.softmax(jnp.where(seen, scores, -1e30)), v)


def attentions() -> Iterator[Case]:
    q = normal(1, 8, 256, 64)
    four = normal(4, 8, 128, 64)
    cache, lengths = normal(4, 8, 1024, 64), jnp.asarray([128, 1000, 500, 30], jnp.int32)
    table = jnp.asarray(np.random.default_rng(0).permutation(128).reshape(4, 32), jnp.int32)
    yield Case("attention 8x256x64", attention.flash_attention, causal, (q, q + 1, q - 1), bound=2)
    yield Case(
        "attention 8x1024x64",
        attention.flash_attention,
        causal,
        tuple(normal(1, 8, 1024, 64, seed=n) for n in range(3)),
        bound=2,
    )
    yield Case(
        "ragged 4x8x128x64",
        attention.ragged_attention,
        ragged,
        (four, four + 1, four - 1, jnp.asarray([128, 9, 60, 100], jnp.int32)),
        bound=2,
    )
    yield Case(
        "decode 4x8x1024x64",
        decode.decode_attention,
        decoded,
        (normal(4, 8, 64), cache, cache + 1, lengths),
        bound=2,
    )
    yield Case(
        "paged decode 4x8x1024x64",
        paged.paged_decode_attention,
        gathered,
        (normal(4, 8, 64), normal(128, 8, 64, 32), normal(128, 8, 32, 64), table, lengths),
        bound=2,
    )


def gathered(
    q: jax.Array, keys: jax.Array, values: jax.Array, table: jax.Array, lengths: jax.Array
) -> jax.Array:
    """`decoded` over blocks, whose keys lie transposed: (blocks, heads, dim, size)."""
    rows, heads, dim = q.shape
    k = keys[table].transpose(0, 2, 1, 4, 3).reshape(rows, heads, -1, dim)
    v = values[table].transpose(0, 2, 1, 3, 4).reshape(rows, heads, -1, dim)
    return decoded(q, k, v, lengths)


def appended(new: jax.Array, starts: jax.Array, cache: jax.Array) -> jax.Array:
    put = jax.vmap(lambda c, n, at: jax.lax.dynamic_update_slice(c, n, (0, at, 0)))
    return put(cache, new, starts)


def turned(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    low, high = jnp.split(x, 2, -1)
    c, s = cos[:, None], sin[:, None]
    return jnp.concatenate([low * c - high * s, high * c + low * s], -1)


def turned_pairs(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    c, s = cos[:, None], sin[:, None]
    return jnp.stack([x[..., 0] * c - x[..., 1] * s, x[..., 1] * c + x[..., 0] * s], -1)


def caches() -> Iterator[Case]:
    def append(new: jax.Array, starts: jax.Array, cache: jax.Array, backend: str) -> Any:
        return decode.kv_append(new, starts, out=update(cache), backend=backend)

    starts = jnp.asarray([0, 100, 200, 400], jnp.int32)
    x = normal(4, 9, 256, 64)
    tables = rope.rope_tables(jnp.broadcast_to(jnp.arange(256), (4, 256)), 64)
    new, cache = normal(4, 8, 16, 64), normal(4, 8, 512, 64)
    yield Case("kv_append 4x8x16 of 512", decode.kv_append, appended, (new, starts, cache), append)
    yield Case("rope 4x9x256x64", rope.rope, turned, (x, *tables))
    pairs = x.reshape(4, 9, 256, 32, 2)
    yield Case("rope_interleaved 4x9x256x64", rope.rope_interleaved, turned_pairs, (pairs, *tables))


def distances() -> Iterator[Case]:
    queries, vectors = normal(8, 384), normal(20000, 384)
    bits = np.random.default_rng(0)
    packed = tuple(jnp.asarray(bits.integers(0, 256, (n, 48)), jnp.uint8) for n in (8, 20000))
    for metric in ("dot", "l2", "cosine"):
        yield Case(
            f"{metric} 8x20000x384",
            distance.distance,
            plain_distance.METRICS[metric],
            (queries, vectors),
            partial(distance.distance, metric=metric),
        )
    yield Case("hamming 8x20000x48", distance.hamming, plain_distance.hamming, packed)
    yield Case(
        "nearest 10 8x20000x384",
        distance.nearest,
        lambda q, v: top_k(plain_distance.l2(q, v), 10),
        (queries, vectors),
    )


def product(x: jax.Array, w: QTensor, backend: str) -> jax.Array:
    values = w.values.reshape(w.values.shape[0], -1)
    if w.minimum is None:
        return quant_linear.int8_linear(x, values, w.scale, backend=backend)
    return quant_linear.int4_linear(x, Packed(values, "u4"), w.scale, w.minimum, backend=backend)


def quantised() -> Iterator[Case]:
    for out, features in SHAPES:
        for kind in ("int8", "int4"):
            first = quantize(normal(out, features), kind)
            copies = max(1, STREAMED // (out * features))
            matrices = [jax.tree.map(jnp.array, first) for _ in range(copies)]
            of = quant_linear.int8_linear if kind == "int8" else quant_linear.int4_linear
            exact = integer_linear.int8_int16_linear if kind == "int8" else integer_linear.int4_int16_linear
            for count in (1, 4):
                name = f"{kind} {count}x{features} @ {out}"
                args = (normal(count, features), matrices)
                yield Case(name, of, _each(linear), args, _each(product))
                yield Case(f"16-bit {name}", exact, _each(plain_integer), args, _each(integer))
    for kind in ("int8", "int4"):
        of = quant_matmul.int8_matmul if kind == "int8" else quant_matmul.int4_matmul
        for rows, out in ((256, 1536), (64, 49152)):
            w = quantize(normal(out, 576), kind)
            name = f"{kind}_matmul {rows}x576 @ {out}"
            yield Case(name, of, linear, (normal(rows, 576), w), partial(_many, of))


def _many(of: KernelFunction, x: jax.Array, w: QTensor, backend: str) -> jax.Array:
    values = w.values.reshape(w.values.shape[0], -1)
    if w.minimum is None:
        return of(x, values, w.scale, backend=backend)
    return of(x, Packed(values, "u4"), w.scale, w.minimum, backend=backend)


def plain_integer(x: jax.Array, w: QTensor) -> jax.Array:
    """What `integer` does: x in whole numbers of 16 bits, products summed as such within a group."""
    high, low, step, sums = rounded_to_16_bits(x)
    n = (high.astype(jnp.int32) << 8 | low.astype(jnp.int32)).reshape(x.shape[0], -1, 32)
    values = w.values if w.minimum is None else unpack_nibbles(w.values)
    products = jnp.einsum("xgk,ogk->xog", n, values.astype(jnp.int32)).astype(jnp.float32)
    found = jnp.einsum("xog,xg,og->xo", products, step, w.scale)
    return found if w.minimum is None else found + sums @ w.minimum.T


def integer(x: jax.Array, w: QTensor, backend: str) -> jax.Array:
    """What the engine does natively: x in 16 bits, integer dots."""
    values = w.values.reshape(w.values.shape[0], -1)
    high, low, step, sums = round_to_int16(x, backend=backend)
    if w.minimum is None:
        return integer_linear.int8_int16_linear(high, low, step, values, w.scale, backend=backend)
    given = Packed(values, "u4"), w.scale, w.minimum
    return integer_linear.int4_int16_linear(high, low, step, sums, *given, backend=backend)


def _each(one: Callable[..., Any]) -> Callable[..., Any]:
    """`one` of x and each of several matrices."""
    return lambda x, matrices, **keywords: [one(x, w, **keywords) for w in matrices]

"""The DSL's library at three sizes on a GPU, beside plain jnp expressions, with the least each must do."""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from dsl import Packed, update
from dsl.kernels import (
    activation,
    attention,
    decode,
    distance,
    matmul,
    norm,
    quant_linear,
    quant_matmul,
    rope,
)
from dsl.kernels.softmax import softmax
from dsl.lang.kernel import KernelFunction

BF16, F32 = jnp.bfloat16, jnp.float32


@dataclass(frozen=True)
class Case:
    """`kernel(*args, **keywords)` computes what `plain(*args)` does.

    Attributes:
        args: makes the arguments from a seed, on the device.
        moved, flops: bytes to move and operations to do, at least.
        updated: whether the last argument is an array to update.
    """

    name: str
    kernel: KernelFunction
    plain: Callable[..., Any]
    args: Callable[[int], tuple[Any, ...]]
    moved: int
    flops: int
    keywords: tuple[tuple[str, Any], ...] = ()
    updated: bool = False
    wrapped: Callable[..., tuple[Any, ...]] = lambda *args: args

    def run(self, *args: Any, **more: Any) -> Any:
        """The kernel on what `args` gives."""
        args = self.wrapped(*args)
        if self.updated:
            *args, target = args
            return self.kernel(*args, out=update(target), **dict(self.keywords), **more)
        return self.kernel(*args, **dict(self.keywords), **more)


def normal(seed: int, *shape: int, dtype: Any = BF16) -> jax.Array:
    key = jax.random.key(zlib.crc32(repr((seed, shape)).encode()))
    return jax.random.normal(key, shape, jnp.float32).astype(dtype)


def whole(seed: int, *shape: int, dtype: Any = jnp.int8) -> jax.Array:
    return jax.random.bits(jax.random.key(seed), shape, jnp.uint8).astype(dtype)


def cases() -> Iterator[Case]:
    for family in (rows, products, attentions, caches, distances, quantised):
        yield from family()


def rms(x: jax.Array, w: jax.Array) -> jax.Array:
    wide = x.astype(F32)
    scaled = wide * jax.lax.rsqrt((wide * wide).mean(-1, keepdims=True) + 1e-6)
    return (scaled * w.astype(F32)).astype(x.dtype)


def layer(x: jax.Array, w: jax.Array, b: jax.Array) -> jax.Array:
    wide = x.astype(F32)
    centred = wide - wide.mean(-1, keepdims=True)
    scaled = centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return (scaled * w.astype(F32) + b.astype(F32)).astype(x.dtype)


def added(x: jax.Array, r: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array]:
    total = x.astype(F32) + r.astype(F32)
    scaled = total * jax.lax.rsqrt((total * total).mean(-1, keepdims=True) + 1e-6)
    return (scaled * w.astype(F32)).astype(x.dtype), total.astype(x.dtype)


def widened(f: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    return lambda *args: f(*(x.astype(F32) for x in args)).astype(args[0].dtype)


def rows() -> Iterator[Case]:
    for r, c in ((4096, 1024), (8192, 4096), (4096, 16384)):
        n, name = r * c, f"{r}x{c}"
        one = lambda seed, r=r, c=c: (normal(seed, r, c),)  # noqa: E731
        two = lambda seed, r=r, c=c: (normal(seed, r, c), normal(seed + 99, r, c))  # noqa: E731
        w = lambda seed, r=r, c=c: (normal(seed, r, c), normal(seed, c))  # noqa: E731
        wb = lambda seed, r=r, c=c: (normal(seed, r, c), normal(seed, c), normal(seed + 99, c))  # noqa: E731
        xrw = lambda seed, r=r, c=c: (*two(seed, r, c), normal(seed, c))  # noqa: E731, B023
        yield Case(f"softmax {name}", softmax, widened(jax.nn.softmax), one, 4 * n, 5 * n)
        yield Case(f"rms_norm {name}", norm.rms_norm, rms, w, 4 * n, 4 * n)
        yield Case(f"layer_norm {name}", norm.layer_norm, layer, wb, 4 * n, 8 * n)
        yield Case(f"add_rms_norm {name}", norm.add_rms_norm, added, xrw, 8 * n, 5 * n)
        yield Case(f"silu {name}", activation.silu, widened(jax.nn.silu), one, 4 * n, 5 * n)
        erf = widened(partial(jax.nn.gelu, approximate=False))
        yield Case(f"gelu {name}", activation.gelu, erf, one, 4 * n, 10 * n)
        gated = widened(lambda g, u: jax.nn.silu(g) * u)
        yield Case(f"swiglu {name}", activation.swiglu, gated, two, 6 * n, 6 * n)


def products() -> Iterator[Case]:
    def args(seed: int, m: int, k: int, n: int) -> tuple[Any, ...]:
        return normal(seed, m, k), normal(seed + 99, k, n) * k**-0.5

    def biased(seed: int, m: int, k: int, n: int) -> tuple[Any, ...]:
        return *args(seed, m, k, n), normal(seed, n)

    def gelu_of(a: jax.Array, b: jax.Array, c: jax.Array) -> jax.Array:
        total = jnp.matmul(a, b, preferred_element_type=F32) + c.astype(F32)
        return jax.nn.gelu(total, approximate=True).astype(a.dtype)

    for s in (1024, 4096, 8192):
        yield Case(
            f"matmul {s}^3", matmul.matmul, jnp.matmul, partial(args, m=s, k=s, n=s), 6 * s * s, 2 * s**3
        )
    s = 4096
    yield Case(
        f"matmul_bias gelu {s}^3",
        matmul.matmul_bias,
        gelu_of,
        partial(biased, m=s, k=s, n=s),
        6 * s * s,
        2 * s**3,
        (("activation", "gelu_tanh"),),
    )
    yield Case(
        "batched_matmul 64x512^3",
        matmul.batched_matmul,
        jnp.matmul,
        lambda seed: (normal(seed, 64, 512, 512), normal(seed, 64, 512, 512) * 512**-0.5),
        6 * 64 * 512**2,
        2 * 64 * 512**3,
    )
    yield Case(
        "gemv 8192x8192",
        matmul.gemv,
        jnp.matmul,
        lambda seed: (normal(seed, 8192, 8192), normal(seed, 8192) * 8192**-0.5),
        2 * 8192**2,
        2 * 8192**2,
    )


def causal(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    scores = jnp.einsum("bhqd,bhkd->bhqk", q, k, preferred_element_type=F32) * q.shape[-1] ** -0.5
    seen = jnp.tril(jnp.ones(scores.shape[-2:], bool))
    shares = jax.nn.softmax(jnp.where(seen, scores, -1e30)).astype(v.dtype)
    return jnp.einsum("bhqk,bhkd->bhqd", shares, v)


def decoded(q: jax.Array, k: jax.Array, v: jax.Array, lengths: jax.Array) -> jax.Array:
    b, h, d = q.shape
    grouped = q.reshape(b, k.shape[1], h // k.shape[1], d)
    scores = jnp.einsum("bgqd,bgkd->bgqk", grouped, k, preferred_element_type=F32) * d**-0.5
    seen = (jnp.arange(k.shape[2]) < lengths[:, None])[:, None, None]
    shares = jax.nn.softmax(jnp.where(seen, scores, -1e30)).astype(v.dtype)
    return jnp.einsum("bgqk,bgkd->bgqd", shares, v).reshape(q.shape)


def attentions() -> Iterator[Case]:
    for b, h, s, d in ((4, 16, 1024, 64), (2, 16, 4096, 128), (1, 16, 8192, 128)):
        n = b * h * s * d
        yield Case(
            f"flash_attention {b}x{h}x{s}x{d}",
            attention.flash_attention,
            causal,
            lambda seed, shape=(b, h, s, d): tuple(normal(seed + 99 * i, *shape) for i in range(3)),
            8 * n,
            2 * n * s,
        )
    for b, s in ((8, 2048), (32, 4096), (64, 8192)):
        yield Case(
            f"decode_attention {b}x32/8x{s}x128",
            decode.decode_attention,
            decoded,
            lambda seed, b=b, s=s: (
                normal(seed, b, 32, 128),
                normal(seed, b, 8, s, 128),
                normal(seed + 99, b, 8, s, 128),
                jnp.full(b, s, jnp.int32),
            ),
            4 * b * 8 * s * 128,
            4 * b * 32 * s * 128,
        )


def caches() -> Iterator[Case]:
    def turned(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
        low, high = jnp.split(x.astype(F32), 2, -1)
        c, s = cos[:, None], sin[:, None]
        return jnp.concatenate([low * c - high * s, high * c + low * s], -1).astype(x.dtype)

    def appended(new: jax.Array, starts: jax.Array, cache: jax.Array) -> jax.Array:
        put = jax.vmap(lambda c, n, at: jax.lax.dynamic_update_slice(c, n, (0, at, 0)))
        return put(cache, new, starts)

    def positions(seed: int) -> tuple[Any, ...]:
        cos, sin = rope.rope_tables(jnp.broadcast_to(jnp.arange(4096), (4, 4096)), 128)
        return normal(seed, 4, 32, 4096, 128), cos.astype(F32), sin.astype(F32)

    yield Case("rope 4x32x4096x128", rope.rope, turned, positions, 4 * 4 * 32 * 4096 * 128, 0)
    yield Case(
        "kv_append 32x8x128 of 2048",
        decode.kv_append,
        appended,
        lambda seed: (
            normal(seed, 32, 8, 128, 128),
            jnp.arange(32, dtype=jnp.int32) * 50,
            normal(seed, 32, 8, 2048, 128),
        ),
        2 * 2 * 32 * 8 * 2048 * 128,  # the cache is copied first, for it is used again
        0,
        updated=True,
    )


def distances() -> Iterator[Case]:
    def l2(queries: jax.Array, vectors: jax.Array) -> jax.Array:
        products = jnp.matmul(queries, vectors.T, precision="highest")
        squares = (queries**2).sum(1)[:, None] + (vectors**2).sum(1)
        return -jnp.maximum(squares - 2 * products, 0)

    def differing(queries: jax.Array, vectors: jax.Array) -> jax.Array:
        return -jax.lax.population_count(queries[:, None] ^ vectors[None]).astype(jnp.int32).sum(-1)

    def pair(seed: int, q: int, n: int) -> tuple[Any, ...]:
        return normal(seed, q, 384, dtype=F32), normal(seed, n, 384, dtype=F32)

    for q, n in ((8, 100_000), (64, 200_000), (256, 400_000)):
        yield Case(
            f"l2 {q}x{n}x384",
            distance.distance,
            l2,
            partial(pair, q=q, n=n),
            4 * (384 * n + q * n),
            2 * q * n * 384,
            (("metric", "l2"),),
        )
    yield Case(
        "nearest 10 8x100000x384",
        distance.nearest,
        lambda q, v: jax.lax.top_k(l2(q, v), 10),
        partial(pair, q=8, n=100_000),
        4 * 384 * 100_000,
        2 * 8 * 384 * 100_000,
    )
    yield Case(
        "hamming 64x1000000x48",
        distance.hamming,
        differing,
        lambda seed: (whole(seed, 64, 48, dtype=jnp.uint8), whole(seed + 9, 1_000_000, 48, dtype=jnp.uint8)),
        1_000_000 * (48 + 64 * 4),
        0,
    )


def dense(w: jax.Array, scale: jax.Array, minimum: jax.Array | None = None) -> jax.Array:
    groups = w.astype(F32).reshape(w.shape[0], -1, 32) * scale[..., None]
    return (groups if minimum is None else groups + minimum[..., None]).reshape(w.shape)


def eights(x: jax.Array, w: jax.Array, scale: jax.Array) -> jax.Array:
    return jnp.matmul(x, dense(w, scale).astype(x.dtype).T)


def fours(x: jax.Array, w: jax.Array, scale: jax.Array, minimum: jax.Array) -> jax.Array:
    halves = w.reshape(w.shape[0], -1, 16)  # 16 bytes hold 32 weights, the lower nibbles first
    nibbles = jnp.concatenate([halves & 15, halves >> 4], -1).reshape(w.shape[0], -1)
    return jnp.matmul(x, dense(nibbles, scale, minimum).astype(x.dtype).T)


def quantised() -> Iterator[Case]:
    def eight(seed: int, count: int, out: int, k: int) -> tuple[Any, ...]:
        scale = jnp.abs(normal(seed, out, k // 32, dtype=F32)) * 1e-2
        return normal(seed, count, k), whole(seed, out, k), scale

    def four(seed: int, count: int, out: int, k: int) -> tuple[Any, ...]:
        x, _, scale = eight(seed, count, out, k)
        return x, whole(seed, out, k // 2, dtype=jnp.uint8), scale, -7 * scale

    def packed(x: jax.Array, w: jax.Array, *scales: jax.Array) -> tuple[Any, ...]:
        return x, Packed(w, "u4"), *scales

    for count, out, k in ((1, 4096, 4096), (1, 14336, 4096), (4, 14336, 4096), (512, 14336, 4096)):
        name, flops = f"{count}x{k} @ {out}", 2 * count * out * k
        kernels = (
            (quant_linear.int8_linear, quant_linear.int4_linear)
            if count < 32
            else (quant_matmul.int8_matmul, quant_matmul.int4_matmul)
        )
        size = {"count": count, "out": out, "k": k}
        yield Case(
            f"{kernels[0].name} {name}", kernels[0], eights, partial(eight, **size), out * k * 9 // 8, flops
        )
        yield Case(
            f"{kernels[1].name} {name}",
            kernels[1],
            fours,
            partial(four, **size),
            out * k * 3 // 4,
            flops,
            wrapped=packed,
        )

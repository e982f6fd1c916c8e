"""DSL kernels beside the plain jnp expression: the XLA lowering and the compiled C++, in one run.

Ratios are of wall medians, against plain; below 1 is faster. Products with quantised weights run over as
many different matrices as a model has layers, so that weights come from memory; their plain expression is
what the engine does without native kernels. Run: `python -m experiments.bench.dsl [--rounds N] [NAME...]`.
"""

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dsl import Packed
from dsl.kernels.activation import gelu, swiglu
from dsl.kernels.attention import flash_attention
from dsl.kernels.decode import decode_attention
from dsl.kernels.distance import distance
from dsl.kernels.matmul import matmul
from dsl.kernels.norm import layer_norm, rms_norm
from dsl.kernels.quant_linear import int4_linear, int8_linear
from dsl.kernels.softmax import softmax
from engine.ops.jit import compile
from engine.ops.linear import linear
from engine.ops.quant import QTensor, quantize
from experiments.bench.measure import interleaved, machine

SHAPES = ((576, 576), (1536, 576), (576, 1536), (49152, 576))
"""(out, in) of SmolLM2 135M's products."""
STREAMED = 10_000_000
"""Weights read in a run, so that they do not stay in the cache."""


@dataclass(frozen=True)
class Case:
    name: str
    plain: Callable[..., Any]
    kernel: Callable[..., Any]
    args: tuple[Any, ...]


def normal(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(len(shape)).standard_normal(shape), jnp.float32)


def rms(x: jax.Array, w: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6) * w


def layer(x: jax.Array, w: jax.Array, b: jax.Array) -> jax.Array:
    centred = x - x.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * w + b


def causal(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    scores = jnp.einsum("bhqd,bhkd->bhqk", q, k) * q.shape[-1] ** -0.5
    seen = jnp.tril(jnp.ones(scores.shape[-2:], bool))
    return jnp.einsum("bhqk,bhkd->bhqd", jax.nn.softmax(jnp.where(seen, scores, -1e30)), v)


def decoded(q: jax.Array, k: jax.Array, v: jax.Array, lengths: jax.Array) -> jax.Array:
    scores = jnp.einsum("bhd,bhkd->bhk", q, k) * q.shape[-1] ** -0.5
    seen = (jnp.arange(k.shape[2]) < lengths[:, None])[:, None]
    return jnp.einsum("bhk,bhkd->bhd", jax.nn.softmax(jnp.where(seen, scores, -1e30)), v)


def plain_cases() -> list[Case]:
    x, w = normal(512, 2048), normal(2048)
    q = normal(1, 8, 256, 64)
    cache = normal(4, 8, 1024, 64)
    lengths = jnp.asarray([128, 1000, 500, 30], jnp.int32)
    return [
        Case("softmax 512x2048", jax.nn.softmax, softmax, (x,)),
        Case("rms_norm 512x2048", rms, rms_norm, (x, w)),
        Case("layer_norm 512x2048", layer, layer_norm, (x, w, w)),
        Case("gelu 512x2048", partial(jax.nn.gelu, approximate=False), gelu, (x,)),
        Case("swiglu 512x2048", lambda g, u: jax.nn.silu(g) * u, swiglu, (x, x + 1)),
        Case("matmul 256x512x512", jnp.matmul, matmul, (normal(256, 512), normal(512, 512))),
        Case("attention 8x256x64", causal, flash_attention, (q, q + 1, q - 1)),
        Case("decode 4x8x1024x64", decoded, decode_attention, (normal(4, 8, 64), cache, cache, lengths)),
        Case(
            "l2 8x20000x384",
            lambda a, b: -((a * a).sum(1)[:, None] - 2 * a @ b.T + (b * b).sum(1)),
            distance,
            (normal(8, 384), normal(20000, 384)),
        ),
    ]


def product(x: jax.Array, w: QTensor, backend: str) -> jax.Array:
    values = w.values.reshape(w.values.shape[0], -1)
    if w.minimum is None:
        return int8_linear(x, values, w.scale, backend=backend)
    return int4_linear(x, Packed(values, "u4"), w.scale, w.minimum, backend=backend)


def quantised_cases() -> list[Case]:
    cases = []
    for out, features in SHAPES:
        for kind in ("int8", "int4"):
            first = quantize(normal(out, features), kind)
            copies = max(1, STREAMED // (out * features))
            matrices = [jax.tree.map(jnp.array, first) for _ in range(copies)]
            for rows in (1, 4):
                name = f"{kind} {rows}x{features} @ {out}"
                cases.append(
                    Case(
                        name,
                        lambda x, ws: [linear(x, w) for w in ws],
                        lambda x, ws, backend: [product(x, w, backend) for w in ws],
                        (normal(rows, features), matrices),
                    )
                )
    return cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="only cases whose name contains one of these")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    os.environ["TARSIA_OPS"] = "xla"
    print(f"dsl: wall medians of {options.rounds} rounds, {machine()}")
    print(f"  {'kernel':28s} {'plain ms':>9s} {'xla':>6s} {'cpu':>6s} {'cpu/xla':>8s}")
    for case in [*plain_cases(), *quantised_cases()]:
        if not options.names or any(name in case.name for name in options.names):
            report(case, options.rounds)


def report(case: Case, rounds: int) -> None:
    calls = {"plain": compile(lambda *args: case.plain(*args))}
    for backend in ("xla", "cpu"):
        calls[backend] = compile(partial(case.kernel, backend=backend))
    spans = interleaved({name: partial(finished, f, case.args) for name, f in calls.items()}, rounds)
    plain, xla, cpu = (spans[name].wall for name in ("plain", "xla", "cpu"))
    print(f"  {case.name:28s} {plain * 1e3:9.3f} {xla / plain:6.2f} {cpu / plain:6.2f} {cpu / xla:8.2f}")


def finished(f: Callable[..., Any], args: tuple[Any, ...]) -> None:
    jax.block_until_ready(f(*args))


if __name__ == "__main__":
    main()

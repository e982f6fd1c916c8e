"""Kernels of narrow floats for the layouts of matrix units: ragged, odd, several passes, on small arrays."""

import jax.numpy as jnp
import numpy as np

import dsl
from dsl import dot, exp, loop, pid, tile, zeros
from dsl.kernels.attention import flash_attention, ragged_attention
from dsl.kernels.decode import decode_attention
from dsl.kernels.distance import distance
from dsl.kernels.matmul import batched_matmul, matmul, matmul_bias
from dsl.kernels.quant_matmul import int4_matmul, int8_matmul
from tests.dsl.targets.sim.cases import normal, packed

TOLERANCE = {jnp.float16: 2e-3, jnp.bfloat16: 1.6e-2, jnp.float32: 2e-4}
"""Of narrow inputs and outputs, as in the tests of the library on XLA."""


def ints(*shape):
    return jnp.asarray(np.random.default_rng(4).integers(-128, 128, shape), jnp.int8)


def attended(queries, keys, dim, dtype):
    q, k, v = (queries, 4, 0), (keys, 2, 1), (keys, 2, 2)
    return tuple(normal(1, heads, length, dim, seed=seed, dtype=dtype) for length, heads, seed in (q, k, v))


def with_infinities(left, right):
    """Some where the first odd tile ends: the other's zeros there would make no numbers of them."""
    return left.at[np.array([3, 11]), 22].set(jnp.inf), right.at[22, 5].set(jnp.inf)


LENGTHS = jnp.asarray([19, 37], jnp.int32)
KERNELS = {
    "matmul": lambda t: (matmul, (normal(70, 75, dtype=t), normal(75, 40, dtype=t)), {"BM": 64}),
    "matmul of odd tiles": lambda t: (
        matmul,
        with_infinities(normal(45, 43, dtype=t), normal(43, 27, dtype=t)),
        {"BM": 36, "BN": 20, "BK": 22},
    ),
    "matmul_bias": lambda t: (
        matmul_bias,
        (normal(17, 45, dtype=t), normal(45, 23, dtype=t), normal(23, dtype=t)),
        {"activation": "gelu"},
    ),
    "batched_matmul": lambda t: (
        batched_matmul,
        (normal(2, 17, 40, dtype=t), normal(2, 40, 24, dtype=t)),
        {"BM": 16, "BN": 16},
    ),
    "flash_attention": lambda t: (flash_attention, attended(37, 70, 24, t), {"BM": 32, "BN": 32}),
    "flash_attention windowed": lambda t: (
        flash_attention,
        attended(20, 37, 16, t),
        {"BM": 16, "BN": 16, "window": 7},
    ),
    "ragged_attention": lambda t: (
        ragged_attention,
        (*(normal(2, 2, 37, 16, seed=n, dtype=t) for n in range(3)), LENGTHS),
        {"BM": 32, "BN": 16, "causal": False},
    ),
    "decode_attention": lambda t: (
        decode_attention,
        (
            normal(2, 12, 40, dtype=t),
            normal(2, 2, 37, 40, seed=1, dtype=t),
            normal(2, 2, 37, 40, seed=2, dtype=t),
            LENGTHS,
        ),
        {"BN": 16},
    ),
    "distance": lambda t: (
        distance,
        (normal(21, 24, dtype=t), normal(37, 24, seed=1, dtype=t)),
        {"metric": "l2"},
    ),
    "int8_matmul": lambda t: (
        int8_matmul,
        (normal(37, 96, dtype=t) / 16, ints(41, 96), normal(41, 3, seed=1)),
        {},
    ),
    "int4_matmul": lambda t: (
        int4_matmul,
        (normal(37, 64, dtype=t), packed(41, 32), normal(41, 2, seed=1), normal(41, 2, seed=2)),
        {},
    ),
}


def deep(transpose_b):
    """(kernel, arguments) of a dot whose inner axis goes through shared memory in chunks, the last ragged."""

    @dsl.kernel(grid=1, out=lambda a: dsl.like(a, shape=(12, 64), dtype="f32"))
    def product(a, b, o):
        o[:, :] = dot(a[:, :], b[:, :], transpose_b=transpose_b)

    right = normal(*((64, 533) if transpose_b else (533, 64)), seed=1, dtype=jnp.float16)
    return product, (normal(12, 533, dtype=jnp.float16), right)


@dsl.kernel(grid=1, out=lambda a, c: dsl.like(a, shape=(a.shape[0], c.shape[1]), dtype="f32"))
def mixed(a, b, c, o):
    """Two dots, one of them of f32, reductions of both axes, and a window of the columns."""
    ab = dot(a[:, :], b[:, :])
    ab = exp((ab - ab.max(1)) * 0.1) + (ab - ab.min(0)) * 0.01 + ab.sum(0).max(1) * 0.001
    o[:, :] = dot(ab, c[:, :].f32) + a[:, tile(0, c.shape[1])].f32.sum(1)


@dsl.kernel(grid=1, out=lambda a, b: dsl.like(a, shape=(a.shape[0], b.shape[0]), dtype="f32"))
def narrowed(a, b, o):
    """Of f32, 16 bytes are half of what a thread takes of a row."""
    o[:, :] = dot(a[:, :], (b[:, :] * 0.5).f16, transpose_b=True)


@dsl.kernel(grid=3, out=lambda a: dsl.like(a, shape=(48, 16), dtype="f32"))
def beside_runs(a, b, o):
    """Windows that begin amid a run of neighbours, and a sum with what is made after the dot."""
    product = dot(a[:, :], b[:, tile(pid(0) * 4, 16)])
    o[tile(pid(0) * 16, 16), :] = product + exp(a[:, :].f32)


@dsl.kernel(grid=2, out=lambda a, b: dsl.like(a, shape=(32, b.shape[0]), dtype="f32"))
def tails(a, b, o):
    """What is behind a window of the inner axis is of the array too, until it ends."""
    some = tile(pid(0) * 20, 20)
    o[tile(pid(0) * 16, 16), :] = dot(a[:, some], b[:, some], transpose_b=True)


@dsl.kernel(grid=1, out=lambda a: dsl.like(a, shape=(a.shape[0], a.shape[0]), dtype="f32"))
def both_sides(a, o):
    """One tile as both operands, and a dot that is added to something and used again."""
    corner = a[:, tile(0, a.shape[0])].f32
    product = dot(a[:, :], a[:, :], transpose_b=True)
    o[:, :] = (corner + product) * product


@dsl.kernel(grid=1, out=lambda a, b: dsl.like(a, shape=(a.shape[0], b.shape[1]), dtype="f32"))
def reciprocals(a, b, o):
    """What a thread holds past the end of the left operand's rows is no number that zero makes zero."""
    o[:, :] = dot((1.0 / a[:, :].f32).f16, b[:, :])


@dsl.kernel(grid=1, out=lambda a, b: dsl.like(a, shape=(a.shape[0], b.shape[1]), dtype="f32"))
def chained(a, b, o):
    """Where a pass reads, the pass before it has found out."""

    def step(_, carry):
        at, total = carry
        part = tile(at * 16, 16)
        return at + 1, total + dot(a[:, part], b[part, :])

    o[:, :] = loop(0, a.shape[1] // 16, step, (0, zeros((a.shape[0], b.shape[1]))))[1]


@dsl.kernel(grid=1, out=lambda a: dsl.like(a, shape=(a.shape[0], a.shape[0]), dtype="f32"))
def twice(a, b, o):
    """A pass loads what two of its dots multiply."""

    def step(n, total):
        part = a[:, tile(n * 16, 16)]
        return total + dot(part, part, transpose_b=True) + dot(part, b[:, tile(n * 16, 16)], transpose_b=True)

    o[:, :] = loop(0, a.shape[1] // 16, step, zeros((a.shape[0], a.shape[0])))


def f16(*shapes):
    return tuple(normal(*shape, dtype=jnp.float16) for shape in shapes)


SMALL = {
    "mixed": (mixed, f16((37, 21), (21, 34), (34, 7)), {}),
    # These weights are exact in f16.
    "narrowed": (narrowed, (*f16((20, 40)), jnp.round(normal(24, 40) * 8)), {}),
    "beside_runs": (beside_runs, f16((16, 16), (16, 24)), {}),
    "tails": (tails, (*f16((16, 36)), f16((24, 36))[0].at[5, 20].set(jnp.inf)), {}),
    "reciprocals": (reciprocals, (*(x * x + 0.5 for x in f16((16, 20))), *f16((20, 24))), {}),
    "chained": (chained, f16((16, 48), (48, 24)), {}),
    "twice": (twice, f16((24, 48), (24, 48)), {}),
    "both_sides": (both_sides, f16((24, 32)), {}),
    "shallow": (matmul, f16((16, 10), (10, 64)), {"BM": 16, "BN": 64, "BK": 10}),
}

"""Kernels that are not of the library, as strangers write them, in generated CUDA C++ and Metal."""

import jax.numpy as jnp
import numpy as np
import pytest

import dsl
from dsl import cdiv, dot, exp, full, loop, maximum, pid, rsqrt, tile, where, zeros
from dsl.lower.c.dialects import CUDA, METAL
from tests.dsl.targets.sim.cases import agrees, normal, prepared

pytestmark = pytest.mark.parametrize("dialect", (CUDA, METAL), ids=lambda d: d.name)


def check(kernel, args, dialect, **keywords):
    ir, arrays, expected = prepared(kernel, args, keywords)
    agrees(ir, dialect, arrays, expected)


def test_bias_dropout_residual_layer_norm(dialect):
    @dsl.kernel(grid=lambda x, BM: cdiv(x.shape[0], BM), out=lambda x: dsl.like(x))
    def fused(x, bias, keep, residual, gain, o, *, BM=6):
        rows = tile(pid(0) * BM, BM)
        t = where(keep[rows, :] == 1, (x[rows, :] + bias[:]) * 1.25, 0.0) + residual[rows, :]
        t = t - t.sum(1) * (1 / x.shape[1])
        o[rows, :] = t * rsqrt((t * t).sum(1) * (1 / x.shape[1]) + 1e-5) * gain[:]

    keep = jnp.asarray(np.random.default_rng(0).integers(0, 2, (13, 70)), jnp.uint8)
    check(fused, (normal(13, 70), normal(70), keep, normal(13, 70, seed=1), normal(70)), dialect)


def test_sliding_window_attention_with_sinks(dialect):
    @dsl.kernel(grid=lambda q, BM: cdiv(q.shape[0], BM), out=lambda q: dsl.like(q))
    def sinks(q, k, v, o, *, BM=8, BN=8, window=9, kept=2):
        rows = tile(pid(0) * BM, BM)
        scaled = q[rows, :] * q.shape[1] ** -0.5

        def step(j, carry):
            top, total, mixed = carry
            keys = tile(j * BN, BN)
            at, key = rows.rows(), keys.cols()
            seen = (at >= key) & ((at - key < window) | (key < kept)) & (key < k.shape[0])
            scores = where(seen, dot(scaled, k[keys, :], transpose_b=True), -1e30)
            higher = maximum(top, scores.max(1))
            p, fade = exp(scores - higher), exp(top - higher)
            return higher, total * fade + p.sum(1), mixed * fade + dot(p, v[keys, :])

        start = full((BM, 1), -1e30), zeros((BM, 1)), zeros((BM, q.shape[1]))
        _, total, mixed = loop(0, cdiv(k.shape[0], BN), step, start)
        o[rows, :] = mixed / total

    check(sinks, (normal(29, 12), normal(29, 12, seed=1), normal(29, 12, seed=2)), dialect)


def test_mandelbrot(dialect):
    @dsl.kernel(grid=3, out=lambda re, im: dsl.like(re, shape=(im.shape[0], re.shape[0]), dtype="i32"))
    def mandelbrot(re, im, o):
        rows = tile(pid(0) * 4, 4)
        a, b = re[:] + zeros((4, re.shape[0])), im.column[rows]

        def step(_, carry):
            x, y, n = carry
            inside = x * x + y * y < 4.0
            return where(inside, x * x - y * y + a, x), where(inside, 2 * x * y + b, y), n + inside

        o[rows, :] = loop(0, 20, step, (zeros(a.shape), zeros(a.shape), zeros(a.shape, "i32")))[2]

    # Away from the edge of the set, where f32 and f64 part.
    re, im = jnp.linspace(-2.03, 0.61, 13), jnp.linspace(-1.13, 1.07, 11)
    check(mandelbrot, (re.astype(jnp.float32), im.astype(jnp.float32)), dialect)


def test_a_product_of_three_with_reductions_of_both_axes(dialect):
    @dsl.kernel(grid=1, out=lambda a, c: dsl.like(a, shape=(a.shape[0], c.shape[1])))
    def three(a, b, c, o):
        ab = dot(a[:, :], b[:, :])
        o[:, :] = dot(ab - ab.max(0), c[:, :]) + ab.sum(1)

    check(three, (normal(9, 21), normal(21, 34, seed=1), normal(34, 7, seed=2)), dialect)


def test_a_prefix_sum_by_a_carry_over_blocks(dialect):
    @dsl.kernel(grid=lambda x: x.shape[0], out=lambda x: dsl.like(x))
    def prefix(x, o, *, B=16):
        def step(j, before):
            block = tile(j * B, B)
            lower = where(tile(0, B).rows() < tile(0, B).cols() + 1, 1.0, 0.0)
            sums = before + dot(x[pid(0), block], lower)
            o[pid(0), block] = sums
            return before + x[pid(0), block].sum(1)

        loop(0, cdiv(x.shape[1], B), step, zeros((1, 1)))

    check(prefix, (normal(3, 53),), dialect)


def test_a_loop_whose_end_is_data(dialect):
    @dsl.kernel(grid=2, out=lambda x: dsl.like(x, shape=(2, 1)))
    def total(x, lengths, o):
        def step(j, so_far):
            return so_far + dot(x[pid(0), tile(j * 8, 8)], x[pid(0), tile(j * 8, 8)], transpose_b=True)

        o[pid(0), :] = loop(0, lengths[pid(0)], step, zeros((1, 1)))

    check(total, (normal(2, 40), jnp.array([3, 5], jnp.int32)), dialect)

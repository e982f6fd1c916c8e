"""Loops that add up: taken apart into dots and sums, with the oracle's result unchanged."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

import dsl
from dsl import Packed, cdiv, dot, loop, pid, tile, zeros
from dsl.ir.ops import Loop
from dsl.kernels.quant_linear import int4_linear
from dsl.kernels.quant_matmul import int4_matmul, int8_matmul
from dsl.lower import oracle, xla
from dsl.lower.contractions import Product, sums
from tests.dsl.kernels.matvec import int4_matvec

GROUP = 32


def normal(*shape, seed=0, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def bytes_(*shape):
    return jnp.asarray(np.random.default_rng(1).integers(0, 256, shape), jnp.uint8)


def weights(out, features):
    return Packed(bytes_(out, features // 2), "u4"), normal(out, features // 32), normal(out, features // 32)


def traced(kernel, *args, **keywords):
    """(IR, the jaxpr of its XLA lowering), once that agrees with the oracle."""
    ir = kernel.ir(*args, **keywords)
    arrays = kernel.prepare(args, None, keywords).arrays
    lowered = xla.lower(ir)
    for mine, theirs in zip(jax.jit(lowered)(*arrays), oracle.run(ir, *arrays), strict=True):
        np.testing.assert_allclose(np.asarray(mine, np.float64), theirs, rtol=1e-4, atol=1e-4)
    return ir, jax.make_jaxpr(lowered)(*arrays)


def primitives(jaxpr):
    """Names of all primitives, those of inner functions too."""
    found = []
    for eqn in jaxpr.eqns:
        found.append(eqn.primitive.name)
        for inner in jaxprs_in_params(eqn.params):
            found += primitives(inner)
    return found


def terms(ir):
    (found,) = [sums(op, ir) for op in ir.body if isinstance(op, Loop)]
    return [[type(term) for term in total.terms] for total in found.totals] if found else None


def test_scaled_dots_of_all_passes_are_one():
    args = normal(7, 96), jnp.asarray(bytes_(12, 96), jnp.int8), normal(12, 3)
    ir, jaxpr = traced(int8_matmul, *args, BM=7, BN=12)
    assert terms(ir) == [[Product]]
    names = primitives(jaxpr.jaxpr)
    assert names.count("dot_general") == 1
    assert "scan" not in names and "while" not in names


def test_minima_of_groups_are_a_product_of_their_own():
    ir, jaxpr = traced(int4_matmul, normal(7, 96), *weights(12, 96), BM=7, BN=12)
    assert terms(ir) == [[Product, Product]]
    assert primitives(jaxpr.jaxpr).count("dot_general") == 3, "low nibbles, high nibbles, minima"


@pytest.mark.parametrize("kernel", [int4_matvec, int4_linear])
def test_nibbles_are_never_put_in_order_where_they_are_summed(kernel):
    rows = 1 if kernel is int4_matvec else 3
    _, jaxpr = traced(kernel, normal(rows, 128), *weights(10, 128))
    shapes = [v.aval.shape for eqn in jaxpr.eqns for v in eqn.outvars if eqn.primitive.name == "concatenate"]
    assert not shapes, f"halves were joined: {shapes}"


def test_rows_of_a_final_that_are_summed_later_are_a_dot():
    @dsl.kernel(grid=1, out=lambda x, y: dsl.like(x, shape=(x.shape[0], 1)))
    def later(x, y, o):
        def step(g, total):
            part = tile(g * 8, 8)
            return total + x[:, part] * y[0, part]

        o[:, :] = loop(0, x.shape[1] // 8, step, zeros((x.shape[0], 8)) + 0.5).sum(1)

    ir, jaxpr = traced(later, normal(6, 40), normal(1, 40))
    assert terms(ir) == [[Product]]
    assert primitives(jaxpr.jaxpr).count("dot_general") == 1


def test_narrow_operands_are_widened_before_they_are_scaled():
    args = normal(5, 64, dtype=jnp.float16), jnp.asarray(bytes_(9, 64), jnp.int8), normal(9, 2) * 3
    traced(int8_matmul, *args, BM=5, BN=9)


def test_values_from_before_the_loop_and_scalars_of_a_pass_take_part():
    @dsl.kernel(grid=lambda x: cdiv(x.shape[0], 4), out=lambda x: dsl.like(x, shape=(x.shape[0], 3)))
    def mixed(x, w, s, o):
        rows = tile(pid(0) * 4, 4)
        bias = x[rows, tile(0, 3)] * 2.0

        def step(g, carry):
            a, b, n = carry
            part = x[rows, tile(g * 8, 8)]
            product = dot(part, w[:, tile(g * 8, 8)], transpose_b=True) * s[g]
            columns = tile(g * 8, 3).cols().f32
            return a + (product + bias), b + columns * s[g], n + s[g] * g.f32

        a, b, n = loop(0, x.shape[1] // 8, step, (zeros((4, 3)), zeros((1, 3)), 0.25))
        o[rows, :] = a + b * n

    ir, jaxpr = traced(mixed, normal(10, 32), normal(3, 32), normal(4))
    assert [len(each) for each in terms(ir)] == [2, 1, 1]
    assert "scan" not in primitives(jaxpr.jaxpr)


def test_a_dot_that_no_term_takes_apart_stays_in_a_loop():
    @dsl.kernel(grid=1, out=lambda x, w: dsl.like(x, shape=(x.shape[0], w.shape[0])))
    def rectified(x, w, o):
        def step(g, total):
            part = tile(g * 8, 8)
            product = dot(x[:, part], w[:, part], transpose_b=True)
            return total + dsl.maximum(product, 0.0)

        o[:, :] = loop(0, x.shape[1] // 8, step, zeros((x.shape[0], w.shape[0])))

    ir, jaxpr = traced(rectified, normal(5, 32), normal(6, 32))
    assert terms(ir) is None
    assert "scan" in primitives(jaxpr.jaxpr)


@pytest.mark.parametrize("kind", ["used", "both", "scaled"])
def test_a_carry_that_is_more_than_added_to_stays_in_a_loop(kind):
    @dsl.kernel(grid=1, out=lambda x: dsl.like(x, shape=(x.shape[0], 1)))
    def carried(x, o):
        def step(j, total):
            term = x[:, tile(j, 1)]
            if kind == "used":
                return total + term * total
            return total + total if kind == "both" else (total + term) * 0.5

        o[:, :] = loop(0, x.shape[1], step, zeros((x.shape[0], 1)) + 1.0)

    ir, _ = traced(carried, normal(5, 6))
    assert terms(ir) is None


def test_signed_nibbles_are_extended_and_other_reductions_see_both_halves():
    @dsl.kernel(grid=1, out=lambda w: [dsl.like(normal(1), shape=(4, 1)), dsl.like(normal(1), shape=(4, 64))])
    def looks(w, most, whole):
        tile_ = w[tile(0, 4), tile(0, 64)].f32
        most[:, :] = tile_.max(1) - tile_.min(1)
        whole[:, :] = tile_ * 2.0

    traced(looks, Packed(bytes_(4, 32), "i4"))


def test_gradients_go_through_the_dots():
    x, packed = normal(3, 64), weights(9, 64)
    dense = jnp.asarray(int4_linear(jnp.eye(64), *packed, backend="oracle")).T
    cotangent = normal(3, 9, seed=4)
    found = jax.grad(lambda x: (int4_matmul(x, *packed, backend="xla") * cotangent).sum())(x)
    np.testing.assert_allclose(found, cotangent @ dense, rtol=1e-4, atol=1e-4)

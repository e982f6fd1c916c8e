"""Which tiles are spread for memory, and which additions a dot takes in."""

import jax.numpy as jnp
import pytest

import dsl
from dsl import dot
from dsl.ir.ops import Binary, Cast, Dot, Load, walk
from dsl.kernels.quant_matmul import int8_matmul
from dsl.lower.c.layout import MMA_16_8_16, matrix_layout, row_layout
from dsl.lower.c.placement import place
from dsl.lower.c.sums import sums

MAIN = matrix_layout(MMA_16_8_16, 2)


def ones(*shape, dtype=jnp.float16):
    return jnp.ones(shape, dtype)


def traced(body):
    @dsl.kernel(grid=1, out=lambda a, b: dsl.like(a, shape=(a.shape[0], b.shape[0]), dtype="f32"))
    def kernel(a, b, o):
        o[:, :] = body(a[:, :], b[:, :])

    return kernel.ir(ones(32, 64), ones(48, 64))


def loaded(ir):
    return {op.ref: op.result for op in walk(ir.body) if isinstance(op, Load)}


def test_a_right_operand_and_all_it_is_made_of_are_spread():
    ir = int8_matmul.ir(ones(32, 64), ones(64, 64, dtype=jnp.int8), ones(64, 2, dtype=jnp.float32))
    placement = place(ir, MAIN)
    values, casts = loaded(ir), [op for op in walk(ir.body) if isinstance(op, Cast)]
    assert placement.of(values["w"]) != MAIN
    assert {placement.of(op.result) for op in casts} == {placement.of(values["w"])}
    assert placement.of(values["x"]) != MAIN, "a left operand that the loop loads"
    assert placement.of(values["scale"]) == MAIN
    assert place(ir, row_layout(2)).spread == {}


@pytest.mark.parametrize(
    "body",
    [
        lambda a, b: dot(a, b, transpose_b=True) + b.f32.sum(1).sum(0),
        lambda a, b: dot(a.f32, b.f32, transpose_b=True),
    ],
    ids=["reduced too", "f32"],
)
def test_what_is_read_in_another_way_stays_with_the_rest(body):
    ir = traced(body)
    assert place(ir, MAIN).of(loaded(ir)["b"]) == MAIN


def test_a_left_operand_that_no_loop_loads_stays_in_registers():
    ir = traced(lambda a, b: dot(a, b, transpose_b=True))
    assert place(ir, MAIN).of(loaded(ir)["a"]) == MAIN


SUMS = {
    "before": (lambda a, b: b.f32.sum(1).sum(0) + dot(a, b, transpose_b=True), 0),
    "two dots": (lambda a, b: dot(a, b, transpose_b=True) + dot(a, b * 2.0, transpose_b=True), 1),
    "used twice": (lambda a, b: (d := dot(a, b, transpose_b=True)) * 2.0 + d, 0),
}


@pytest.mark.parametrize("name", SUMS)
def test_a_dot_takes_in_a_whole_tile_that_comes_before_it(name):
    """Not a number spread over the tile, and not where the dot is used again."""
    body, expected = SUMS[name]
    ir = traced(body)
    found = sums(ir)
    assert len(found) == expected
    dots = [op.result.id for op in walk(ir.body) if isinstance(op, Dot)]
    for value, each in found.items():
        assert value == dots[-1] and each.start.id == dots[0]
        (addition,) = [op for op in walk(ir.body) if isinstance(op, Binary) and op.result == each.result]
        assert addition.kind == "add"

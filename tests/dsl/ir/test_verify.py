"""What the verifier refuses in kernels that come as text, and what the analyses know."""

import dataclasses

import jax.numpy as jnp
import pytest

from dsl import KernelError
from dsl.ir.access import covers
from dsl.ir.affine import Ranges
from dsl.ir.ops import Load, Loop, walk
from dsl.ir.text import parse_kernel, print_kernel
from dsl.ir.verify import verify
from dsl.kernels.attention import flash_attention
from dsl.kernels.softmax import softmax

GOOD = print_kernel(softmax.ir(jnp.ones((13, 3)), BM=4))


WIDE = """kernel wide grid(2) {
  ref x: f32[8, 4] in
  ref h: f16[8, 4] in
  ref o: f32[8, 4] out
  %0: i32 = const 0
  %1: i32 = pid 0
  %2: f32[4, 4] = load x[%0:4@0, %0:4@1] other 0.0
  %3: f16[4, 4] = load h[%0:4@0, %0:4@1] other 0.0
  %4: i32[4, 1] = iota %0 axis 0
  %5: bool[4, 1] = ge %4, %0
  %6: f32[4, 4] = full 2.0
  %7: f32[4, 1] = reduce sum %2 axis 1
  %8: f32[4, 4] = loop %9 in %0..%1 carry %10 = %2 max_trip 3 {
    %11: f32[4, 4] = add %10, %6
    yield %11
  }
  %12: f32[4, 4] = dot %2, %8
  %13: f32[4, 4] = where %5, %12, %7
  %14: i32 = const 4
  %15: i32 = mul %1, %14
  store o[%15:4@0, %0:4@1], %13
}
"""
BROKEN = [
    ("ref h: f16", "ref x: f16", "two Refs have the same name"),
    ("ref h: f16[8, 4] in", "ref h: u4[8, 4] in", "last axis is a multiple of 32"),
    ("%6: f32[4, 4] = full 2.0", "%6: f32 = full 2.0", "a tile is .rows, columns. with both >= 1"),
    ("%1: i32 = pid 0", "%1: i32[4, 1] = pid 0", "pid is a scalar"),
    ("%1: i32 = pid 0", "%1: i32 = pid 7", "the grid has 1 axes; count from 0"),
    ("%4: i32[4, 1] = iota %0 axis 0", "%4: i32[4, 1] = iota %0 axis 1", "iota along axis 1 is an i32 row"),
    ("reduce sum %2 axis 1", "reduce sum %3 axis 1", "a reduction takes f32 or i32, not f16"),
    ("reduce sum %2 axis 1", "reduce sum %0 axis 1", "a reduction takes a tile, not a scalar"),
    ("where %5, %12, %7", "where %12, %12, %7", "where takes a bool condition, not f32"),
    ("where %5, %12, %7", "where %5, %12, %4", "where takes two f32, i32 or bool, not f32 and i32"),
    ("where %5, %12, %7", "where %5, %3, %3", "where takes two f32, i32 or bool, not f16 and f16"),
    ("dot %2, %8", "dot %2, %0", "dot takes two tiles, not scalars"),
    ("dot %2, %8", "dot %2, %3", "dot takes two f32, two f16 or two bf16, not f32 and f16"),
    ("dot %2, %8", "dot %2, %7 transpose_b", "inner lengths 4 and 1 differ"),
    ("add %10, %6", "add %10, %3", "add takes two f32 or i32, not f32 and f16"),
    ("add %10, %6", "exp %3", "exp takes f32, not f16; cast"),
    ("load x[%0:4@0, %0:4@1]", "load x[%0:4@0]", "x has 2 axes and the index has 1 entries"),
    ("load h[%0:4@0, %0:4@1]", "load h[%2:4@0, %0:4@1]", "a window starts at an i32 scalar, not at f32"),
    ("load h[%0:4@0, %0:4@1]", "load h[%0:4@0, %0:4@0]", "an index leaves at most two tile axes"),
    ("load h[%0:4@0, %0:4@1]", "load h[%0:0@0, %0:4@1]", "tile axes, of length >= 1"),
    (
        "store o[%15:4@0, %0:4@1], %13",
        "store o[%15:4@0, %0:4@1], %4",
        "o stores f32, not i32; cast",
    ),
    (
        "store o[%15:4@0, %0:4@1], %13",
        "store o[%1, %0], %13",
        "the index is one element and",
    ),
    ("store o[", "atomic_add h[", "h is an input"),
    ("%14: i32 = const 4", "%14: i32 = const 3", "may write the same elements"),
    ("%14: i32 = const 4", "%14: i32 = const 400", None),
    ("%0: i32 = const 0", "%0: i32 = const 9", "length 8 and the window of 4 begins at 9, out of range"),
    ("%0: i32 = const 0", "%0: i32 = const -4", "begins at -4, out of range in every program"),
    ("in %0..%1", "in %0..%7", "a loop runs from an i32 scalar to an i32 scalar, not f32"),
    ("yield %11", "yield %7", "loop carry 0 starts as f32 .4, 4. and comes back as f32 .4, 1."),
    ("yield %11", "yield", "a loop with 1 carries must return as many, not 0"),
    ("dot %2, %8", "dot %2, %11", "a value of another loop or kernel; return it as a loop carry"),
    ("store o[%15:4@0, %0:4@1], %13", "", "stores nothing"),
]


@pytest.mark.parametrize(("old", "new", "message"), BROKEN, ids=[f"{new}" for _, new, _ in BROKEN])
def test_each_rule_of_the_verifier(old, new, message):
    verify(parse_kernel(WIDE))
    assert WIDE.count(old) == 1
    broken = parse_kernel(WIDE.replace(old, new))
    if message is None:
        return verify(broken)
    with pytest.raises(KernelError, match=message) as caught:
        verify(broken)
    assert caught.value.file == "<ir>"


def test_a_value_that_is_defined_twice_is_refused():
    """The parser refuses it too; a pass might make it."""
    kernel = parse_kernel(WIDE)
    with pytest.raises(KernelError, match="%0 is defined twice"):
        verify(dataclasses.replace(kernel, body=(kernel.body[0], *kernel.body)))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("f32[4, 3] = load", "f32[4, 2] = load", "load gives f32"),
        ("%0: i32 = pid 0", "%0: i32 = pid 1", "grid has 1 axes"),
        ("store o[%2:4@0, %3:3@1]", "store o[%3:4@0, %3:3@1]", "may write the same elements"),
        ("store o[%2:4@0, %3:3@1]", "store o[%2:5@0, %3:3@1]", "the window is"),
        ("store o[", "store x[", "is an input"),
        ("store o[", "store z[", "no Ref z"),
        ("grid(4)", "grid(0)", "is empty"),
        ("f32[13, 3] out", "f32[13, 0] out", "length >= 1"),
    ],
)
def test_a_broken_kernel_is_refused(old, new, message):
    verify(parse_kernel(GOOD))
    assert old in GOOD
    with pytest.raises(KernelError, match=message):
        verify(parse_kernel(GOOD.replace(old, new)))


def test_guards_are_needed_only_where_tiles_do_not_divide():
    for rows, inside in ((12, True), (13, False)):
        kernel = softmax.ir(jnp.ones((rows, 3)), BM=4)
        load = next(op for op in kernel.body if isinstance(op, Load))
        facts = Ranges(kernel)
        assert facts.window_inside(kernel.ref("x"), load.index[0], 0) is inside
        assert facts.window_inside(kernel.ref("x"), load.index[1], 1)
        assert covers(kernel, kernel.ref("o"))


def test_the_trip_of_a_causal_loop_is_bounded_over_the_grid():
    q = jnp.ones((1, 1, 50, 8))
    kernel = flash_attention.ir(q, q, q, BM=16, BN=8)
    loop = next(op for op in walk(kernel.body) if isinstance(op, Loop))
    assert Ranges(kernel).trip(loop) == 7
    assert Ranges(kernel).exact_trip(loop) is None

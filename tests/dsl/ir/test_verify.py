"""What the verifier refuses in kernels that come as text, and what the analyses know."""

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

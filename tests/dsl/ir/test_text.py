"""The text form round-trips, and text that is no kernel is refused with its line."""

import jax.numpy as jnp
import pytest
from hypothesis import given, settings

from dsl import ParseError
from dsl.ir.text import parse_kernel, print_kernel
from dsl.ir.verify import verify
from dsl.kernels.attention import flash_attention
from dsl.kernels.softmax import softmax
from tests.dsl.generate import recipes, specialised

GOOD = print_kernel(softmax.ir(jnp.ones((5, 3))))


@settings(max_examples=60, deadline=None)
@given(recipes())
def test_random_kernels_round_trip(recipe):
    kernel, _ = specialised(recipe)
    again = parse_kernel(print_kernel(kernel))
    assert again == kernel and print_kernel(again) == print_kernel(kernel)
    verify(again)


def test_loops_and_comments_round_trip():
    q = jnp.ones((1, 2, 40, 8), jnp.bfloat16)
    kernel = flash_attention.ir(q, q, q)
    assert "loop" in str(kernel)
    assert parse_kernel(print_kernel(kernel, locations=True)) == kernel


def test_the_text_of_softmax():
    assert GOOD.splitlines()[:5] == [
        "kernel softmax grid(1) {",
        "  ref x: f32[5, 3] in",
        "  ref o: f32[5, 3] out",
        "  %0: i32 = const 0",
        "  %1: f32[8, 3] = load x[%0:8@0, %0:3@1] other 0.0",
    ]


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("kernel softmax", "softmax", 1),
        ("f32[5, 3] in", "f64[5, 3] in", 2),
        ("const 0", "const x", 4),
        ("reduce max %1", "reduce max %7", 6),
        ("exp", "sinh", 8),
        ("\n}\n", "\n", 11),
    ],
)
def test_bad_text_is_refused_with_its_line(old, new, line):
    with pytest.raises(ParseError) as caught:
        parse_kernel(GOOD.replace(old, new, 1))
    assert abs(caught.value.line - line) <= 1

"""The text form round-trips, and text that is no kernel is refused with its line."""

import random
import re

import jax.numpy as jnp
import pytest
from hypothesis import given, settings

from dsl import KernelError, ParseError
from dsl.ir.text import parse_kernel, print_kernel
from dsl.ir.verify import verify
from dsl.kernels.attention import flash_attention
from dsl.kernels.softmax import softmax
from dsl.passes.pipeline import simplify
from tests.dsl.generate import recipes, specialised
from tests.dsl.passes.corpus import library

GOOD = print_kernel(softmax.ir(jnp.ones((5, 3))))


@settings(max_examples=20, deadline=None)
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


BAD = [
    ("kernel softmax", "softmax", 1, "expected `kernel name grid"),
    ("grid(1)", "grid(1 2)", 1, "no list of integers"),
    ("f32[5, 3] in", "f64[5, 3] in", 2, "expected `ref name: dtype"),
    ("f32[5, 3] in", "f32[5,, 3] in", 2, "no list of integers"),
    ("%0: i32 = const 0", "%0: i64 = const 0", 4, "i64 is no dtype"),
    ("%0: i32 = const 0", "%0: i32[2] = const 0", 4, "cannot read the results"),
    ("%0: i32 = const 0", "%0: i32 const 0", 4, "expected `%n: type = op"),
    ("%0: i32 = const 0", "const 0", 4, "expected `%n: type = op ...`, a loop, a store"),
    ("%0: i32 = const 0", "%0: i32 = const x", 4, "cannot read"),
    ("load x[%0:8@0, %0:3@1]", "load x(%0:8@0, %0:3@1)", 5, "cannot read the window"),
    ("load x[%0:8@0, %0:3@1]", "load x[%0:8@2, %0:3@1]", 5, "a window entry is"),
    ("reduce max %1 axis 1", "reduce max %7 axis 1", 6, "%7 is used before it is defined"),
    ("reduce max %1 axis 1", "reduce mean %1 axis 1", 6, "mean is no reduction"),
    ("reduce max %1 axis 1", "reduce max %1 axis 2", 6, "expected `iota %start axis n` or `reduce"),
    ("sub %1, %2", "sub %1", 7, "expected 2 values and there are 1"),
    ("sub %1, %2", "sub %1 and %2", 7, "no list of values"),
    ("%3: f32[8, 3]", "%2: f32[8, 3]", 7, "%2 is defined twice"),
    ("exp", "sinh", 8, "sinh is no op"),
    ("\n}\n", "\n", 12, "a `}` is missing"),
    ("\n}\n", "\n}\n}\n", 14, "text after the end"),
    ("%4: f32[8, 3] = exp %3", "%4: f32[8, 3] = loop %9 to %0 {", 8, "expected `loop %i in"),
    ("%4: f32[8, 3] = exp %3", "%4: f32[8, 3] = loop %9 in %0..%0 carry %8 {", 8, "cannot read the carries"),
]


@pytest.mark.parametrize(("old", "new", "line", "message"), BAD, ids=[f"{each[1]!r}" for each in BAD])
def test_bad_text_is_refused_with_its_line(old, new, line, message):
    assert old in GOOD
    with pytest.raises(ParseError, match=re.escape(message)) as caught:
        parse_kernel(GOOD.replace(old, new, 1))
    assert abs(caught.value.line - line) <= 1
    assert str(caught.value).startswith(f"line {caught.value.line}: ")


def test_no_text_is_no_kernel():
    for text in ("", "\n; nothing\n"):
        with pytest.raises(ParseError, match="line 1"):
            parse_kernel(text)


TEXTS = [print_kernel(kernel) for _, kernel, _ in library()]
WORDS = sorted({word for text in TEXTS for word in re.findall(r"[%\w.\-]+|[^\w\s]", text)})
WORDS += ["-1", "nan", "1e400", "9" * 30, "\u00b2", "", "\n", "loop", "yield", "; x"]


def edited(rng, text):
    """The text with a line gone, doubled or moved, a letter or a word changed, or its end cut off."""
    lines = text.splitlines()
    at, to = rng.randrange(len(lines)), rng.randrange(len(lines))
    kind = rng.randrange(6)
    if kind == 0:
        del lines[at]
    elif kind == 1:
        lines.insert(to, lines[at])
    elif kind == 2:
        lines[at], lines[to] = lines[to], lines[at]
    elif kind == 3:
        place = rng.randrange(len(text))
        return text[:place] + rng.choice("%0123456789[]{}:,@= \n;abc-") + text[place + rng.randrange(2) :]
    elif kind == 4:
        words = re.split(r"([%\w.\-]+|[^\w\s])", lines[at])
        words[rng.randrange(len(words))] = rng.choice(WORDS)
        lines[at] = "".join(words)
    else:
        return text[: rng.randrange(1, len(text))]
    return "\n".join(lines) or text


@pytest.mark.parametrize("most", [1, 3])
def test_edited_text_is_a_kernel_or_refused_with_a_reason(most):
    """One text in thirty survives an edit, hardly any three: so there are one, two or three."""
    rng, kernels, refused = random.Random(most), 0, 0
    for _ in range(2000):
        text = rng.choice(TEXTS)
        for _ in range(rng.randint(1, most)):
            text = edited(rng, text)
        try:
            kernel = parse_kernel(text)
            verify(kernel)
        except (ParseError, KernelError) as error:
            refused += bool(str(error))
        else:
            kernels += parse_kernel(print_kernel(kernel)) == kernel
    assert kernels + refused == 2000
    assert kernels > 0 and refused > 1000


def test_library_kernels_round_trip_before_and_after_the_passes():
    for _, traced, _ in library():
        for kernel in (traced, simplify(traced)):
            text = print_kernel(kernel)
            assert parse_kernel(text) == kernel and print_kernel(parse_kernel(text)) == text

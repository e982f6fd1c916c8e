"""Before and after of each pass on the text form, and a proof by execution that results stay."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from dsl.ir.build import Builder
from dsl.ir.text import parse_kernel, print_kernel
from dsl.ir.verify import verify
from dsl.lower import oracle
from dsl.passes.cost import cost
from dsl.passes.cse import eliminate_common
from dsl.passes.dce import eliminate_dead
from dsl.passes.fold import fold
from dsl.passes.pipeline import simplify
from tests.dsl.generate import composed, recipes

HEAD = """kernel k grid(1) {
  ref x: f32[4, 4] in
  ref o: f32[4, 4] out
  %0: i32 = const 0
  %1: f32[4, 4] = load x[%0:4@0, %0:4@1] other 0.0
"""
TAIL = "  store o[%0:4@0, %0:4@1], %{last}\n}}\n"


def text(body, last):
    return HEAD + "".join(f"  {line}\n" for line in body) + TAIL.format(last=last)


def lines(kernel):
    return [line.strip() for line in print_kernel(kernel).splitlines()[5:-2]]


CASES = {
    "constants": (fold, ["%2: i32 = const 3", "%3: i32 = add %2, %2", "%4: f32 = cast %3",
                         "%5: f32[4, 4] = mul %1, %4"], 5,
                  ["%2: i32 = const 3", "%3: i32 = const 6", "%4: f32 = const 6.0",
                   "%5: f32[4, 4] = mul %1, %4"]),
    "neutral": (fold, ["%2: f32 = const 1.0", "%3: f32[4, 4] = mul %1, %2", "%4: f32[4, 4] = exp %3"], 4,
                ["%2: f32 = const 1.0", "%3: f32[4, 4] = exp %1"]),
    "inexact sums stay": (fold, ["%2: f32 = const 0.10000000149011612", "%3: f32 = const 16777216.0",
                                 "%4: f32 = add %2, %3", "%5: f32[4, 4] = mul %1, %4"], 5,
                          ["%2: f32 = const 0.10000000149011612", "%3: f32 = const 16777216.0",
                           "%4: f32 = add %2, %3", "%5: f32[4, 4] = mul %1, %4"]),
    "one program": (fold, ["%2: i32 = pid 0", "%3: f32 = cast %2", "%4: f32[4, 4] = mul %1, %3"], 4,
                    ["%2: i32 = const 0", "%3: f32 = const 0.0", "%4: f32[4, 4] = mul %1, %3"]),
    "one pass": (fold, ["%2: i32 = const 1", "%3: f32[4, 4] = loop %4 in %0..%2 carry %5 = %1 {",
                        "%6: f32[4, 4] = exp %5", "yield %6", "}"], 3,
                 ["%2: i32 = const 1", "%3: f32[4, 4] = exp %1"]),
    "twice the same": (eliminate_common, ["%2: f32[4, 4] = exp %1", "%3: f32[4, 4] = exp %1",
                                          "%4: f32[4, 4] = sub %2, %3"], 4,
                       ["%2: f32[4, 4] = exp %1", "%3: f32[4, 4] = sub %2, %2"]),
    "inside a loop": (eliminate_common, ["%2: f32[4, 4] = exp %1", "%3: i32 = const 2",
                                         "%4: f32[4, 4] = loop %5 in %0..%3 carry %6 = %2 {",
                                         "%7: f32[4, 4] = exp %1",
                                         "%8: f32[4, 4] = add %6, %7", "yield %8", "}"], 4,
                      ["%2: f32[4, 4] = exp %1", "%3: i32 = const 2",
                       "%4: f32[4, 4] = loop %5 in %0..%3 carry %6 = %2 {",
                       "%7: f32[4, 4] = add %6, %2", "yield %7", "}"]),
    "unused": (eliminate_dead, ["%2: f32[4, 4] = exp %1", "%3: f32[4, 4] = tanh %1"], 3,
               ["%2: f32[4, 4] = tanh %1"]),
    "idle carry": (eliminate_dead, ["%2: i32 = const 2",
                                    "%3: f32[4, 4], %4: i32 = loop %5 in %0..%2 carry %6 = %1, %7 = %2 {",
                                    "%8: f32[4, 4] = exp %6", "%9: i32 = add %7, %7", "yield %8, %9", "}"], 3,
                   ["%2: i32 = const 2", "%3: f32[4, 4] = loop %4 in %0..%2 carry %5 = %1 {",
                    "%6: f32[4, 4] = exp %5", "yield %6", "}"]),
}  # fmt: skip


@pytest.mark.parametrize(("one", "before", "last", "after"), CASES.values(), ids=CASES.keys())
def test_a_pass_rewrites_the_text_and_keeps_the_result(one, before, last, after):
    kernel = parse_kernel(text(before, last))
    verify(kernel)
    changed = one(kernel)
    verify(changed)
    assert lines(changed) == after
    x = np.random.default_rng(0).standard_normal((4, 4))
    np.testing.assert_array_equal(oracle.run(changed, x)[0], oracle.run(kernel, x)[0])


@settings(max_examples=25, deadline=None)
@given(recipes())
def test_simplified_kernels_compute_the_same(recipe):
    rows, columns, height, steps, _ = recipe
    arrays = np.random.default_rng(1).standard_normal((rows, columns)), np.ones((columns, columns))
    kept = []

    def remember(self, finish=Builder.finish):
        kept.append(finish(self))
        return kept[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Builder, "finish", remember)
        composed._trace(
            composed.prepare([jnp.asarray(a) for a in arrays], None, {}).refs,
            (("height", height), ("steps", steps)),
        )
    raw = kept[0]
    done = simplify(raw)
    verify(done)
    assert simplify(done) == done
    np.testing.assert_allclose(
        oracle.run(done, *arrays)[0], oracle.run(raw, *arrays)[0], rtol=1e-12, atol=1e-12
    )


def test_cost_counts_bytes_and_flops():
    kernel = parse_kernel(text(["%2: f32[4, 4] = dot %1, %1", "%3: f32[4, 4] = exp %2"], 3))
    found = cost(kernel)
    assert (found.loaded, found.stored, found.unique) == (64, 64, 128)
    assert (found.dot_flops, found.other_flops, found.bounded) == (128, 16, True)

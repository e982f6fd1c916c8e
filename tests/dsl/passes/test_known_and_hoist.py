"""Mask removal and loop-invariant hoist: before and after on the text, and the oracle's word on both."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsl.ir.affine import Ranges
from dsl.ir.ops import Loop, Where, walk
from dsl.ir.text import parse_kernel, print_kernel
from dsl.ir.verify import verify
from dsl.kernels.attention import flash_attention
from dsl.kernels.decode import decode_attention
from dsl.lower import oracle
from dsl.passes.hoist import hoist_invariant
from dsl.passes.known import decide_known

HEAD = """kernel k grid(2) {
  ref x: f32[8, 4] in
  ref n: i32[1] in
  ref o: f32[8, 4] out
  %0: i32 = const 0
  %1: i32 = const 4
  %2: i32 = pid 0
  %3: i32 = mul %2, %1
  %4: f32[4, 4] = load x[%3:4@0, %0:4@1] other 0.0
"""
TAIL = "  store o[%3:4@0, %0:4@1], %{last}\n}}\n"

CASES = {
    "a guard that always holds": (decide_known, [
        "%5: i32[4, 1] = iota %3 axis 0", "%6: i32 = const 8", "%7: bool[4, 1] = lt %5, %6",
        "%8: f32 = const -1.0", "%9: f32[4, 4] = where %7, %4, %8"], 9, [
        "%5: i32[4, 1] = iota %3 axis 0", "%6: i32 = const 8", "%7: bool[4, 1] = full true",
        "%8: f32 = const -1.0"], 4),
    "a guard that matters in one program": (decide_known, [
        "%5: i32[4, 1] = iota %3 axis 0", "%6: i32 = const 7", "%7: bool[4, 1] = lt %5, %6",
        "%8: f32 = const -1.0", "%9: f32[4, 4] = where %7, %4, %8"], 9, [
        "%5: i32[4, 1] = iota %3 axis 0", "%6: i32 = const 7", "%7: bool[4, 1] = lt %5, %6",
        "%8: f32 = const -1.0", "%9: f32[4, 4] = where %7, %4, %8"], 9),
    "a comparison of what wraps stays": (decide_known, [
        "%5: i32 = const 2000000000", "%6: i32 = mul %3, %5", "%7: bool = ge %6, %0", "%8: f32 = const -1.0",
        "%9: f32[4, 4] = where %7, %4, %8"], 9, [
        "%5: i32 = const 2000000000", "%6: i32 = mul %3, %5", "%7: bool = ge %6, %0", "%8: f32 = const -1.0",
        "%9: f32[4, 4] = where %7, %4, %8"], 9),
    "a bound that cannot bind": (decide_known, [
        "%5: i32 = const 9", "%6: i32 = min %3, %5", "%7: f32 = cast %6", "%8: f32[4, 4] = add %4, %7"], 8, [
        "%5: i32 = const 9", "%6: f32 = cast %3", "%7: f32[4, 4] = add %4, %6"], 7),
    "an integer of one value": (decide_known, [
        "%5: i32 = const 2", "%6: i32 = idiv %2, %5", "%7: f32 = cast %6", "%8: f32[4, 4] = add %4, %7"], 8, [
        "%5: i32 = const 2", "%6: i32 = const 0", "%7: f32 = cast %6", "%8: f32[4, 4] = add %4, %7"], 8),
    "invariant of one loop": (hoist_invariant, [
        "%5: i32 = const 3", "%6: f32[4, 4] = loop %7 in %0..%5 carry %8 = %4 {",
        "%9: f32[4, 4] = exp %4", "%10: f32[4, 4] = add %8, %9", "yield %10", "}"], 6, [
        "%5: i32 = const 3", "%6: f32[4, 4] = exp %4", "%7: f32[4, 4] = loop %8 in %0..%5 carry %9 = %4 {",
        "%10: f32[4, 4] = add %9, %6", "yield %10", "}"], 7),
    "invariant of two loops": (hoist_invariant, [
        "%5: i32 = const 3", "%6: f32[4, 4] = loop %7 in %0..%5 carry %8 = %4 {",
        "%9: f32[4, 4] = loop %10 in %0..%5 carry %11 = %8 {", "%12: f32 = const 0.5",
        "%13: f32[4, 4] = mul %11, %12", "yield %13", "}", "yield %9", "}"], 6, [
        "%5: i32 = const 3", "%6: f32 = const 0.5", "%7: f32[4, 4] = loop %8 in %0..%5 carry %9 = %4 {",
        "%10: f32[4, 4] = loop %11 in %0..%5 carry %12 = %9 {", "%13: f32[4, 4] = mul %12, %6",
        "yield %13", "}", "yield %10", "}"], 7),
    "a division that may be by zero stays": (hoist_invariant, [
        "%5: i32 = const 3", "%6: i32 = load n[%0] other 0",
        "%7: f32[4, 4] = loop %8 in %0..%6 carry %9 = %4 {", "%10: i32 = idiv %5, %6", "%11: f32 = cast %10",
        "%12: f32[4, 4] = mul %9, %11", "yield %12", "}"], 7, [
        "%5: i32 = const 3", "%6: i32 = load n[%0] other 0",
        "%7: f32[4, 4] = loop %8 in %0..%6 carry %9 = %4 {", "%10: i32 = idiv %5, %6", "%11: f32 = cast %10",
        "%12: f32[4, 4] = mul %9, %11", "yield %12", "}"], 7),
}  # fmt: skip


def text(body, last):
    return HEAD + "".join(f"  {line}\n" for line in body) + TAIL.format(last=last)


@pytest.mark.parametrize(("one", "before", "last", "after", "then"), CASES.values(), ids=CASES.keys())
def test_a_pass_rewrites_the_text_and_keeps_the_result(one, before, last, after, then):
    kernel = parse_kernel(text(before, last))
    verify(kernel)
    changed = one(kernel)
    verify(changed)
    found = [line.strip() for line in print_kernel(changed).splitlines()]
    assert found == [line.strip() for line in text(after, then).splitlines()]
    assert one(changed) == changed
    x = np.random.default_rng(0).standard_normal((8, 4))
    for passes in (0, 2):
        expected = oracle.run(kernel, x, np.array([passes]))[0]
        np.testing.assert_array_equal(oracle.run(changed, x, np.array([passes]))[0], expected)


def attention(tokens, **sizes):
    q = jax.ShapeDtypeStruct((1, 1, tokens, 8), jnp.float32)
    return flash_attention.ir(q, q, q, **sizes)


def test_attention_over_whole_blocks_has_no_guard_left():
    """Only the causal mask, which no range decides, stays."""

    def masks(kernel):
        return sum(isinstance(op, Where) for op in walk(kernel.body))

    assert masks(attention(64, BM=32, BN=32, causal=False)) == 0
    assert masks(attention(64, BM=32, BN=32)) == 1
    assert masks(attention(60, BM=32, BN=32)) == 1
    assert masks(attention(60, BM=32, BN=32, causal=False)) == 1


def test_a_loop_over_data_that_fits_one_block_becomes_straight_code():
    q, k = jax.ShapeDtypeStruct((2, 4, 8), jnp.float32), jax.ShapeDtypeStruct((2, 2, 16, 8), jnp.float32)
    lengths = jax.ShapeDtypeStruct((2,), jnp.int32)
    for block, loops in ((16, 0), (8, 1)):
        kernel = decode_attention.ir(q, k, k, lengths, BN=block)
        found = [op for op in walk(kernel.body) if isinstance(op, Loop)]
        assert len(found) == loops
        assert all(Ranges(kernel).trip(op) == 2 for op in found)

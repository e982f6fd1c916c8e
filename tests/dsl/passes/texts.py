"""Kernels before and after a pass, from rewrites.txt, which says how it is read at its top."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dsl.ir.ops import Kernel
from dsl.ir.text import parse_kernel
from dsl.passes.cse import eliminate_common
from dsl.passes.dce import eliminate_dead
from dsl.passes.fold import fold
from dsl.passes.hoist import hoist_invariant
from dsl.passes.known import decide_known

PASSES: dict[str, Callable[[Kernel], Kernel]] = {
    "fold": fold,
    "known": decide_known,
    "cse": eliminate_common,
    "hoist": hoist_invariant,
    "dce": eliminate_dead,
}
HEAD = """kernel k grid(2, 1) {
  ref x: f32[8, 4] in
  ref n: i32[2] in
  ref o: f32[8, 4] out
  %0: i32 = const 0
  %1: i32 = const 4
  %2: i32 = pid 0
  %3: i32 = mul %2, %1
  %4: f32[4, 4] = load x[%3:4@0, %0:4@1] other 0.0
"""


@dataclass(frozen=True)
class Rewrite:
    """A pass by name, and what it makes of a kernel."""

    one: str
    before: Kernel
    after: Kernel


def _rewrites() -> dict[str, Rewrite]:
    found = {}
    for section in Path(__file__).with_name("rewrites.txt").read_text().split("\n== ")[1:]:
        title, _, body = section.partition("\n")
        before, _, after = body.partition("\n--\n")
        one = title.partition(":")[0]
        found[title] = Rewrite(one, _kernel(before), _kernel(after or before))
    return found


def _kernel(lines: str) -> Kernel:
    body = []
    for line in lines.strip().splitlines():
        stored = line.strip().removeprefix("=> ")
        body.append(f"store o[%3:4@0, %0:4@1], {stored}" if line.startswith("=> ") else line)
    return parse_kernel(HEAD + "\n".join(body) + "\n}\n")


REWRITES = _rewrites()

_COUNTED = """kernel k grid(3, 2) {
  ref x: i8[4, 8] in
  ref w: u4[4, 32] in
  ref h: f16[4, 8] in
  ref n: i32[2] in
  ref o: bf16[12, 8] out
  ref c: f32[2, 8] inout
  %0: i32 = const 0
  %1: i32 = const 5
  %2: i32 = pid 0
  %3: i32[4, 8] = load x[%0:4@0, %0:8@1] other 0
  %4: f32[4, 8] = cast %3
  %5: i32 = load n[%0] other 0
  %6: i32 = add %5, %2
  %7: f32[4, 8] = loop %8 in %0..%1 carry %9 = %4 {
    %10: i32[4, 32] = load w[%0:4@0, %0:32@1] other 0
    %11: f32[4, 32] = cast %10
    %12: f32[4, 1] = reduce sum %11 axis 1
    %13: f32[4, 8] = add %9, %12
    %14: f32[4, 8] = exp %13
    %15: bool[4, 8] = lt %14, %12
    %16: f32[4, 8] = where %15, %14, %13
    yield %16
  }
  %17: f16[4, 8] = load h[%0:4@0, %0:8@1] other 0.0
  %18: f32[4, 4] = dot %17, %17 transpose_b
  %19: f32[4, 1] = reduce max %18 axis 1
  %20: f32[4, 8] = mul %7, %19
  %21: bf16[4, 8] = cast %20
  store o[%2:4@0, %0:8@1], %21
  %22: f32[1, 8] = reduce sum %7 axis 0
  atomic_add c[%0:2@0, %0:8@1], %22
}
"""
_UNBOUNDED = """kernel k grid(3) {
  ref n: i32[1] in
  ref o: f32[3] out
  %0: i32 = const 0
  %1: i32 = pid 0
  %2: i32 = load n[%0] other 0
  %3: f32 = const 1.0
  %4: f32 = loop %5 in %0..%2 carry %6 = %3 {
    %7: i32 = load n[%5] other 0
    %8: f32 = cast %7
    %9: f32 = exp %8
    yield %9
  }
  %10: i32 = const 2
  %11: f32 = loop %12 in %0..%10 carry %13 = %4 {
    %14: f32 = exp %13
    yield %14
  }
  store o[%1], %11
}
"""
COSTS = {
    # Each of 6 programs loads 32 of x, 4 of n, 5 times 4 * 32 / 2 of w and 64 of h; stores 64 to o, and to c
    # a row twice, 64. Once: 32 + 64 + 64 + 8 + 192 and twice 64. The dot is 2 * 4 * 4 * 8; in the loop
    # 128 + 4 * 32 five times, after it 16 + 32 + 32.
    "every op": (
        parse_kernel(_COUNTED),
        (6 * 420, 6 * 128, 488, 6 * 256, 6 * 1360, True, 6 * 1616, 6 * 1616 / 488),
    ),
    # The first loop counts as one pass; scalars are no work.
    "a loop that ends at data": (parse_kernel(_UNBOUNDED), (3 * 8, 3 * 4, 16, 0, 0, False, 0, 0.0)),
}
"""Kernels and, by hand: loaded, stored, unique, dot_flops, other_flops, bounded, flops, intensity."""

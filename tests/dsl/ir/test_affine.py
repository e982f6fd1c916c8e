"""What the analyses claim of integers, loops and windows holds in every program that the oracle runs."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings

from dsl.ir.affine import Ranges
from dsl.ir.ops import At, Loop, Span, walk
from dsl.ir.text import parse_kernel
from dsl.ir.types import RefType
from dsl.lower import oracle
from tests.dsl.generate import recipes, specialised
from tests.dsl.kernels.catalogue import CASES
from tests.dsl.kernels.catalogue import specialised as of_case


class Watching(oracle._Program):
    """A program that compares each integer scalar, window and loop with what is claimed of it."""

    def __init__(self, kernel, memory, program, facts):
        super().__init__(kernel, memory, program)
        self.facts = facts

    def set(self, value, data):
        super().set(value, data)
        if value.dtype == "i32" and value.is_scalar:
            number = int(self.values[value.id])
            low, high = self.facts.interval(value)
            assert low is None or low <= number, f"%{value.id} is {number}, at least {low}"
            assert high is None or number <= high, f"%{value.id} is {number}, at most {high}"
            form = self.facts.affine(value)
            if all(symbol in self.values for symbol in form.terms):
                terms = sum(factor * int(self.values[symbol]) for symbol, factor in form.terms.items())
                assert number == np.int32(np.int64(form.constant + terms) & 0xFFFFFFFF), (
                    f"%{value.id}: {form}"
                )

    def window(self, name, index):
        places, inside = super().window(name, index)
        ref = self.kernel.ref(name)
        for axis, (entry, place) in enumerate(zip(index, places, strict=True)):
            if self.facts.window_inside(ref, entry, axis):
                assert (place >= 0).all() and (place < ref.shape[axis]).all(), f"axis {axis} of {name}"
        return places, inside

    def loop(self, op):
        passes = max(0, int(self.get(op.hi)) - int(self.get(op.lo)))
        passes = passes if op.max_trip is None else min(passes, op.max_trip)
        trip, exact = self.facts.trip(op), self.facts.exact_trip(op)
        assert trip is None or passes <= trip
        assert exact is None or passes == exact
        super().loop(op)


def watched(kernel, arrays, ranges=Ranges):
    facts = ranges(kernel)
    memory = {
        ref.name: oracle._widened(ref, np.asarray(x)) for ref, x in zip(kernel.inputs, arrays, strict=True)
    }
    for ref in kernel.outputs:
        memory.setdefault(ref.name, np.zeros(ref.shape, oracle._DTYPE[ref.value_dtype]))
    with np.errstate(all="ignore"):
        for program in itertools.product(*map(range, kernel.grid)):
            Watching(kernel, memory, program, facts).block(kernel.body)


@pytest.mark.parametrize("name", CASES)
def test_claims_about_library_kernels_hold(name):
    case = CASES[name]
    watched(*of_case(case, case.telling and case.telling()))


@settings(max_examples=20, deadline=None)
@given(recipes())
def test_claims_about_random_kernels_hold(recipe):
    watched(*specialised(recipe))


INTEGERS = parse_kernel("""kernel integers grid(3, 2) {
  ref x: f32[40] in
  ref n: i32[2] in
  ref o: f32[6] out
  %0: i32 = const 0
  %1: i32 = const 5
  %2: i32 = pid 0
  %3: i32 = pid 1
  %4: i32 = load n[%0] other 0
  %5: i32 = mul %2, %1
  %6: i32 = sub %5, %3
  %7: i32 = const -3
  %8: i32 = mul %7, %6
  %9: i32 = idiv %8, %1
  %10: i32 = mod %8, %1
  %11: i32 = const 2
  %12: i32 = shr %8, %11
  %13: i32 = and %8, %1
  %14: i32 = min %4, %1
  %15: i32 = max %4, %0
  %16: i32 = min %6, %14
  %17: i32 = max %8, %15
  %18: bool = lt %6, %1
  %19: i32 = where %18, %6, %8
  %20: i32 = cast %18
  %21: i32 = where %18, %14, %15
  %22: i32 = sub %6, %6
  %23: i32 = add %5, %11
  %24: i32 = mul %4, %0
  %25: i32 = loop %26 in %3..%23 carry %27 = %0 max_trip 4 {
    %28: f32 = load x[%26] other 0.0
    %29: i32 = sub %23, %26
    %30: f32 = load x[%29] other 0.0
    %31: i32 = add %27, %29
    yield %31
  }
  %32: i32 = loop %33 in %2..%23 carry %34 = %0 {
    %35: i32 = add %33, %34
    yield %35
  }
  %36: i32 = loop %37 in %0..%4 carry %38 = %0 {
    yield %37
  }
  %39: i32 = loop %40 in %3..%1 carry %41 = %0 max_trip 2 {
    yield %40
  }
  %42: i32 = add %3, %1
  %43: i32 = loop %44 in %3..%42 carry %45 = %0 {
    yield %44
  }
  %46: i32 = mul %2, %11
  %47: i32 = add %46, %3
  %48: f32 = cast %47
  %49: i32 = idiv %8, %0
  %50: i32 = mod %8, %0
  %51: i32 = idiv %8, %7
  %52: i32 = mod %5, %2
  %53: i32 = and %8, %7
  %54: i32 = shr %8, %0
  %55: i32 = idiv %5, %23
  %56: i32 = and %4, %4
  store o[%47], %48
}
""")
CLAIMS = {
    5: (0, 10), 6: (-1, 10), 8: (-30, 3), 9: (-6, 0), 10: (0, 4), 12: (-8, 0), 13: (0, 5), 14: (None, 5),
    15: (0, None), 16: (None, 5), 17: (0, None), 19: (-30, 10), 20: (0, 1), 21: (None, None), 22: (0, 0),
    23: (2, 12), 24: (0, 0), 26: (0, 11), 33: (0, 11), 37: (0, None), 40: (0, 4), 44: (0, 5), 47: (0, 5),
    49: (None, None), 50: (None, None), 51: (None, None), 52: (None, None), 53: (None, None), 54: (-30, 3),
    55: (None, None), 56: (None, None),
}  # fmt: skip
INSIDE = {
    (5, 1, 11): True, (5, 1, 10): False, (6, 1, 40): False, (5, 30, 40): True, (5, 31, 40): False,
    (14, 1, 40): False, (15, 1, 40): False, (23, 2, 14): True, (47, 1, 6): True, (8, 1, 40): False,
}  # fmt: skip
"""(value, size, extent) -> whether a window of that size from it is surely within an axis of that extent."""
TRIPS = {26: (4, None), 33: (10, None), 37: (None, None), 40: (2, None), 44: (5, 5)}


def exact(ranges):
    """Raises AssertionError where a claim about INTEGERS is not the one above."""
    facts = ranges(INTEGERS)
    values = {v.id: v for op in walk(INTEGERS.body) for v in op.results}
    loops = {op.induction.id: op for op in walk(INTEGERS.body) if isinstance(op, Loop)}
    values |= {number: op.induction for number, op in loops.items()}
    for number, claim in CLAIMS.items():
        assert facts.interval(values[number]) == claim, f"%{number}"
    for (number, size, extent), claim in INSIDE.items():
        entry = At(values[number]) if size == 1 else Span(values[number], size, 0)
        assert facts.window_inside(RefType("x", "f32", (extent,)), entry, 0) is claim, f"%{number}, {size}"
    for number, claim in TRIPS.items():
        assert (facts.trip(loops[number]), facts.exact_trip(loops[number])) == claim, f"%{number}"


def test_claims_are_as_narrow_as_they_can_be():
    exact(Ranges)
    for n in ([0, 0], [7, 1], [-5, 2]):
        watched(INTEGERS, [np.arange(40.0), np.array(n, np.int32)])

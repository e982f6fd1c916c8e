"""What a kernel moves and computes, read off its IR."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dsl.ir.affine import Ranges
from dsl.ir.infer import window
from dsl.ir.ops import AtomicAdd, Binary, Dot, Kernel, Load, Loop, Op, Reduce, Store, Unary, Where
from dsl.ir.types import BITS, RefType


@dataclass(frozen=True)
class Cost:
    """Totals over the grid, an upper bound where trips differ between programs.

    Attributes:
        loaded: bytes that loads ask for, counting masked elements and repeats.
        stored: bytes that stores and atomic adds write.
        unique: bytes of all Refs once: what a perfect cache would move.
        dot_flops: 2 M N K of the dots.
        other_flops: one for each element of an elementwise op or reduction.
        bounded: False when a loop's length is data and was counted as one pass.
    """

    loaded: int
    stored: int
    unique: int
    dot_flops: int
    other_flops: int
    bounded: bool

    @property
    def flops(self) -> int:
        return self.dot_flops + self.other_flops

    @property
    def intensity(self) -> float:
        """Flops for each byte that must move at least."""
        return self.flops / self.unique


def cost(kernel: Kernel) -> Cost:
    """Sums over all ops, times programs, times passes of the loops around."""
    tally = _Tally(kernel)
    tally.block(kernel.body, math.prod(kernel.grid))
    unique = sum(ref.nbytes * (2 if ref.role == "inout" else 1) for ref in kernel.refs)
    return Cost(tally.loaded, tally.stored, unique, tally.dots, tally.others, tally.bounded)


class _Tally:
    def __init__(self, kernel: Kernel) -> None:
        self.refs = {ref.name: ref for ref in kernel.refs}
        self.facts = Ranges(kernel)
        self.loaded = self.stored = self.dots = self.others = 0
        self.bounded = True

    def block(self, body: Sequence[Op], times: int) -> None:
        for op in body:
            match op:
                case Loop():
                    trip = self.facts.trip(op)
                    self.bounded = self.bounded and trip is not None
                    self.block(op.body, times * (1 if trip is None else trip))
                case Load(result=result, ref=ref):
                    self.loaded += times * _bytes(self.refs[ref], result.shape)
                case Store(ref=ref, index=index) | AtomicAdd(ref=ref, index=index):
                    self.stored += times * _bytes(self.refs[ref], window(self.refs[ref], index))
                case Dot(result=result, left=left):
                    self.dots += times * 2 * math.prod(result.shape) * left.shape[1]
                case Reduce(operand=operand):
                    self.others += times * math.prod(operand.shape)
                case Unary(result=result) | Binary(result=result) | Where(result=result) if result.shape:
                    self.others += times * math.prod(result.shape)


def _bytes(ref: RefType, shape: tuple[int, ...]) -> int:
    return math.prod(shape) * BITS[ref.dtype] // 8

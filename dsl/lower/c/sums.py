"""Dots whose result is only added to something: a matrix unit can begin with that instead of zero."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dsl.ir.ops import Binary, Dot, Kernel, Loop, Op, defined, walk
from dsl.ir.types import Value


@dataclass(frozen=True)
class Sum:
    """`result` is `start` + the dot."""

    start: Value
    result: Value


def sums(kernel: Kernel) -> Mapping[int, Sum]:
    """By the id of a Dot's result, the addition that is its only use and whose other operand comes before."""
    uses: dict[int, int] = {}
    for op in walk(kernel.body):
        for value in (*op.operands, *(op.yields if isinstance(op, Loop) else ())):
            uses[value.id] = uses.get(value.id, 0) + 1
    found: dict[int, Sum] = {}
    _scan(kernel.body, frozenset(), uses, found)
    return found


def _scan(body: Sequence[Op], outer: frozenset[int], uses: Mapping[int, int], found: dict[int, Sum]) -> None:
    """`outer`: ids defined before the block begins."""
    known, before = outer, {}
    for op in body:
        if isinstance(op, Dot) and uses.get(op.result.id) == 1:
            before[op.result.id] = known
        elif isinstance(op, Binary) and op.kind == "add":
            for dot, other in ((op.left, op.right), (op.right, op.left)):
                if other.id in before.get(dot.id, ()) and other.shape == op.result.shape == dot.shape:
                    found[dot.id] = Sum(other, op.result)
        elif isinstance(op, Loop):
            inside = {value.id for value in defined(op)} - {value.id for value in op.finals}
            _scan(op.body, known | inside, uses, found)
        known = known | {value.id for value in op.results}

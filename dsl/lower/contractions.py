"""Loops that only add up, as sums over all passes at once: found in the IR, before any array is seen.

What a pass adds to a carry is taken apart into terms. A term that is a sum of products over a tile's columns
(a dot, or the row sums of a tile times a row) is a `Product`; all passes of one are a single dot over passes
and columns, with the factors around it moved into its sides:
sum_g (A_g B_g^T) * s_g = sum_g A_g (s_g^T * B_g)^T. Of other terms all passes are computed and summed.
"""

from collections import Counter
from dataclasses import dataclass, replace
from typing import TypeAlias

from dsl.ir.ops import Binary, Dot, Kernel, Loop, Op, Reduce, has_effect, walk
from dsl.ir.types import Value


@dataclass(frozen=True)
class Product:
    """left (M, K) times right (N, K)^T, or right (K, N) where `turned`.

    `by_row` (M, 1) and `by_column` (1, N) multiply it; either may also be (1, 1) or a scalar.
    """

    left: Value
    right: Value
    turned: bool = False
    by_row: tuple[Value, ...] = ()
    by_column: tuple[Value, ...] = ()


Term: TypeAlias = Product | Value


@dataclass(frozen=True)
class Sum:
    """What all passes add to a carry. `early`: only the sums of its rows are used, and are what is found."""

    terms: tuple[Term, ...]
    early: bool = False


@dataclass(frozen=True)
class Sums:
    """A loop's carries in order, and the ops of its body that their terms still need."""

    totals: tuple[Sum, ...]
    body: tuple[Op, ...]


def sums(loop: Loop, kernel: Kernel) -> Sums | None:
    """How a loop adds up; None for one that does something else, or has dots that no term takes apart."""
    added = _added(loop)
    if added is None:
        return None
    inside = {value.id: op for op in loop.body for value in op.results}
    early = _summed_by_rows(kernel)
    found = []
    for carry, final in zip(loop.carries, loop.finals, strict=True):
        rows = _tile_by_row(inside.get(added[carry.id].id)) if final.id in early else None
        if rows and rows.left.shape == final.shape:
            found.append(Sum((rows,), early=True))
        else:
            found.append(Sum(tuple(_terms(added[carry.id], inside))))
    needed = _needed([term for total in found for term in total.terms], inside)
    body = tuple(op for op in loop.body if needed & {value.id for value in op.results})
    return None if any(isinstance(op, Dot) for op in body) else Sums(tuple(found), body)


def _added(loop: Loop) -> dict[int, Value] | None:
    """What each carry (by id) has added to it, which needs no carry itself."""
    if not loop.carries or has_effect(loop) or any(isinstance(op, Loop) for op in loop.body):
        return None
    finals = dict(zip(loop.yields, loop.carries, strict=True))
    if len(finals) != len(loop.yields):
        return None
    carries, found = set(loop.carries), dict[int, Value]()
    for op in loop.body:
        used = carries & set(op.operands)
        if not used:
            continue
        if not isinstance(op, Binary) or op.kind != "add" or finals.get(op.result) not in used:
            return None
        if {op.left, op.right} <= carries or any(op.result in each.operands for each in loop.body):
            return None
        carry = op.left if op.left in carries else op.right
        found[carry.id] = op.right if carry == op.left else op.left
    return found if len(found) == len(carries) else None


def _summed_by_rows(kernel: Kernel) -> set[int]:
    uses = Counter(value.id for op in walk(kernel.body) for value in _used(op))
    reduced = (op for op in walk(kernel.body) if isinstance(op, Reduce) and _sums_rows(op))
    return {op.operand.id for op in reduced if uses[op.operand.id] == 1}


def _used(op: Op) -> list[Value]:
    return [*op.operands, *op.yields] if isinstance(op, Loop) else list(op.operands)


def _sums_rows(op: Reduce) -> bool:
    return op.kind == "sum" and op.axis == 1 and op.result.dtype == "f32"


def _terms(value: Value, inside: dict[int, Op]) -> list[Term]:
    op = inside.get(value.id)
    if isinstance(op, Dot):
        return [Product(op.left, op.right, turned=not op.transpose_b)]
    if isinstance(op, Reduce) and _sums_rows(op):
        rows = _tile_by_row(inside.get(op.operand.id))
        return [rows] if rows else [value]
    if isinstance(op, Binary) and op.kind == "add" and op.left.shape == op.right.shape:
        return _terms(op.left, inside) + _terms(op.right, inside)
    if isinstance(op, Binary) and op.kind == "mul" and value.dtype == "f32":
        return _scaled(op, inside)
    return [value]


def _scaled(op: Binary, inside: dict[int, Op]) -> list[Term]:
    """Terms of a product whose one side has them and whose other is the same for each row or column."""
    for sides in ((op.left, op.right), (op.right, op.left)):
        terms, factor = _terms(sides[0], inside), sides[1]
        products = [term for term in terms if isinstance(term, Product)]
        if len(products) < len(terms) or sides[0].shape != op.result.shape:
            continue
        if not factor.shape or factor.shape[1] == 1:
            return [replace(term, by_row=(*term.by_row, factor)) for term in products]
        if factor.shape[0] == 1:
            return [replace(term, by_column=(*term.by_column, factor)) for term in products]
    for column, row in ((op.left, op.right), (op.right, op.left)):
        if column.shape and row.shape and column.shape[1] == 1 and row.shape[0] == 1:
            return [Product(column, row, turned=True)]
    return [op.result]


def _tile_by_row(op: Op | None) -> Product | None:
    """A tile times a row, elementwise, of which the sums over columns are wanted."""
    if not isinstance(op, Binary) or op.kind != "mul" or not op.left.shape or not op.right.shape:
        return None
    for tile, row in ((op.left, op.right), (op.right, op.left)):
        if row.shape[0] == 1 and tile.shape == op.result.shape and row.shape[1] == tile.shape[1]:
            return Product(tile, row)
    return None


def _needed(terms: list[Term], inside: dict[int, Op]) -> set[int]:
    """Ids of what is computed inside of the loop for these terms."""
    found: set[int] = set()
    wanted = [value for term in terms for value in _values(term)]
    while wanted:
        value = wanted.pop()
        if value.id in inside and value.id not in found:
            found.add(value.id)
            wanted += inside[value.id].operands
    return found


def _values(term: Term) -> list[Value]:
    if isinstance(term, Product):
        return [term.left, term.right, *term.by_row, *term.by_column]
    return [term]

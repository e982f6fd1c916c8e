"""Running row sums of 8-bit products: integer dots in lanes, joined once after the loop.

What a decode step spends its time in: a loop that adds `(w.i32 * x.i32).sum(1).f32 * scale` to a column of
totals. Taken as written, every pass would sum across a vector for each row. Here each row of the total is
a vector of partial sums that a processor's dot instruction fills (`integer_dots.h`), scaled and added as
floats. The order of the additions depends on the columns alone, never on how many rows there are.
Totals of `TURNED_ROWS` rows are for `turned`, where a processor and the windows suit it; elsewhere the loop
runs for a few of the rows at a time.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from dsl.ir.ops import Binary, Cast, Const, Load, Loop, Op, Reduce, Span
from dsl.ir.types import NIBBLE_GROUP, NIBBLES, Storage, Value
from dsl.lower.host.windows import whole_groups, window
from dsl.lower.host.writer import Writer

LANES = 16
"""Most lanes of totals at a time: each is a register."""
ROWS = 8
"""Most rows of a total at a time."""
TURNED_ROWS = 16
"""Rows of a total that may be more than that, if a loop has no other carries."""
LEFT: tuple[Storage, ...] = ("i8", "u8", "i4", "u4")


@dataclass(frozen=True)
class RowSum:
    """A carry that grows by `sum(left * right, 1) * factors` in each pass.

    Attributes: `left` (rows, columns) of one of LEFT, read where it lies; `right` a load (1,
    columns) of i8, or one of i8 and one of u8 that stand for the first times 256 plus the second;
    `factors` are columns or single numbers; `hidden` are the ids of values that are not computed alone.
    """

    carry: Value
    final: Value
    init: Value
    left: Load
    right: tuple[Load, ...]
    factors: tuple[Value, ...]
    hidden: frozenset[int]


def row_sums(w: Writer, loop: Loop) -> list[RowSum]:
    """Those carries of a loop that are such sums; none if a load of theirs has another use."""
    inside = {op.results[0].id: op for op in loop.body if len(op.results) == 1}
    found = []
    for place, carry in enumerate(loop.carries):
        grown = _grown(w, inside, carry, loop.yields[place])
        if grown is not None:
            left, right, factors, hidden = grown
            found.append(RowSum(carry, loop.finals[place], loop.init[place], left, right, factors, hidden))
    used = Counter(load.result.id for each in found for load in (each.left, *each.right))
    alone = all(w.uses.count(number) == count for number, count in used.items())
    tall = any(each.carry.shape[0] > ROWS for each in found)
    if tall and (len(found) < len(loop.carries) or not all(op.results for op in loop.body)):
        return []
    return found if alone else []


def rows_at_once(sums: list[RowSum]) -> int:
    """Rows of the totals that the lanes hold at a time; of a tall total a power of two, which divides it."""
    rows = max((each.carry.shape[0] for each in sums), default=1)
    if rows <= ROWS:
        return rows
    most = max(1, min(ROWS, LANES // len(sums)))
    return 1 << most.bit_length() - 1


Grown = tuple[Load, tuple[Load, ...], tuple[Value, ...], frozenset[int]]


def _grown(w: Writer, inside: dict[int, Op], carry: Value, after: Value) -> Grown | None:
    added = inside.get(after.id)
    if carry.dtype != "f32" or len(carry.shape) != 2 or carry.shape[1] != 1:
        return None
    if carry.shape[0] > ROWS and carry.shape[0] != TURNED_ROWS:
        return None
    if not isinstance(added, Binary) or added.kind != "add" or carry not in (added.left, added.right):
        return None
    hidden = {after.id}
    term = added.right if added.left == carry else added.left
    if term == carry or w.uses.count(carry.id) != 1 or w.uses.count(after.id) != 1:
        return None
    sums: list[Reduce] = []
    factors = tuple(_factors(w, inside, term, hidden, sums))
    if len(sums) != 1:
        return None
    product = inside.get(sums[0].operand.id)
    if not isinstance(product, Binary) or product.kind != "mul" or w.uses.count(product.result.id) != 1:
        return None
    pair = _pair(w, inside, product, carry.shape[0], hidden)
    if pair is None:
        return None
    return *pair, factors, frozenset(hidden | {sums[0].result.id, product.result.id})


def _factors(
    w: Writer, inside: dict[int, Op], value: Value, hidden: set[int], sums: list[Reduce]
) -> Iterable[Value]:
    """The factors of a product but for a row sum of integers, which goes to `sums`."""
    op = inside.get(value.id)
    if w.uses.count(value.id) == 1:
        if isinstance(op, Binary) and op.kind == "mul":
            hidden.add(value.id)
            yield from _factors(w, inside, op.left, hidden, sums)
            yield from _factors(w, inside, op.right, hidden, sums)
            return
        if isinstance(op, Cast) and op.result.dtype == "f32":
            summed = inside.get(op.operand.id)
            if isinstance(summed, Reduce) and _sums_rows(summed) and w.uses.count(summed.result.id) == 1:
                hidden.add(value.id)
                sums.append(summed)
                return
    yield value


def _sums_rows(op: Reduce) -> bool:
    return op.kind == "sum" and op.axis == 1 and op.result.dtype == "i32"


def _pair(
    w: Writer, inside: dict[int, Op], product: Binary, rows: int, hidden: set[int]
) -> tuple[Load, tuple[Load, ...]] | None:
    """(left, right) when both can be read where they lie; what joins two rights goes to `hidden`."""
    for a, b in ((product.left, product.right), (product.right, product.left)):
        left, right = inside.get(a.id), _bytes(w, inside, b, hidden)
        if isinstance(left, Load) and a.shape[0] == rows and _readable(w, left, LEFT, True) and right:
            return left, right
    return None


def _bytes(w: Writer, inside: dict[int, Op], value: Value, hidden: set[int]) -> tuple[Load, ...]:
    """The load of a row of i8, or those of both bytes of a row of 16-bit numbers; else nothing."""
    op = inside.get(value.id)
    if value.shape[0] == 1 and isinstance(op, Load) and _readable(w, op, ("i8",), False):
        return (op,)
    if value.shape[0] == 1 and isinstance(op, Binary) and op.kind == "add" and w.uses.count(value.id) == 1:
        for scaled, low in ((op.left, op.right), (op.right, op.left)):
            above, below = _shifted(w, inside, scaled), inside.get(low.id)
            if above and isinstance(below, Load) and _readable(w, below, ("u8",), False):
                hidden |= {value.id, scaled.id}
                return above, below
    return ()


def _shifted(w: Writer, inside: dict[int, Op], value: Value) -> Load | None:
    """The load of i8 that a value is 256 times of."""
    op = inside.get(value.id)
    if not isinstance(op, Binary) or op.kind != "mul" or w.uses.count(value.id) != 1:
        return None
    number, load = w.facts.op(op.right), inside.get(op.left.id)
    if not isinstance(number, Const) or number.value != 256 or not isinstance(load, Load):
        return None
    return load if _readable(w, load, ("i8",), False) else None


def _readable(w: Writer, op: Load, dtypes: tuple[Storage, ...], guarded_rows: bool) -> bool:
    """Whole groups of neighbours, inside of the Ref but perhaps for some rows, which then are zeros."""
    ref, place = w.kernel.ref(op.ref), window(w.facts, w.kernel.ref(op.ref), op.index, w.trusted)
    if ref.dtype not in dtypes or place.strides[1] != 1 or place.sizes[1] % NIBBLE_GROUP or op.other != 0:
        return False
    if ref.dtype in NIBBLES and not whole_groups(w.facts, ref, op.index):
        return False
    spans = [entry for entry in (op.index[axis] for axis in place.guarded) if isinstance(entry, Span)]
    by_rows = len(spans) == len(place.guarded) and all(entry.tile_axis == 0 for entry in spans)
    return not place.guarded or (guarded_rows and by_rows)


def hide(w: Writer, sums: list[RowSum]) -> None:
    """Leaves to `add` what the loop's ops would compute."""
    for each in sums:
        w.hidden |= each.hidden
        w.in_place |= {load.result.id for load in (each.left, *each.right)}


def begin(w: Writer, sums: list[RowSum], rows: int) -> None:
    """Declares the lanes of `rows` rows."""
    hide(w, sums)
    for each in sums:
        for row in range(min(rows, each.carry.shape[0])):
            w.say(f"Lanes {_lanes(each, row)} = no_lanes();")


def add(w: Writer, sums: list[RowSum], rows: int, first: str) -> None:
    """One pass for `rows` rows from `first`: each row of weights is read once, for the activations of all."""
    for right in dict.fromkeys(each.right for each in sums):
        for chunk in range(right[0].result.shape[1] // NIBBLE_GROUP):
            places = [f"{w.bases[load.result.id].pointer} + {chunk * NIBBLE_GROUP}" for load in right]
            w.say(f"const auto {_right(right, chunk)} = right_of({', '.join(places)});")
    for left in dict.fromkeys(each.left for each in sums):
        mine = [each for each in sums if each.left == left]
        for row in range(min(rows, left.result.shape[0])):
            with w.braces(_inside(w, left, f"{first} + {row}")):
                _add_row(w, left, row, first, mine)


def _inside(w: Writer, left: Load, row: str) -> str:
    """A condition on the row where its window is guarded: outside, nothing is added."""
    base = w.bases[left.result.id].window
    tests = []
    for axis in base.guarded:
        place = f"{w.arrays[left.index[axis].start.id]} + {row}"
        tests.append(f"{place} >= 0 && {place} < {base.ref.shape[axis]}")
    return f"if ({' && '.join(tests)})" if tests else ""


def _add_row(w: Writer, left: Load, row: int, first: str, sums: list[RowSum]) -> None:
    base = w.bases[left.result.id]
    dtype = base.window.ref.dtype
    bits = 2 if dtype in NIBBLES else 1
    w.say(f"const long r = {first} + {row}; (void)r;")
    nest = w.nest()
    factors = [" * ".join(nest.element(f) for f in each.factors) or "1.0f" for each in sums]
    w.say_all([*nest.rows, *nest.cells])
    stride = base.window.strides[0] // bits
    for chunk in range(left.result.shape[1] // NIBBLE_GROUP):
        place = f"{base.pointer} + r * {stride}L + {chunk * NIBBLE_GROUP // bits}L"
        w.say(f"const Left w{chunk} = left_{dtype}({place});")
        w.say(f"__builtin_prefetch({place} + {left.result.shape[0] * stride}L);")
        for each, factor in zip(sums, factors, strict=True):
            lanes, x = _lanes(each, row), _right(each.right, chunk)
            w.say(f"{lanes} = scaled_add({lanes}, dot_of(w{chunk}, {x}), {factor});")


def end(w: Writer, sums: list[RowSum], rows: int, first: str) -> None:
    """Joins the lanes of each row and adds what the total began as."""
    for each in sums:
        for row in range(min(rows, each.carry.shape[0])):
            with w.braces(""):
                w.say(f"const long r = {first} + {row}; (void)r;")
                nest = w.nest()
                start = nest.element(each.init)
                joined = f"{total_name(each)}[r] = {start} + joined({_lanes(each, row)});"
                w.say_all([*nest.rows, *nest.cells, joined])


def total_name(each: RowSum) -> str:
    """The array of a total after its loop."""
    return f"v{each.final.id}"


def _lanes(each: RowSum, row: int) -> str:
    return f"k{each.carry.id}_{row}"


def _right(right: tuple[Load, ...], chunk: int) -> str:
    return f"x{right[-1].result.id}_{chunk}"

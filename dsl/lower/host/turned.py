"""Row sums of 16 rows of weights at a time, in one vector a total: a lane is a row (`turned_dots.h`).

The form of `running` with lanes along a row makes a vector of partial sums for each row of weights and
each activation, and scales it by a factor of its own. Here a group of 16 rows is turned once, so that
dwords of each row lie side by side; then each activation takes two dot instructions for 64 products, and
one scaling for 16 rows. Whole sums of a group are converted to float, so nothing depends on how many
activations a program has.
"""

from dsl.ir.ops import Load, Span
from dsl.ir.types import NIBBLE_GROUP, NIBBLES, Value
from dsl.lower.host.running import TURNED_ROWS, RowSum, hide, total_name
from dsl.lower.host.windows import window
from dsl.lower.host.writer import Writer

MACRO = "TURNED"
"""Defined by `turned_dots.h` where a processor has what it takes."""
LEFT = ("i8", "i4", "u4")
LINE = 64
"""Bytes of a line of cache."""
FLOAT = 4
"""Bytes of a float32."""


def suits(w: Writer, sums: list[RowSum]) -> bool:
    """Whether all sums are of 16 whole rows by one group, with activations of 16 bits."""
    return bool(sums) and all(_suits(w, each) for each in sums)


def _suits(w: Writer, each: RowSum) -> bool:
    left = each.left
    ref = w.kernel.ref(left.ref)
    whole = not window(w.facts, ref, left.index, w.trusted).guarded
    shape = left.result.shape == (TURNED_ROWS, NIBBLE_GROUP)
    return whole and shape and ref.dtype in LEFT and len(each.right) == 2


def begin(w: Writer, sums: list[RowSum]) -> None:
    hide(w, sums)
    for each in sums:
        w.say(f"Column {_total(each)} = column_of(0.0f);")


def add(w: Writer, sums: list[RowSum]) -> None:
    """One pass: weights are turned once, and meet the activations of all sums."""
    for left in dict.fromkeys(each.left for each in sums):
        base = w.bases[left.result.id]
        dtype = base.window.ref.dtype
        bits = 2 if dtype in NIBBLES else 1
        stride = base.window.strides[0] // bits
        start = next(e.start for e in left.index if isinstance(e, Span) and e.tile_axis == 1)
        _fetch(w, base.pointer, NIBBLE_GROUP // bits, stride, f"{w.arrays[start.id]} / {bits}")
        w.say(f"const auto {_weights(left)} = turned_{dtype}({base.pointer}, {stride}L);")
    for factor in dict.fromkeys(f for each in sums for f in each.factors if _is_column(f)):
        _column(w, factor)
    for each in sums:
        columns = " * ".join(_name(f) for f in each.factors if _is_column(f)) or "column_of(1.0f)"
        nest = w.nest()
        numbers = " * ".join(nest.element(f) for f in each.factors if not _is_column(f)) or "1.0f"
        with w.braces(""):
            w.say("const long r = 0, c = 0; (void)r, (void)c;")
            w.say_all([*nest.rows, *nest.cells])
            places = ", ".join(w.bases[load.result.id].pointer for load in each.right)
            found = f"dot_of({_weights(each.left)}, {places})"
            w.say(f"{_total(each)} = scaled_add({_total(each)}, {found}, {columns} * column_of({numbers}));")


def _fetch(w: Writer, pointer: str, size: int, stride: int, done: str) -> None:
    """While `size` bytes of a row are used, fetches what later blocks of rows hold, in order of address.

    `stride` and `done` (what of a row came before) are in bytes.
    """
    lines = TURNED_ROWS * size // LINE
    w.say(f"fetch_ahead<{lines}>({pointer}, {TURNED_ROWS * stride}L, ({done}) * {TURNED_ROWS - 1}L);")


def _is_column(factor: Value) -> bool:
    return not factor.is_scalar and factor.shape[0] > 1


def _column(w: Writer, factor: Value) -> None:
    """Declares a factor as a vector: read from memory where it lies, or computed row by row."""
    op = w.lazy.get(factor.id)
    if factor.id not in w.arrays and isinstance(op, Load):
        base = w.bases[factor.id]
        if base.window.ref.dtype == "f32":
            stride, last = base.window.strides[0], op.index[-1]
            if stride != 1:
                _fetch(w, base.pointer, FLOAT, FLOAT * stride, f"{w.arrays[last.start.id]} * {FLOAT}L")
            w.say(f"const Column {_name(factor)} = column_at<{stride}L>({base.pointer});")
            return
    w.say(f"const Column {_name(factor)} = column_at<1>({w.materialise(factor)});")


def end(w: Writer, sums: list[RowSum]) -> None:
    """Adds what each total began as."""
    for each in sums:
        name = total_name(each)
        w.say(f"put_column({name}, {_total(each)});")
        with w.braces(f"for (long r = 0; r < {TURNED_ROWS}; r++)"):
            w.say("const long c = 0; (void)c;")
            nest = w.nest()
            start = nest.element(each.init)
            w.say_all([*nest.rows, *nest.cells, f"{name}[r] += {start};"])


def _total(each: RowSum) -> str:
    return f"k{each.carry.id}"


def _weights(left: Load) -> str:
    return f"w{left.result.id}"


def _name(factor: Value) -> str:
    return f"f{factor.id}"

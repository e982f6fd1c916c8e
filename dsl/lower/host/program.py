"""One version of the code of a program: each op to the emitter of its kind."""

from collections.abc import Iterable
from contextlib import nullcontext

from dsl.ir.ops import AtomicAdd, Dot, Load, Loop, Op, Pid, Reduce, Store
from dsl.ir.types import Value
from dsl.lower.host import names, turned
from dsl.lower.host.dots import dot
from dsl.lower.host.loads import load
from dsl.lower.host.loops import advance, carry
from dsl.lower.host.reduces import reduce
from dsl.lower.host.running import TURNED_ROWS, RowSum, add, begin, end, row_sums, rows_at_once, total_name
from dsl.lower.host.stores import write
from dsl.lower.host.writer import Writer


def block(w: Writer, body: Iterable[Op]) -> None:
    """Writes the code of ops in order."""
    for op in body:
        emit_op(w, op)


def emit_op(w: Writer, op: Op) -> None:
    if op.results and op.results[0].id in w.hidden:
        return
    match op:
        case Loop():
            loop(w, op)
        case Store() | AtomicAdd():
            write(w, op)
        case Dot():
            dot(w, op)
        case Reduce():
            reduce(w, op)
        case Load():
            load(w, op)
        case _:
            plain(w, op)


def plain(w: Writer, op: Op) -> None:
    value = op.results[0]
    if value.is_scalar:
        scalar(w, op, value)
    elif w.uses.deferred(op, direct=True):
        w.lazy[value.id] = op
    else:
        w.lazy[value.id] = op
        w.materialise(value)


def scalar(w: Writer, op: Op, value: Value) -> None:
    name = f"s{value.id}"
    if isinstance(op, Pid):
        text = f"pid{op.axis}"
    elif hasattr(op, "value"):
        text = names.constant(op.value, value.dtype)
    else:
        text = w.nest().computed(op)
    w.say(f"const {names.c_type(value.dtype)} {name} = {text};")
    w.arrays[value.id] = name


def loop(w: Writer, op: Loop) -> None:
    sums = row_sums(w, op)
    for each in sums:
        w.array(each.final)
    if not turned.suits(w, sums):
        passes(w, op, sums)
    else:
        w.say(f"#ifdef {turned.MACRO}")
        before = w.known()
        turned_passes(w, op, sums)
        w.restore(before)
        w.say("#else")
        passes(w, op, sums)
        w.say("#endif")
    for each in sums:
        w.arrays[each.final.id] = total_name(each)


def passes(w: Writer, op: Loop, sums: list[RowSum]) -> None:
    """The loop with its sums in lanes; a loop of tall sums once for every few of their rows."""
    rows = rows_at_once(sums)
    tall = any(each.carry.shape[0] > rows for each in sums)
    first = f"f{op.induction.id}" if tall else "0"
    repeat = w.braces(f"for (long {first} = 0; {first} < {TURNED_ROWS}; {first} += {rows})")
    with repeat if tall else nullcontext():
        begin(w, sums, rows)
        apart = {each.carry for each in sums}
        for value, final, init in zip(op.carries, op.finals, op.init, strict=True):
            if value not in apart:
                carry(w, value, init)
                w.arrays[final.id] = w.arrays[value.id]
        with w.braces(_head(w, op)):
            block(w, op.body)
            add(w, sums, rows, first)
            advance(w, op)
        end(w, sums, rows, first)


def turned_passes(w: Writer, op: Loop, sums: list[RowSum]) -> None:
    """The loop with its sums, its only carries, as one vector a total."""
    turned.begin(w, sums)
    with w.braces(_head(w, op)):
        block(w, op.body)
        turned.add(w, sums)
    turned.end(w, sums)


def _head(w: Writer, op: Loop) -> str:
    lo, hi, name = w.arrays[op.lo.id], w.arrays[op.hi.id], f"s{op.induction.id}"
    most = "" if op.max_trip is None else f" && {name} < {lo} + {op.max_trip}L"
    w.arrays[op.induction.id] = name
    return f"for (int {name} = {lo}; {name} < {hi}{most}; {name}++)"

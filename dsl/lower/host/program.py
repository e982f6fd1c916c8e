"""One version of the code of a program: each op to the emitter of its kind."""

from collections.abc import Iterable

from dsl.ir.ops import AtomicAdd, Dot, Load, Loop, Op, Pid, Reduce, Store
from dsl.ir.types import Value
from dsl.lower.host import names
from dsl.lower.host.dots import dot
from dsl.lower.host.loads import load
from dsl.lower.host.loops import advance, carry
from dsl.lower.host.reduces import reduce
from dsl.lower.host.running import add, begin, end, row_sums
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
    begin(w, sums)
    apart = {each.carry for each in sums}
    for value, final, init in zip(op.carries, op.finals, op.init, strict=True):
        if value not in apart:
            carry(w, value, init)
            w.arrays[final.id] = w.arrays[value.id]
    lo, hi = w.arrays[op.lo.id], w.arrays[op.hi.id]
    most = "" if op.max_trip is None else f" && s{op.induction.id} < {lo} + {op.max_trip}L"
    head = f"for (int s{op.induction.id} = {lo}; s{op.induction.id} < {hi}{most}; s{op.induction.id}++)"
    w.arrays[op.induction.id] = f"s{op.induction.id}"
    with w.braces(head):
        block(w, op.body)
        add(w, sums)
        advance(w, op)
    end(w, sums)

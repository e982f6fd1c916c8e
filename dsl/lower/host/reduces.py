"""Sums, maxima and minima along an axis of a tile."""

from dsl.ir.ops import Reduce
from dsl.lower.host import names
from dsl.lower.host.nest import LANES
from dsl.lower.host.writer import Writer

_START = {"sum": {"float": "0.0f", "int": "0"}}
_START["max"] = {"float": "-__builtin_inff()", "int": "(-2147483647 - 1)"}
_START["min"] = {"float": "__builtin_inff()", "int": "2147483647"}
_FOLD = {"sum": "{0} + {1}", "max": "{1} > {0} ? {1} : {0}", "min": "{1} < {0} ? {1} : {0}"}


def reduce(w: Writer, op: Reduce) -> None:
    name = w.array(op.result)
    if op.axis == 0:
        reduce_rows(w, op, name)
    else:
        reduce_columns(w, op, name)
    w.arrays[op.result.id] = name


def reduce_rows(w: Writer, op: Reduce, name: str) -> None:
    rows, columns = op.operand.shape
    kind = names.c_type(op.result.dtype)
    w.say(f"for (long c = 0; c < {columns}; c++) {name}[c] = {_START[op.kind][kind]};")
    fold = _FOLD[op.kind].format(f"{name}[c]", "x")
    nest = w.nest()
    if nest.has_nibbles(op.operand):
        w.materialise(op.operand)
        nest = w.nest()
    element = nest.element(op.operand)
    with w.braces(f"for (long r = 0; r < {rows}; r++)"):
        w.say_all(nest.rows)
        if columns > 1:
            w.say("#pragma omp simd")
        with w.braces(f"for (long c = 0; c < {columns}; c++)"):
            w.say_all([*nest.cells, f"const {kind} x = {element}; {name}[c] = {fold};"])


def reduce_columns(w: Writer, op: Reduce, name: str) -> None:
    rows, columns = op.operand.shape
    kind = names.c_type(op.result.dtype)
    nest = w.nest()
    element = nest.element(op.operand)
    whole = columns // LANES * LANES if columns >= 2 * LANES or nest.has_nibbles(op.operand) else 0
    with w.braces(f"for (long r = 0; r < {rows}; r++)"):
        w.say_all(nest.rows)
        w.say(f"{kind} total = {_START[op.kind][kind]};")
        step = f"const {kind} x = {element}; "
        if whole:
            w.say(f"alignas(64) {kind} lanes[{LANES}];")
            w.say(f"for (long i = 0; i < {LANES}; i++) lanes[i] = total;")
            fold = _FOLD[op.kind].format("lanes[lane]", "x")
            w.chunks(whole, [*nest.cells, f"{step}lanes[lane] = {fold};"])
            if op.kind == "sum" and kind == "float":
                w.say("total = total_of(lanes);")
            else:
                tree(w, op.kind)
        if whole < columns:
            with w.braces(f"for (long c = {whole}; c < {columns}; c++)"):
                fold = _FOLD[op.kind].format("total", "x")
                w.say_all([*nest.cells, f"{step}total = {fold};"])
        w.say(f"{name}[r] = total;")


def tree(w: Writer, kind: str) -> None:
    """Joins the lanes pairwise into `total`."""
    width = LANES // 2
    while width:
        fold = _FOLD[kind].format("lanes[i]", f"lanes[i + {width}]")
        w.say(f"for (long i = 0; i < {width}; i++) lanes[i] = {fold};")
        width //= 2
    w.say("total = lanes[0];")

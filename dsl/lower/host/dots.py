"""Matrix products of tiles, by the routines of `prelude.h`."""

from dsl.ir.ops import Dot, Load
from dsl.ir.types import Value
from dsl.lower.host.writer import Writer


def dot(w: Writer, op: Dot) -> None:
    left, right = matrix(w, op.left), matrix(w, op.right)
    (rows, inner), columns = op.left.shape, op.result.shape[1]
    name = w.array(op.result)
    if op.transpose_b:
        turned = "nullptr"
        if rows > 2:
            turned = w.array(Value(op.result.id, "f32", (inner, columns)), name=f"t{op.result.id}")
        w.say(f"dot_transposed({left}, {right}, {name}, {turned}, {rows}, {columns}, {inner});")
    else:
        w.say(f"dot({left}, {right}, {name}, {rows}, {columns}, {inner});")
    w.arrays[op.result.id] = name


def matrix(w: Writer, value: Value) -> str:
    """Pointer and row stride of an operand of dot; read where it lies if it is f32 in memory."""
    op = w.lazy.get(value.id)
    if value.id not in w.arrays and isinstance(op, Load) and value.dtype == "f32":
        base = w.bases[value.id]
        rows, columns = base.window.strides
        if base.window.ref.dtype == "f32" and (columns == 1 or value.shape[1] == 1):
            return f"{base.pointer}, {rows}"
    return f"{w.materialise(value)}, {value.shape[1]}"

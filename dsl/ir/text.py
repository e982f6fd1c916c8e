"""Kernels as text, and back: `parse_kernel(print_kernel(k)) == k` for every renumbered kernel.

    kernel softmax grid(5) {
      ref x: f32[37, 200] in
      ref o: f32[37, 200] out
      %0: i32 = pid 0
      %1: i32 = const 8
      %2: i32 = mul %0, %1
      %3: i32 = const 0
      %4: f32[8, 200] = load x[%2:8@0, %3:200@1] other 0.0
      %5: f32[8, 1] = reduce max %4 axis 1
      ...
      store o[%2:8@0, %3:200@1], %9
    }

`%2:8@0` is a Span of 8 from %2 along tile axis 0; `%2` alone an At. A loop reads

      %9: f32[8, 1] = loop %10 in %1..%2 carry %11 = %7 max_trip 4 {
        ...
        yield %15
      }

What follows `;` on a line is a comment. The text is canonical: it is the identity of a kernel in caches.
"""

from collections.abc import Iterator

from dsl.ir.ops import (
    At,
    AtomicAdd,
    Binary,
    Cast,
    Const,
    Dot,
    Full,
    Index,
    Iota,
    Kernel,
    Load,
    Loop,
    Op,
    Pid,
    Reduce,
    Span,
    Store,
    Unary,
    Where,
    renumber,
)
from dsl.ir.parse import parse_kernel
from dsl.ir.types import RefType, Shape, Value

__all__ = ["parse_kernel", "print_kernel"]


def print_kernel(kernel: Kernel, *, locations: bool = False) -> str:
    """The canonical text; with `locations`, each op is followed by a comment naming the user's line."""
    kernel = renumber(kernel)
    grid = ", ".join(map(str, kernel.grid))
    lines = [f"kernel {kernel.name} grid({grid}) {{", *(f"  {_ref(ref)}" for ref in kernel.refs)]
    lines += _block(kernel.body, "  ", locations)
    return "\n".join([*lines, "}"]) + "\n"


def _ref(ref: RefType) -> str:
    return f"ref {ref.name}: {ref.dtype}{_dims(ref.shape)} {ref.role}"


def _dims(shape: Shape) -> str:
    return f"[{', '.join(map(str, shape))}]" if shape else ""


def _block(body: tuple[Op, ...], indent: str, locations: bool) -> Iterator[str]:
    for op in body:
        place = f"  ; {op.loc.file}:{op.loc.line}" if locations and op.loc else ""
        yield f"{indent}{_line(op)}{place}"
        if isinstance(op, Loop):
            yield from _block(op.body, indent + "  ", locations)
            yield f"{indent}  yield {_names(op.yields)}".rstrip()
            yield f"{indent}}}"


def _line(op: Op) -> str:
    typed = ", ".join(f"%{value.id}: {value.dtype}{_dims(value.shape)}" for value in op.results)
    return f"{typed} = {_right(op)}" if typed else _right(op)


def _right(op: Op) -> str:
    match op:
        case Const(value=value):
            return f"const {_literal(value)}"
        case Full(value=value):
            return f"full {_literal(value)}"
        case Pid(axis=axis):
            return f"pid {axis}"
        case Iota():
            return f"iota %{op.start.id} axis {op.axis}"
        case Load():
            return f"load {op.ref}[{_window(op.index)}] other {_literal(op.other)}"
        case Store():
            return f"store {op.ref}[{_window(op.index)}], %{op.value.id}"
        case AtomicAdd():
            return f"atomic_add {op.ref}[{_window(op.index)}], %{op.value.id}"
        case Unary():
            return f"{op.kind} %{op.operand.id}"
        case Binary():
            return f"{op.kind} {_names((op.left, op.right))}"
        case Where():
            return f"where {_names((op.condition, op.left, op.right))}"
        case Cast():
            return f"cast %{op.operand.id}"
        case Reduce():
            return f"reduce {op.kind} %{op.operand.id} axis {op.axis}"
        case Dot():
            return f"dot {_names((op.left, op.right))}{' transpose_b' if op.transpose_b else ''}"
        case Loop():
            return _loop(op)
    raise TypeError(f"unknown op {type(op).__name__}")


def _loop(op: Loop) -> str:
    carry = ", ".join(f"%{c.id} = %{i.id}" for c, i in zip(op.carries, op.init, strict=True))
    parts = [f"loop %{op.induction.id} in %{op.lo.id}..%{op.hi.id}"]
    if carry:
        parts.append(f"carry {carry}")
    if op.max_trip is not None:
        parts.append(f"max_trip {op.max_trip}")
    return " ".join([*parts, "{"])


def _window(index: Index) -> str:
    return ", ".join(_entry(entry) for entry in index)


def _entry(entry: At | Span) -> str:
    if isinstance(entry, Span):
        return f"%{entry.start.id}:{entry.size}@{entry.tile_axis}"
    return f"%{entry.start.id}"


def _names(values: tuple[Value, ...]) -> str:
    return ", ".join(f"%{value.id}" for value in values)


def _literal(value: bool | int | float) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)

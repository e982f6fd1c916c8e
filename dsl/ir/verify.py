"""Checks a kernel: definitions before uses, types, windows, loops, and writes that never collide.

`verify` raises KernelError at the place the user wrote the offending op, or without a place for a
kernel that was parsed from text.
"""

from collections.abc import Iterable

from dsl.ir import access, infer
from dsl.ir.affine import Ranges
from dsl.ir.infer import TypeProblem
from dsl.ir.ops import At, AtomicAdd, Kernel, Load, Loop, Op, Span, Store, Write, defined, walk
from dsl.ir.types import Loc, Value
from dsl.lang.errors import KernelError


def verify(kernel: Kernel) -> None:
    """Raises KernelError for the first rule that `kernel` breaks."""
    _check_signature(kernel)
    refs = {ref.name: ref for ref in kernel.refs}
    _check_ids(kernel)
    _check_scope(kernel.body, set())
    for op in walk(kernel.body):
        try:
            if isinstance(op, Load | Store | AtomicAdd) and op.ref not in refs:
                raise TypeProblem(f"there is no Ref {op.ref}")
            infer.check(op, refs, kernel.grid)
        except TypeProblem as problem:
            raise _error(str(problem), op) from None
    facts = Ranges(kernel)
    _check_reachable(kernel, facts)
    _check_disjoint(kernel, facts)


def _error(message: str, op: Op | None) -> KernelError:
    return KernelError(message, (op.loc if op else None) or Loc("<ir>", 0))


def _check_signature(kernel: Kernel) -> None:
    if not kernel.grid or any(extent < 1 for extent in kernel.grid):
        raise _error(f"grid {kernel.grid} is empty; each axis needs one program or more", None)
    names = [ref.name for ref in kernel.refs]
    if len(set(names)) != len(names):
        raise _error(f"two Refs have the same name among {names}", None)
    try:
        for ref in kernel.refs:
            infer.check_ref(ref)
    except TypeProblem as problem:
        raise _error(str(problem), None) from None
    if not any(isinstance(op, Store | AtomicAdd) for op in walk(kernel.body)):
        raise _error(f"{kernel.name} stores nothing; write o[...] = value for an output", None)


def _check_ids(kernel: Kernel) -> None:
    seen: set[int] = set()
    for op in walk(kernel.body):
        for value in defined(op):
            if value.id in seen:
                raise _error(f"%{value.id} is defined twice", op)
            seen.add(value.id)


def _check_scope(body: Iterable[Op], outer: set[Value]) -> None:
    """Every use is of a value defined earlier here or outside, with the very same type."""
    known = set(outer)
    for op in body:
        _require(op.operands, known, op)
        if isinstance(op, Loop):
            _check_scope(op.body, known | {op.induction, *op.carries})
            inner = known | {op.induction, *op.carries} | {v for each in op.body for v in each.results}
            _require(op.yields, inner, op)
        known.update(op.results)


def _require(values: Iterable[Value], known: set[Value], op: Op) -> None:
    for value in values:
        if value not in known:
            raise _error(
                f"{type(op).__name__.lower()} uses %{value.id}, a value of another loop or kernel; "
                "return it as a loop carry to use it outside",
                op,
            )


def _check_reachable(kernel: Kernel, facts: Ranges) -> None:
    """A window that is outside its Ref in every program is a mistake, not a mask."""
    for op in walk(kernel.body):
        if not isinstance(op, Load | Store | AtomicAdd):
            continue
        ref = kernel.ref(op.ref)
        for axis, entry in enumerate(op.index):
            low, high = facts.interval(entry.start)
            size = entry.size if isinstance(entry, Span) else 1
            beyond = low is not None and low >= ref.shape[axis]
            before = high is not None and high + size <= 0
            if beyond or before:
                verb = "load" if isinstance(op, Load) else "store"
                raise _error(
                    f"{verb} of {op.ref}: axis {axis} has length {ref.shape[axis]} and the window "
                    f"{_describe(entry)} begins at {low if beyond else high}, out of range in every program",
                    op,
                )


def _describe(entry: At | Span) -> str:
    return f"of {entry.size}" if isinstance(entry, Span) else "of one element"


def _check_disjoint(kernel: Kernel, facts: Ranges) -> None:
    found = access.writes(kernel)
    for op, around in found:
        if isinstance(op, Store):
            left = access.Coordinates(facts, around).unseparated(op.index)
            if left:
                raise _error(_overlap(op, sorted(left), facts, kernel), op)
    for position, (first, _) in enumerate(found):
        for second, _ in found[position + 1 :]:
            _check_pair(first, second, facts)


def _check_pair(first: Write, second: Write, facts: Ranges) -> None:
    if first.ref != second.ref or (isinstance(first, AtomicAdd) and isinstance(second, AtomicAdd)):
        return
    if not access.apart(facts, first.index, second.index):
        raise _error(
            f"{first.ref} is written here and by another statement, and the two windows may overlap; "
            "join the values with where(...) and store once, or use atomic_add for both",
            second,
        )


def _overlap(op: Store, left: list[int], facts: Ranges, kernel: Kernel) -> str:
    names = []
    for symbol in left:
        axis = facts.grid_axis(symbol) if symbol >= 0 else -2 - symbol
        if axis is not None:
            names.append(f"pid({axis}) (extent {kernel.grid[axis]})")
        else:
            names.append("the loop's induction")
    return (
        f"store to {op.ref}: programs that differ in {' and '.join(names)} may write the same elements; "
        "make the window depend on it, step >= size, or use atomic_add"
    )

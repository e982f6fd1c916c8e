"""Loop-invariant hoist: what a loop computes alike in every pass is computed once before it.

Loads count: inputs never change, and they are guarded, so one too many does no harm. Divisions of
integers stay unless the divisor is a constant other than zero, since the loop might make no pass; so
do tiles of one constant, which cost more to keep than to make.
"""

import dataclasses

from dsl.ir.ops import Binary, Const, Full, Kernel, Loop, Op, defined, has_effect, renumber, walk


def hoist_invariant(kernel: Kernel) -> Kernel:
    """Moves pure ops that need nothing of their loop before it, out of as many loops as possible."""
    constants = {op.result.id for op in walk(kernel.body) if isinstance(op, Const) and op.value}
    return renumber(dataclasses.replace(kernel, body=_block(kernel.body, constants)))


def _block(body: tuple[Op, ...], constants: set[int]) -> tuple[Op, ...]:
    kept: list[Op] = []
    for op in body:
        if isinstance(op, Loop):
            before, loop = _split(dataclasses.replace(op, body=_block(op.body, constants)), constants)
            kept += [*before, loop]
        else:
            kept.append(op)
    return tuple(kept)


def _split(op: Loop, constants: set[int]) -> tuple[list[Op], Loop]:
    """What can go before the loop, in order, and the loop without it."""
    inside = {value.id for value in (op.induction, *op.carries)}
    inside |= {value.id for inner in op.body for value in defined(inner)}
    moved: list[Op] = []
    left: list[Op] = []
    for inner in op.body:
        if _movable(inner, constants) and not any(value.id in inside for value in inner.operands):
            moved.append(inner)
            inside -= {value.id for value in inner.results}
        else:
            left.append(inner)
    return moved, dataclasses.replace(op, body=tuple(left))


def _movable(op: Op, constants: set[int]) -> bool:
    """Pure, safe when the loop makes no pass, and dearer to make again than to keep in registers."""
    if has_effect(op) or isinstance(op, Loop | Full):
        return False
    return not (isinstance(op, Binary) and op.kind in ("idiv", "mod")) or op.right.id in constants

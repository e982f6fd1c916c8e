"""Which loads of a loop's body are made one pass early, so that they arrive while the matrix unit works.

Such a load leads to matrix dots only, by way of shared memory, and where it reads depends on the pass alone.
Its registers are free once the last of those dots is staged: the next pass's elements come into them there.
Without it a block of a plain product would wait for memory in each pass. Where the left operand is held in
registers, as in attention, the pass has other work to overlap, and the registers are worth more than the
wait: there it made an H200 up to 1.3 times slower.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dsl.ir.ops import Binary, Cast, Const, Dot, Kernel, Load, Loop, Op, Pid, Unary, Where, walk
from dsl.lower.c.placement import Placement

_SCALAR = (Const, Pid, Unary, Binary, Where, Cast)


@dataclass(frozen=True)
class Ahead:
    """What one dot of a loop's body lets be loaded early.

    Attributes:
        scalars: ops of the body, in order, that the places of the loads are computed by.
    """

    loads: tuple[Load, ...]
    scalars: tuple[Op, ...]


def prefetched(kernel: Kernel, placement: Placement) -> Mapping[int, Mapping[int, Ahead]]:
    """By the id of a loop's induction value, and by that of the result of a dot of its body."""
    inputs = {ref.name for ref in kernel.inputs if ref.role == "in"}
    loops = [op for op in walk(kernel.body) if isinstance(op, Loop)]
    found = {op.induction.id: _ahead(op.body, _outside(op), inputs, placement) for op in loops}
    return {induction: each for induction, each in found.items() if each}


def _outside(loop: Loop) -> frozenset[int]:
    """Ids that change from pass to pass in a way that only the pass itself finds out."""
    return frozenset(value.id for value in loop.carries)


def _ahead(
    body: Sequence[Op], carries: frozenset[int], inputs: set[str], placement: Placement
) -> dict[int, Ahead]:
    made = {value.id: op for op in body for value in op.results}
    groups: dict[int, list[tuple[Load, set[int]]]] = {}
    for op in body:
        if not isinstance(op, Load) or op.ref not in inputs or op.result.id not in placement.spread:
            continue
        needed = _needed(op, made, carries)
        dot = _last_dot(op, body, placement)
        if needed is not None and dot is not None:
            groups.setdefault(dot, []).append((op, needed))
    return {
        dot: Ahead(
            tuple(load for load, _ in group),
            tuple(op for op in body if any(value.id in ids for _, ids in group for value in op.results)),
        )
        for dot, group in groups.items()
    }


def _needed(load: Load, made: Mapping[int, Op], carries: frozenset[int]) -> set[int] | None:
    """Ids of the body's scalars that a load's place is computed from; None if more than the pass decides."""
    needed: set[int] = set()
    waiting = [value.id for value in load.operands]
    while waiting:
        each = waiting.pop()
        if each in carries:
            return None
        op = made.get(each)
        if op is None or each in needed:
            continue
        if not isinstance(op, _SCALAR):
            return None
        needed.add(each)
        waiting += [value.id for value in op.operands]
    return needed


def _last_dot(load: Load, body: Sequence[Op], placement: Placement) -> int | None:
    """Id of the result of the last dot that the load leads to; None where it should not come early."""
    reached, last = {load.result.id}, None
    for op in body:
        used = {value.id for value in op.operands} & reached
        if isinstance(op, Loop) and (used or _uses_within(op, reached)):
            return None
        if isinstance(op, Dot) and used:
            if op.left.id not in placement.spread:
                return None
            last = op.result.id
        elif used:
            reached |= {value.id for value in op.results}
    return last


def _uses_within(loop: Loop, values: set[int]) -> bool:
    return any(value.id in values for op in walk(loop.body) for value in op.operands)

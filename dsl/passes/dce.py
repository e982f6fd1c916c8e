"""Dead code: ops whose results nobody needs, and loop carries that only feed themselves."""

import dataclasses
from collections.abc import Iterable

from dsl.ir.ops import Kernel, Loop, Op, has_effect, renumber, walk
from dsl.ir.types import Value


def eliminate_dead(kernel: Kernel) -> Kernel:
    """Removes ops that lead to no store, and unneeded carries of the loops that stay."""
    live = _live_values(kernel)
    return renumber(dataclasses.replace(kernel, body=_kept(kernel.body, live)))


def _live_values(kernel: Kernel) -> set[int]:
    """Ids needed by an effect, to a fixed point (a carry needs its yield, which may need other carries)."""
    producers = {value.id: op for op in walk(kernel.body) for value in op.results}
    carried = {
        value.id: (op, number)
        for op in walk(kernel.body)
        if isinstance(op, Loop)
        for number, value in enumerate(op.carries)
    }
    live: set[int] = set()
    pending = [v for op in walk(kernel.body) if has_effect(op) for v in _roots(op)]
    while pending:
        value = pending.pop()
        if value.id in live:
            continue
        live.add(value.id)
        op = producers.get(value.id)
        if isinstance(op, Loop):
            number = op.finals.index(value)
            pending += [op.lo, op.hi, op.init[number], op.yields[number]]
        elif op is not None:
            pending += op.operands
        elif value.id in carried:
            loop, number = carried[value.id]
            pending += [loop.init[number], loop.yields[number]]
    return live


def _roots(op: Op) -> Iterable[Value]:
    return (op.lo, op.hi) if isinstance(op, Loop) else op.operands


def _kept(body: tuple[Op, ...], live: set[int]) -> tuple[Op, ...]:
    kept: list[Op] = []
    for op in body:
        if isinstance(op, Loop):
            trimmed = _trimmed(op, live)
            if trimmed.finals or has_effect(trimmed):
                kept.append(trimmed)
        elif has_effect(op) or any(value.id in live for value in op.results):
            kept.append(op)
    return tuple(kept)


def _trimmed(op: Loop, live: set[int]) -> Loop:
    """The loop with the carries that are read inside or outside."""
    wanted = [
        number
        for number, (carry, final) in enumerate(zip(op.carries, op.finals, strict=True))
        if carry.id in live or final.id in live
    ]

    def pick(values: tuple[Value, ...]) -> tuple[Value, ...]:
        return tuple(values[number] for number in wanted)

    return dataclasses.replace(
        op,
        finals=pick(op.finals),
        carries=pick(op.carries),
        init=pick(op.init),
        yields=pick(op.yields),
        body=_kept(op.body, live),
    )

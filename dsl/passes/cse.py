"""Common subexpressions: of two equal pure ops the later goes. Loads are pure: inputs never change."""

import dataclasses

from dsl.ir.ops import Const, Full, Kernel, Loop, Op, has_effect, renumber
from dsl.ir.types import Value


def eliminate_common(kernel: Kernel) -> Kernel:
    """Merges equal ops of a block, and ops of a loop's body with equal ops before the loop."""
    return renumber(dataclasses.replace(kernel, body=_block(kernel.body, {}, {})))


def _block(body: tuple[Op, ...], outer: dict[object, Value], renamed: dict[int, Value]) -> tuple[Op, ...]:
    seen = dict(outer)
    kept: list[Op] = []

    def current(value: Value) -> Value:
        return renamed.get(value.id, value)

    for original in body:
        if isinstance(original, Loop):
            inner = _block(original.body, seen, renamed)
            kept.append(dataclasses.replace(original, body=inner).map_values(current))
            continue
        op = original.map_values(current)
        if not has_effect(op):
            key = _key(op)
            if key in seen:
                renamed[op.results[0].id] = seen[key]
                continue
            seen[key] = op.results[0]
        kept.append(op)
    return tuple(kept)


def _key(op: Op) -> object:
    """Equal for ops that compute the same; -0.0 and 0.0, or True and 1, are not the same."""
    result = op.results[0]
    anonymous = dataclasses.replace(op, result=dataclasses.replace(result, id=-1))  # type: ignore[call-arg]
    literal = repr(op.value) if isinstance(op, Const | Full) else ""
    return anonymous, literal

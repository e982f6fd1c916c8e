"""Carries of loops: how they begin, and how they take the values that a pass yields."""

from dsl.ir.ops import Loop
from dsl.ir.types import Value
from dsl.lower.host import names
from dsl.lower.host.writer import Writer


def carry(w: Writer, carry: Value, init: Value) -> None:
    """Declares a carry, with its first value."""
    if carry.is_scalar:
        name = f"k{carry.id}"
        w.say(f"{names.c_type(carry.dtype)} {name} = {w.arrays[init.id]};")
    else:
        name = w.array(carry, name=f"k{carry.id}")
        w.fill(name, init, carry.shape)
    w.arrays[carry.id] = name


def advance(w: Writer, op: Loop) -> None:
    """Carries take the values yielded, but for hidden ones; each once no other yield still reads it."""
    pairs = zip(op.carries, op.yields, strict=True)
    left = [(c, y) for c, y in pairs if c != y and y.id not in w.hidden]
    while left:
        ready = next((pair for pair in left if not _read_by_others(w, pair, left)), None)
        if ready is None:
            number = next(i for i, _ in enumerate(left))
            carry, value = left[number]
            left[number] = carry, kept(w, value)
            if left[number][1] == value:
                left.append(left.pop(0))
            continue
        left.remove(ready)
        carry, value = ready
        home = w.arrays[carry.id]
        if carry.is_scalar:
            w.say(f"{home} = {w.arrays[value.id]};")
        else:
            w.fill(home, value, carry.shape)


def kept(w: Writer, value: Value) -> Value:
    """A copy of `value` that changes of carries do not reach."""
    w.counter += 1
    copy = Value(1000000 + w.counter, value.dtype, value.shape)
    if value.is_scalar:
        w.say(f"const {names.c_type(value.dtype)} s{copy.id} = {w.arrays[value.id]};")
        w.arrays[copy.id] = f"s{copy.id}"
    else:
        name = w.array(copy)
        w.fill(name, value, value.shape)
        w.arrays[copy.id] = name
    return copy


def _read_by_others(w: Writer, pair: tuple[Value, Value], left: list[tuple[Value, Value]]) -> bool:
    home = w.arrays[pair[0].id]
    return any(home in _reads(w, other) for carry, other in left if carry != pair[0])


def _reads(w: Writer, value: Value) -> set[str]:
    if value.id in w.arrays:
        return {w.arrays[value.id]}
    return {name for operand in w.lazy[value.id].operands for name in _reads(w, operand)}

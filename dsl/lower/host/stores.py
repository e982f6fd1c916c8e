"""Windows written to memory, whole or guarded at the edges of a Ref."""

from dsl.ir.ops import AtomicAdd, Cast, Store
from dsl.lower.host import loads, names
from dsl.lower.host.nest import offset
from dsl.lower.host.writer import Writer


def write(w: Writer, op: Store | AtomicAdd) -> None:
    """Computes a value's elements and puts them in its window."""
    w.counter += 1
    base = loads.base_of(w, op.ref, op.index, 100000 + w.counter)
    found = base.window
    value = op.value
    if isinstance(op, Store) and value.id in w.lazy and value.id not in w.arrays:
        inner = w.lazy[value.id]
        if isinstance(inner, Cast) and inner.operand.dtype == "f32" and value.dtype in ("f16", "bf16"):
            value = inner.operand  # the store rounds
    sign = "=" if isinstance(op, Store) else "+="
    action = f"{base.pointer}[{offset(found)}] {sign} {names.to_store('{}', found.ref.dtype)};"
    if not found.guarded:
        w.sweep(value, found.sizes, action)
        return
    with w.braces(""):
        bounds = loads.bounds(w, found)
        if w.nest().has_nibbles(value):
            w.materialise(value)
        w.sweep(value, found.sizes, action, bounds)

"""Windows read from memory: direct, scalar, of nibbles, and guarded at the edges of a Ref."""

import math
from dataclasses import replace

from dsl.ir.ops import Index, Load, Span
from dsl.ir.types import NIBBLES
from dsl.lower.host import names
from dsl.lower.host.nest import offset
from dsl.lower.host.windows import Window, ref_strides, whole_groups, window
from dsl.lower.host.writer import Base, Writer

ABSENT = 1 << 15
"""Bytes of zeros that `prelude.h` keeps for windows outside of their Ref."""


def load(w: Writer, op: Load) -> None:
    """Reads a scalar or a guarded window into a variable or array; other windows where they are used."""
    value = op.result
    base = base_of(w, op.ref, op.index, value.id)
    if _whole_or_absent(base.window, op):
        base = _or_absent(w, op, base)
    w.bases[value.id] = base
    if value.id in w.in_place:
        return
    packed = base.window.ref.dtype in NIBBLES
    groups = packed and whole_groups(w.facts, base.window.ref, op.index)
    if value.is_scalar:
        scalar_load(w, op, base)
    elif base.window.guarded or (packed and not groups):
        guarded_load(w, op, base)
    else:
        w.lazy[value.id] = op
        if not w.uses.deferred(op, direct=True):
            w.materialise(value)


def base_of(w: Writer, ref_name: str, index: Index, key: int) -> Base:
    """Emits the pointer to a window's first element."""
    found = window(w.facts, w.kernel.ref(ref_name), index, w.trusted)
    terms = [
        f"{w.arrays[entry.start.id]} * {stride}L"
        for entry, stride in zip(index, ref_strides(found.ref), strict=True)
    ]
    halved = " >> 1" if found.ref.dtype in NIBBLES else ""
    const = "" if found.ref.is_written else "const "
    pointer = f"p{key}"
    kind = f"{const}{names.STORED[found.ref.dtype]} *"
    w.say(f"{kind}const {pointer} = {w.refs[ref_name]} + (({' + '.join(terms)}){halved});")
    return Base(found, pointer)


def _whole_or_absent(found: Window, op: Load) -> bool:
    """True for a tile whose guards are of single positions, so that all of it is inside or nothing is."""
    if not found.guarded or op.result.is_scalar or found.ref.dtype in NIBBLES or op.other != 0:
        return False
    if any(isinstance(op.index[axis], Span) for axis in found.guarded):
        return False
    last = sum((size - 1) * stride for size, stride in zip(found.sizes, found.strides, strict=True))
    return (last + 1) * found.ref.nbytes <= ABSENT * math.prod(found.ref.shape)


def _or_absent(w: Writer, op: Load, base: Base) -> Base:
    """The same window without guards: it reads where it lies, or zeros."""
    found, pointer = base.window, f"a{op.result.id}"
    kind = f"const {names.STORED[found.ref.dtype]} *"
    tests = [_inside(w, op, found, axis) for axis in found.guarded]
    w.say(f"{kind}const {pointer} = {' && '.join(tests)} ? {base.pointer} : ({kind})absent;")
    return Base(replace(found, guarded=()), pointer)


def _inside(w: Writer, op: Load, found: Window, axis: int) -> str:
    start = w.arrays[op.index[axis].start.id]
    return f"{start} >= 0 && {start} < {found.ref.shape[axis]}"


def raw(w: Writer, op: Load, base: Base) -> str:
    """One element, wherever it lies."""
    ref = base.window.ref
    if ref.dtype not in NIBBLES:
        return names.loaded(f"{base.pointer}[{offset(base.window)}]", ref.dtype)
    places = []
    for entry in op.index:
        moved = f" + {'rc'[entry.tile_axis]}" if isinstance(entry, Span) else ""
        places.append(f"({w.arrays[entry.start.id]}{moved})")
    strides = ref_strides(ref)
    lead = " + ".join([f"{p} * {s // 2}L" for p, s in zip(places[:-1], strides[:-1], strict=True)] or ["0"])
    k = places[-1]
    code = f"({w.refs[op.ref]}[{lead} + {k} / 32 * 16 + {k} % 16] >> {k} / 16 % 2 * 4 & 15)"
    return f"(({code} ^ 8) - 8)" if ref.dtype == "i4" else code


def scalar_load(w: Writer, op: Load, base: Base) -> None:
    value = op.result
    name = f"s{value.id}"
    text = raw(w, op, base)
    for axis in base.window.guarded:
        inside = _inside(w, op, base.window, axis)
        text = f"({inside} ? {text} : {names.constant(op.other, value.dtype)})"
    w.say(f"const {names.c_type(value.dtype)} {name} = {text};")
    w.arrays[value.id] = name


def guarded_load(w: Writer, op: Load, base: Base) -> None:
    value = op.result
    name = w.array(value)
    rows, columns = value.shape
    with w.braces(""):
        low, high, left, right = bounds(w, base.window)
        place = f"{name}[r * {columns} + c]"
        other = names.constant(op.other, value.dtype)
        full = f"r0 <= 0 && c0 <= 0 && r1 >= {rows} && c1 >= {columns}"
        count = rows * columns
        w.say(f"if (!({full})) for (long i = 0; i < {count}; i++) {name}[i] = {other};")
        with w.braces(f"for (long r = {low}; r < {high}; r++)"):
            w.say("#pragma omp simd")
            with w.braces(f"for (long c = {left}; c < {right}; c++)"):
                w.say(f"{place} = {raw(w, op, base)};")
    w.arrays[value.id] = name


def bounds(w: Writer, found: Window) -> tuple[str, str, str, str]:
    """Declares r0, r1, c0, c1: the part of a guarded window that is inside."""
    w.say(f"long r0 = 0, r1 = {found.sizes[0]}, c0 = 0, c1 = {found.sizes[1]};")
    for axis in found.guarded:
        entry, extent = found.index[axis], found.ref.shape[axis]
        start = w.arrays[entry.start.id]
        if isinstance(entry, Span):
            low, high = ("r0", "r1") if entry.tile_axis == 0 else ("c0", "c1")
            w.say(f"if ({start} < 0) {low} = -(long){start};")
            w.say(f"if ({high} > {extent}L - {start}) {high} = {extent}L - {start};")
        else:
            w.say(f"if ({start} < 0 || {start} >= {extent}) r1 = 0;")
    return "r0", "r1", "c0", "c1"

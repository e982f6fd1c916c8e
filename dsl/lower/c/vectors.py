"""Which windows may be read or written several neighbours at once, and which tiles end in zeros."""

from collections.abc import Callable, Iterator
from functools import partial

from dsl.ir.affine import Ranges
from dsl.ir.infer import window
from dsl.ir.ops import AtomicAdd, Dot, Index, Kernel, Load, Span, Store, defined, walk
from dsl.ir.types import BITS, NIBBLES, RefType, Shape
from dsl.lower.c.layout import LANES, Layout, spread_layout
from dsl.lower.c.placement import VECTOR_BYTES


def in_runs(facts: Ranges, ref: RefType, index: Index, shape: Shape, layout: Layout) -> bool:
    """True when each run of columns is, as a whole, in range or not and at an aligned address.

    So it is when columns lie along the Ref's last axis, and the axis, the window's length and all that its
    start is made of are multiples of the run. Arrays begin at addresses that are multiples of 16 bytes.
    """
    run, last = layout.columns.run, index[-1]
    if run == 1 or ref.dtype in NIBBLES or not isinstance(last, Span) or last.tile_axis != 1:
        return False
    start = facts.affine(last.start)
    parts = (start.constant, *start.terms.values(), ref.shape[-1], last.size)
    return len(shape) == 2 and all(part % run == 0 for part in parts)


def wide_run(ref: RefType, layout: Layout) -> int:
    """How many elements of a run go at once: all, or what `VECTOR_BYTES` hold."""
    return min(layout.columns.run, VECTOR_BYTES * 8 // BITS[ref.dtype])


def zero_ends(kernel: Kernel, facts: Ranges) -> Iterator[tuple[int, int]]:
    """(value id, axis) of loaded tiles whose slots past the end of an axis hold zeros.

    Guards give zeros there unless what guards is the Ref's bound and the Ref goes on behind the window.
    """
    for op in walk(kernel.body):
        if not isinstance(op, Load) or op.other != 0:
            continue
        ref = kernel.ref(op.ref)
        for axis, entry in enumerate(op.index):
            if not isinstance(entry, Span):
                continue
            whole = facts.interval(entry.start) == (0, 0) and ref.shape[axis] <= entry.size
            if whole or facts.window_inside(ref, entry, axis):
                yield op.result.id, entry.tile_axis


def row_spread(kernel: Kernel, rows: int) -> tuple[int, int]:
    """(lanes along a row, neighbours that each takes at a time) of the row layout, for `rows` rows a warp.

    More than one neighbour only where each row is such a run of those lanes, so many times over; and not
    with dots, whose reads of shared memory want neighbours on neighbouring lanes. Fewer lanes than a warp
    has where that makes for longer runs, while there are rows for the others.
    """
    if any(isinstance(op, Dot) for op in walk(kernel.body)):
        return LANES, 1
    widths = {value.shape[1] for op in walk(kernel.body) for value in defined(op) if value.shape} - {1}
    best = LANES, 1
    for across in (LANES, LANES // 2, LANES // 4, LANES // 8):
        if rows * across < LANES:
            break
        run = longest_run(kernel, partial(_even, widths, across))
        best = (across, run) if run > best[1] else best
    return best


def _even(widths: set[int], across: int, run: int) -> bool:
    return all(width % (across * run) == 0 for width in widths)


def longest_run(kernel: Kernel, fits: Callable[[int], bool]) -> int:
    """The longest run that `fits`, of 16 bytes of the narrowest array or less, with all windows `in_runs`."""
    ops, facts = list(walk(kernel.body)), Ranges(kernel)
    refs = {ref.name: ref for ref in kernel.refs}
    windows = [(refs[op.ref], op.index) for op in ops if isinstance(op, Load | Store | AtomicAdd)]
    wide = [(ref, index, shape) for ref, index in windows if (shape := window(ref, index))[1:] > (1,)]
    run = max((VECTOR_BYTES * 8 // BITS[ref.dtype] for ref, _, _ in wide), default=1)
    while run > 1:
        layout = spread_layout(1, LANES, run)
        if fits(run) and all(in_runs(facts, ref, index, shape, layout) for ref, index, shape in wide):
            return run
        run //= 2
    return 1

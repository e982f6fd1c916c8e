"""A kernel as source of one GPU kernel function, in a dialect and a layout.

Programs become blocks of a one-dimensional grid, tiles become registers, and each op becomes one
statement or nest over register slots; the compiler below unrolls and joins them. Each emitted line that
matters can be found by its op: `v7` is value %7 of the IR.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from dsl.ir.affine import Ranges
from dsl.ir.ops import (
    AtomicAdd,
    Binary,
    Cast,
    Const,
    Dot,
    Full,
    Iota,
    Kernel,
    Load,
    Loop,
    Op,
    Pid,
    Reduce,
    Store,
    Write,
    walk,
)
from dsl.ir.types import RefType, Value
from dsl.lower.c.choose import Choice, choose, tiles
from dsl.lower.c.dialects import Dialect, parameter_name
from dsl.lower.c.dots import Dots
from dsl.lower.c.emission import Emission
from dsl.lower.c.expressions import Expressions
from dsl.lower.c.layout import Layout
from dsl.lower.c.lines import Lines, Slot, scaled, slots
from dsl.lower.c.matrix import MatrixDots
from dsl.lower.c.placement import Placement, is_matrix, place
from dsl.lower.c.prefetch import Ahead, prefetched
from dsl.lower.c.reductions import Reductions
from dsl.lower.c.shared import Pool, TooMuchShared, plan
from dsl.lower.c.sums import sums
from dsl.lower.c.vectors import in_runs, wide_run, zero_ends

MAX_SLOTS = 512
"""Registers that one tile may take of a thread: beyond, compilers spill for minutes."""


GROUPS = (8, 4, 2)


class Unsupported(Exception):
    """The emitter cannot take this kernel; one line that says why and what to change."""


@dataclass(frozen=True)
class Program:
    """Emitted source and how to launch it.

    Attributes:
        entry: name of the kernel function.
        parameters: the Ref that each of its parameters is: all inputs, then all outputs. An inout Ref
            stands twice, for the same memory; only the first is used.
        blocks, threads: a one-dimensional grid, and the threads of a block.
        shared_bytes: statically sized shared memory.
        layout: the layout's name, its warps and why it was chosen, for people.
    """

    source: str
    entry: str
    parameters: tuple[RefType, ...]
    blocks: int
    threads: int
    shared_bytes: int
    layout: str


def emit(kernel: Kernel, dialect: Dialect, layout: Layout | None = None) -> Program:
    """The source of `kernel`. Raises Unsupported.

    Outputs that the kernel may not fully store must be zero before the launch, except for inout ones.
    """
    chosen = choose(kernel, dialect) if layout is None else Choice(layout, "asked for")
    layout = chosen.layout
    placement = place(kernel, layout)
    _check(kernel, placement)
    try:
        shared = plan(kernel, placement, dialect.shared_limit)
    except TooMuchShared as reason:
        raise Unsupported(f"{dialect.name}: {reason}") from None
    entry = f"{kernel.name}_kernel"
    lines = Lines(dialect.value_types)
    facts = Ranges(kernel)
    expressions = Expressions(kernel, facts, dialect, placement)
    zeros = frozenset(zero_ends(kernel, facts))
    emission = Emission(lines, dialect, expressions.names, placement, Pool(shared), zeros)
    _Emitter(kernel, facts, expressions, emission).block(kernel.body)
    body = _shared(dialect, shared.count, lines.text()) + lines.text()
    named = _parameters(kernel)
    head = dialect.signature(entry, named, layout.threads)
    source = f"{dialect.prologue}{dialect.definitions(body)}\n{head}{body}}}\n"
    refs = tuple(ref for ref, _ in named)
    told = f"{layout.name}, {layout.warps} warps: {chosen.reason}"
    return Program(source, entry, refs, math.prod(kernel.grid), layout.threads, 4 * shared.count, told)


def _shared(dialect: Dialect, count: int, body: str) -> str:
    """Declarations of shared memory, by its names that the body uses."""
    pool = f"  {dialect.shared.format(count=count)}\n" if count else ""
    return pool + (f"  {dialect.halves}\n" if "halves" in body else "")


def _parameters(kernel: Kernel) -> list[tuple[RefType, str]]:
    """The order in which XLA hands over buffers: operands, then results."""
    operands = [(ref, parameter_name(ref)) for ref in kernel.inputs]
    same = {ref.name: f"{ref.name}_result" for ref in kernel.outputs if ref.role == "inout"}
    return operands + [(ref, same.get(ref.name, parameter_name(ref))) for ref in kernel.outputs]


def _check(kernel: Kernel, placement: Placement) -> None:
    if placement.main.columns.warp and any(isinstance(op, Dot) for op in walk(kernel.body)):
        raise Unsupported("the wide layout has no dots")
    for ref in kernel.refs:
        if math.prod(ref.shape) >= 2**31:
            raise Unsupported(f"{ref.name} has 2^31 elements or more, and positions are 32-bit")
    if math.prod(kernel.grid) >= 2**31:
        raise Unsupported("the grid has 2^31 programs or more; use larger tiles")
    for value in tiles(kernel):
        slots = math.prod(placement.of(value).slots(value.shape))
        if slots > MAX_SLOTS:
            raise Unsupported(
                f"a tile of {value.shape} takes {slots} registers of each of {placement.main.threads} "
                f"threads, at most {MAX_SLOTS}; use smaller tiles or loop over them"
            )


def _group(grid: tuple[int, ...]) -> int:
    """How many programs of the first of two axes come before the next of the second, on a matrix unit.

    Those that run at once then read fewer different rows and columns, which the cache holds.
    """
    return next((n for n in GROUPS if grid[0] % n == 0), 1) if len(grid) == 2 else 1


class _Emitter:
    """Emits ops in order; what crosses threads is left to `Reductions`, `Dots` and `MatrixDots`."""

    def __init__(self, kernel: Kernel, facts: Ranges, expressions: Expressions, emission: Emission) -> None:
        self.kernel = kernel
        self.facts = facts
        self.lines = emission.lines
        self.placement = emission.placement
        self.pool = emission.pool
        self.expressions = expressions
        self.names = expressions.names
        self.dialect = emission.dialect
        self.reductions = Reductions(emission)
        self.dots = Dots(emission)
        self.matrices = MatrixDots(emission)
        self.sums = sums(kernel)
        self.summed = {each.result.id for each in self.sums.values()}
        self.ahead = prefetched(kernel, emission.placement)
        self.early = {
            load.result.id for dots in self.ahead.values() for each in dots.values() for load in each.loads
        }
        self.loops: list[Loop] = []

    def block(self, body: tuple[Op, ...]) -> None:
        for op in body:
            self.op(op)

    def op(self, op: Op) -> None:
        match op:
            case Const(result=result, value=value):
                self.names.give(result, self.expressions.literal(value, result.dtype))
            case Full(result=result, value=value):
                self._define(result, lambda slot: self.expressions.literal(value, result.dtype))
            case Pid(result=result, axis=axis):
                self.lines.add(f"const int v{result.id} = {self._pid(axis)};")
            case Iota(result=result, start=start, axis=axis):
                self._define(result, lambda slot: self.expressions.iota(result, start, axis, slot))
            case Load(result=result) if result.id in self.early:
                pass
            case Load():
                if op.result.shape:
                    self.lines.declare(self.placement.of(op.result), op.result)
                self._load(op)
            case Store() | AtomicAdd():
                self._write(op)
            case Reduce():
                self.reductions.reduce(op)
            case Dot():
                self._dot(op)
            case Loop():
                self._loop(op)
            case Cast(result=result, operand=operand) if result.dtype == operand.dtype:
                self.names.give(result, self.names[operand])
            case Binary(result=result) if result.id in self.summed and self._is_emitted(op):
                pass
            case _:
                result = op.results[0]
                self._define(result, lambda slot: self.expressions.elementwise(op, slot))

    def _define(self, result: Value, value: Callable[[Slot], str]) -> None:
        self.lines.define(self.placement.of(result), result, value)

    def _load(self, op: Load) -> None:
        """In runs of neighbours where that is safe, else element by element."""
        ref, layout, name = self.kernel.ref(op.ref), self.placement.of(op.result), f"v{op.result.id}"
        if op.result.is_scalar:
            self._define(op.result, lambda slot: self.expressions.load(op, slot))
            return
        if op.other != 0 or not in_runs(self.facts, ref, op.index, op.result.shape, layout):
            self.lines.nest(
                layout, op.result.shape, lambda s: f"{name}[{s[0]}][{s[1]}] = {self.expressions.load(op, s)};"
            )
            return
        width = wide_run(ref, layout)
        grouped, word = layout.grouped(width), self.dialect.word(width, ref.dtype)

        def fetch(slot: Slot) -> str:
            place = self.expressions.windows.place(ref, op.index, op.result.shape, grouped, slot, write=False)
            inside = " && ".join(place.guards) or "true"
            target = f"{name}[{slot[0]}][{scaled(slot[1], width)}]"
            return f"fetch<{word}>(&{target}, {inside}, &{place.element});"

        self.lines.nest(grouped, op.result.shape, fetch)

    def _write(self, op: Write) -> None:
        ref, shape, layout = self.kernel.ref(op.ref), self.expressions.window_shape(op), self.placement.main
        whole = isinstance(op, Store) and op.value.shape == shape
        if not whole or not in_runs(self.facts, ref, op.index, shape, layout):
            self.lines.nest(layout, shape, lambda slot: self.expressions.write(op, slot))
            return
        width = wide_run(ref, layout)
        grouped, word = layout.grouped(width), self.dialect.word(width, ref.dtype)

        def keep(slot: Slot) -> str:
            place = self.expressions.windows.place(ref, op.index, shape, grouped, slot, write=True)
            value = f"{self.names[op.value]}[{slot[0]}][{scaled(slot[1], width)}]"
            statement = f"keep<{word}>(&{place.element}, &{value});"
            return f"if ({' && '.join(place.guards)}) {statement}" if place.guards else statement

        self.lines.add(slots(*grouped.slots(shape), keep))

    def _dot(self, op: Dot) -> None:
        """On the matrix unit where it has one; then what is added to it goes in first."""
        layout = self.placement.main
        if not is_matrix(op, layout):
            self.dots.dot(op)
            return
        added = self.sums.get(op.result.id)
        result = added.result if added else op.result
        self._define(result, self._copied(added.start) if added else lambda slot: "0.0f")
        self.names.give(op.result, f"v{result.id}")
        self.matrices.dot(op, f"v{result.id}", lambda: self._next_pass(op))

    def _is_emitted(self, op: Binary) -> bool:
        """True for an addition that a dot on the matrix unit has taken in."""
        return any(self.names[value] == f"v{op.result.id}" for value in (op.left, op.right))

    def _pid(self, axis: int) -> str:
        group = _group(self.kernel.grid) if self.placement.main.unit else 1
        if group > 1:
            along = group * self.kernel.grid[1]
            return f"block % {along} / {group}" if axis else f"block / {along} * {group} + block % {group}"
        inner = math.prod(self.kernel.grid[axis + 1 :])
        extent = self.kernel.grid[axis]
        if extent == 1:
            return "0"
        divided = "block" if inner == 1 else f"block / {inner}"
        return divided if math.prod(self.kernel.grid[:axis]) == 1 else f"{divided} % {extent}"

    def _loop(self, op: Loop) -> None:
        for carry, final, init in zip(op.carries, op.finals, op.init, strict=True):
            self.lines.define(self.placement.main, carry, self._copied(init), constant=False)
            self.names.give(final, f"v{carry.id}")
        for ahead in self.ahead.get(op.induction.id, {}).values():
            for load in ahead.loads:
                self.lines.declare(self.placement.of(load.result), load.result)
            self._early(op, ahead, self.names[op.lo], first=True)
        trip = self.facts.trip(op)
        repeats = trip is None or trip > 1
        before, mark = self.pool.pending, self.lines.mark()
        turn = self.pool.turn
        self._body(op)
        after = self.pool.pending
        if repeats and not after <= before:
            # A region read at the end of a pass is dirty when the next one begins: emit again, knowing it.
            self.lines.rewind(mark)
            self.pool.turn, self.pool.pending = turn, before | after
            self._body(op)
            after = self.pool.pending
        runs = self.facts.exact_trip(op)
        self.pool.pending = after if runs else after | before

    def _body(self, op: Loop) -> None:
        j, lo = f"v{op.induction.id}", self.names[op.lo]
        self.lines.add(f"for (int {j} = {lo}; {self._goes_on(op)}; ++{j}) {{")
        self.loops.append(op)
        with self.lines.indented():
            self.block(op.body)
            self._carry_over(op)
        self.loops.pop()
        self.lines.add("}")

    def _goes_on(self, op: Loop) -> str:
        """True for the numbers of passes that there are, from the first on."""
        j, lo, hi = f"v{op.induction.id}", self.names[op.lo], self.names[op.hi]
        return f"{j} < {hi}" + ("" if op.max_trip is None else f" && {j} - {lo} < {op.max_trip}")

    def _next_pass(self, dot: Dot) -> None:
        """The loads of the pass to come that may be made once this dot is staged."""
        loop = self.loops[-1] if self.loops else None
        ahead = self.ahead.get(loop.induction.id, {}).get(dot.result.id) if loop else None
        if loop and ahead:
            self._early(loop, ahead, f"v{loop.induction.id} + 1")

    def _early(self, loop: Loop, ahead: Ahead, number: str, *, first: bool = False) -> None:
        """Loads of the pass of that number, if there is one."""
        self.lines.add(f"{{ const int next = {number};")
        with self.lines.indented():
            self.lines.add(f"const int v{loop.induction.id} = next;")
            # Of the first pass it is often known that there is one.
            sure = first and self.facts.exact_trip(loop)
            self.lines.add("{" if sure else f"if ({self._goes_on(loop)}) {{")
            with self.lines.indented():
                self.block(ahead.scalars)
                for load in ahead.loads:
                    self._load(load)
            self.lines.add("}")
        self.lines.add("}")

    def _copied(self, value: Value) -> Callable[[Slot], str]:
        return lambda slot: self.names.element(value, slot)

    def _carry_over(self, op: Loop) -> None:
        """Yields become carries; those that are carries themselves are copied out first."""
        own = [f"v{carry.id}" for carry in op.carries]
        sources = [self.names[value] for value in op.yields]
        for position, value in enumerate(op.yields):
            if sources[position] in own and sources[position] != own[position]:
                copy = f"c{op.carries[position].id}"
                self.lines.define(self.placement.main, value, self._copied(value), name=copy)
                sources[position] = copy
        for position, carry in enumerate(op.carries):
            if sources[position] != own[position]:
                self.lines.assign(self.placement.main, carry, sources[position])

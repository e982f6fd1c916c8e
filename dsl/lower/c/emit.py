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
    defined,
    walk,
)
from dsl.ir.types import RefType, Shape, Value
from dsl.lower.c.dialects import Dialect, parameter_name
from dsl.lower.c.exchange import Exchange
from dsl.lower.c.expressions import Expressions
from dsl.lower.c.layout import Layout, row_layout
from dsl.lower.c.lines import Lines, Slot
from dsl.lower.c.names import literal
from dsl.lower.c.shared import Pool, TooMuchShared, plan

MAX_SLOTS = 512
"""Registers that one tile may take of a thread: beyond, compilers spill for minutes."""


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
    """

    source: str
    entry: str
    parameters: tuple[RefType, ...]
    blocks: int
    threads: int
    shared_bytes: int


def emit(kernel: Kernel, dialect: Dialect, layout: Layout | None = None) -> Program:
    """The source of `kernel`. Raises Unsupported.

    Outputs that the kernel may not fully store must be zero before the launch, except for inout ones.
    """
    layout = layout or choose_layout(kernel)
    _check(kernel, layout)
    try:
        shared = plan(kernel, layout, dialect.shared_limit)
    except TooMuchShared as reason:
        raise Unsupported(f"{dialect.name}: {reason}") from None
    entry = f"{kernel.name}_kernel"
    lines = Lines()
    _Emitter(kernel, dialect, layout, lines, Pool(shared)).block(kernel.body)
    body = lines.text()
    pool = f"  {dialect.shared.format(count=shared.count)}\n" if shared.count else ""
    named = _parameters(kernel)
    head = dialect.signature(entry, named, layout.threads)
    source = f"{dialect.prologue}{dialect.definitions(body)}\n{head}{pool}{body}}}\n"
    refs = tuple(ref for ref, _ in named)
    return Program(source, entry, refs, math.prod(kernel.grid), layout.threads, 4 * shared.count)


def _parameters(kernel: Kernel) -> list[tuple[RefType, str]]:
    """The order in which XLA hands over buffers: operands, then results."""
    operands = [(ref, parameter_name(ref)) for ref in kernel.inputs]
    same = {ref.name: f"{ref.name}_result" for ref in kernel.outputs if ref.role == "inout"}
    return operands + [(ref, same.get(ref.name, parameter_name(ref))) for ref in kernel.outputs]


def choose_layout(kernel: Kernel) -> Layout:
    """No more warps than the tallest tile has rows; eight when four would hold too much of a tile."""
    shapes = _shapes(kernel)
    rows = max((shape[0] for shape in shapes), default=1)
    warps = 1
    while warps < 4 and warps < rows:
        warps *= 2
    crowded = any(math.prod(row_layout(warps).slots(shape)) > 64 for shape in shapes)
    return row_layout(8 if crowded and rows >= 8 else warps)


def _shapes(kernel: Kernel) -> list[Shape]:
    return [value.shape for op in walk(kernel.body) for value in defined(op) if value.shape]


def _check(kernel: Kernel, layout: Layout) -> None:
    for ref in kernel.refs:
        if math.prod(ref.shape) >= 2**31:
            raise Unsupported(f"{ref.name} has 2^31 elements or more, and positions are 32-bit")
    if math.prod(kernel.grid) >= 2**31:
        raise Unsupported("the grid has 2^31 programs or more; use larger tiles")
    for shape in _shapes(kernel):
        slots = math.prod(layout.slots(shape))
        if slots > MAX_SLOTS:
            raise Unsupported(
                f"a tile of {shape} takes {slots} registers of each of {layout.threads} threads, "
                f"at most {MAX_SLOTS}; use smaller tiles or loop over them"
            )


class _Emitter:
    """Emits ops in order; what goes through shared memory is left to `Exchange`."""

    def __init__(self, kernel: Kernel, dialect: Dialect, layout: Layout, lines: Lines, pool: Pool) -> None:
        self.kernel = kernel
        self.facts = Ranges(kernel)
        self.lines = lines
        self.layout = layout
        self.pool = pool
        self.expressions = Expressions(kernel, self.facts, dialect, layout)
        self.names = self.expressions.names
        self.exchange = Exchange(lines, layout, dialect, self.names, pool)

    def block(self, body: tuple[Op, ...]) -> None:
        for op in body:
            self.op(op)

    def op(self, op: Op) -> None:
        match op:
            case Const(result=result, value=value):
                self.names.give(result, literal(value, result.dtype))
            case Full(result=result, value=value):
                self.lines.define(self.layout, result, lambda slot: literal(value, result.dtype))
            case Pid(result=result, axis=axis):
                self.lines.add(f"const int v{result.id} = {self._pid(axis)};")
            case Iota(result=result, start=start, axis=axis):
                self.lines.define(
                    self.layout, result, lambda slot: self.expressions.iota(result, start, axis, slot)
                )
            case Load(result=result):
                self.lines.define(self.layout, result, lambda slot: self.expressions.load(op, slot))
            case Store() | AtomicAdd():
                shape = self.expressions.window_shape(op)
                self.lines.nest(self.layout, shape, lambda slot: self.expressions.write(op, slot))
            case Reduce():
                self.exchange.reduce(op)
            case Dot():
                self.exchange.dot(op)
            case Loop():
                self._loop(op)
            case Cast(result=result, operand=operand) if result.dtype == operand.dtype:
                self.names.give(result, self.names[operand])
            case _:
                result = op.results[0]
                self.lines.define(self.layout, result, lambda slot: self.expressions.elementwise(op, slot))

    def _pid(self, axis: int) -> str:
        inner = math.prod(self.kernel.grid[axis + 1 :])
        extent = self.kernel.grid[axis]
        if extent == 1:
            return "0"
        divided = "block" if inner == 1 else f"block / {inner}"
        return divided if math.prod(self.kernel.grid[:axis]) == 1 else f"{divided} % {extent}"

    def _loop(self, op: Loop) -> None:
        for carry, final, init in zip(op.carries, op.finals, op.init, strict=True):
            self.lines.define(self.layout, carry, self._copied(init), constant=False)
            self.names.give(final, f"v{carry.id}")
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
        j = f"v{op.induction.id}"
        lo, hi = self.names[op.lo], self.names[op.hi]
        end = "" if op.max_trip is None else f" && {j} - {lo} < {op.max_trip}"
        self.lines.add(f"for (int {j} = {lo}; {j} < {hi}{end}; ++{j}) {{")
        with self.lines.indented():
            self.block(op.body)
            self._carry_over(op)
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
                self.lines.define(self.layout, value, self._copied(value), name=copy)
                sources[position] = copy
        for position, carry in enumerate(op.carries):
            if sources[position] != own[position]:
                self.lines.assign(self.layout, carry, sources[position])

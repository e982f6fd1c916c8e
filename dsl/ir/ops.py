"""The operations, as frozen dataclasses. Their meaning is on the page that opens `dsl.ir`."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self, TypeAlias

from dsl.ir.types import Loc, RefType, Value

UnaryKind: TypeAlias = Literal[
    "exp", "log", "tanh", "rsqrt", "sqrt", "erf", "round", "abs", "popcount", "not"
]
BinaryKind: TypeAlias = Literal[
    "add", "sub", "mul", "div", "idiv", "mod", "max", "min", "ge", "lt", "eq", "and", "or", "xor", "shr"
]
ReduceKind: TypeAlias = Literal["sum", "max", "min"]
ValueMap: TypeAlias = Callable[[Value], Value]


@dataclass(frozen=True)
class At:
    """One position of a Ref's axis."""

    start: Value


@dataclass(frozen=True)
class Span:
    """`size` positions of a Ref's axis from `start`, along axis `tile_axis` of the tile."""

    start: Value
    size: int
    tile_axis: int


Index: TypeAlias = tuple[At | Span, ...]


@dataclass(frozen=True)
class Op:
    """Base of all ops. `loc` is where the user wrote it; it does not take part in equality."""

    uses: ClassVar[tuple[str, ...]] = ()
    defines: ClassVar[tuple[str, ...]] = ("result",)
    loc: Loc | None = field(default=None, compare=False, kw_only=True, repr=False)

    @property
    def operands(self) -> tuple[Value, ...]:
        """Values used by the op itself; those used inside a loop's body are not listed."""
        return tuple(_leaves(getattr(self, name) for name in self.uses))

    @property
    def results(self) -> tuple[Value, ...]:
        """Values defined for the ops that follow."""
        return tuple(_leaves(getattr(self, name) for name in self.defines))

    def map_values(self, f: ValueMap) -> Self:
        """The same op with every Value in it replaced: used, defined, and inside a loop's body."""
        changed = {
            item.name: _mapped(getattr(self, item.name), f)
            for item in dataclasses.fields(self)
            if item.name != "loc"
        }
        return dataclasses.replace(self, **changed)


def _leaves(items: Iterable[Any]) -> Iterator[Value]:
    for item in items:
        if isinstance(item, Value):
            yield item
        elif isinstance(item, At | Span):
            yield item.start
        elif isinstance(item, tuple):
            yield from _leaves(item)


def _mapped(item: Any, f: ValueMap) -> Any:
    if isinstance(item, Value):
        return f(item)
    if isinstance(item, At | Span):
        return dataclasses.replace(item, start=f(item.start))
    if isinstance(item, Op):
        return item.map_values(f)
    if isinstance(item, tuple):
        return tuple(_mapped(part, f) for part in item)
    return item


@dataclass(frozen=True)
class Const(Op):
    result: Value
    value: bool | int | float


@dataclass(frozen=True)
class Full(Op):
    result: Value
    value: bool | int | float


@dataclass(frozen=True)
class Pid(Op):
    result: Value
    axis: int


@dataclass(frozen=True)
class Iota(Op):
    uses = ("start",)
    result: Value
    start: Value
    axis: int


@dataclass(frozen=True)
class Load(Op):
    uses = ("index",)
    result: Value
    ref: str
    index: Index
    other: int | float


@dataclass(frozen=True)
class Store(Op):
    uses = ("index", "value")
    defines = ()
    ref: str
    index: Index
    value: Value


@dataclass(frozen=True)
class AtomicAdd(Op):
    uses = ("index", "value")
    defines = ()
    ref: str
    index: Index
    value: Value


@dataclass(frozen=True)
class Unary(Op):
    uses = ("operand",)
    result: Value
    kind: UnaryKind
    operand: Value


@dataclass(frozen=True)
class Binary(Op):
    uses = ("left", "right")
    result: Value
    kind: BinaryKind
    left: Value
    right: Value


@dataclass(frozen=True)
class Where(Op):
    uses = ("condition", "left", "right")
    result: Value
    condition: Value
    left: Value
    right: Value


@dataclass(frozen=True)
class Cast(Op):
    uses = ("operand",)
    result: Value
    operand: Value


@dataclass(frozen=True)
class Reduce(Op):
    uses = ("operand",)
    result: Value
    kind: ReduceKind
    operand: Value
    axis: int


@dataclass(frozen=True)
class Dot(Op):
    uses = ("left", "right")
    result: Value
    left: Value
    right: Value
    transpose_b: bool


@dataclass(frozen=True)
class Loop(Op):
    uses = ("lo", "hi", "init")
    defines = ("finals",)
    finals: tuple[Value, ...]
    induction: Value
    lo: Value
    hi: Value
    carries: tuple[Value, ...]
    init: tuple[Value, ...]
    body: tuple[Op, ...]
    yields: tuple[Value, ...]
    max_trip: int | None = None


Access: TypeAlias = Load | Store | AtomicAdd
Write: TypeAlias = Store | AtomicAdd


@dataclass(frozen=True)
class Kernel:
    """A traced kernel, specialised to the shapes and dtypes of its Refs."""

    name: str
    refs: tuple[RefType, ...]
    grid: tuple[int, ...]
    body: tuple[Op, ...]

    def __str__(self) -> str:
        """The canonical text of `dsl.ir.text`."""
        from dsl.ir.text import print_kernel

        return print_kernel(self)

    def ref(self, name: str) -> RefType:
        return next(ref for ref in self.refs if ref.name == name)

    @property
    def inputs(self) -> tuple[RefType, ...]:
        """What a caller passes, in order: Refs of role in and inout."""
        return tuple(ref for ref in self.refs if ref.role != "out")

    @property
    def outputs(self) -> tuple[RefType, ...]:
        """What a caller gets back, in order: Refs of role out and inout."""
        return tuple(ref for ref in self.refs if ref.is_written)


def walk(body: Iterable[Op]) -> Iterator[Op]:
    """All ops, a loop before the ops of its body."""
    for op in body:
        yield op
        if isinstance(op, Loop):
            yield from walk(op.body)


def defined(op: Op) -> tuple[Value, ...]:
    """All that an op defines itself: results, and for a loop also its induction and carries."""
    return (*op.finals, op.induction, *op.carries) if isinstance(op, Loop) else op.results


def has_effect(op: Op) -> bool:
    """True when the op, or an op inside it, writes."""
    return any(isinstance(inner, Store | AtomicAdd) for inner in walk((op,)))


def renumber(kernel: Kernel) -> Kernel:
    """The same kernel with ids 0, 1, 2, ... in textual order of definition."""
    order = [value for op in walk(kernel.body) for value in defined(op)]
    names = {value.id: number for number, value in enumerate(order)}
    body = tuple(op.map_values(lambda v: dataclasses.replace(v, id=names[v.id])) for op in kernel.body)
    return dataclasses.replace(kernel, body=body)

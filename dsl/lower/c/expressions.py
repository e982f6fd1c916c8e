"""The C expression of one element of each op that stays within a thread."""

from dsl.ir.affine import Ranges
from dsl.ir.infer import window
from dsl.ir.ops import Binary, Cast, Kernel, Load, Op, Store, Unary, Where, Write
from dsl.ir.types import FLOATS, NIBBLES, DType, RefType, Shape, Value
from dsl.lower.c.dialects import Dialect
from dsl.lower.c.lines import Slot
from dsl.lower.c.names import Names, literal
from dsl.lower.c.placement import Placement
from dsl.lower.c.windows import Windows

_SIGNS = {"add": "+", "sub": "-", "mul": "*", "div": "/", "ge": ">=", "lt": "<", "eq": "==", "shr": ">>"}
_BITS = {"and": "&", "or": "|", "xor": "^"}
_LOGIC = {"and": "&&", "or": "||", "xor": "!="}


class Expressions:
    """Expressions of one kernel in a dialect, each tile in its layout."""

    def __init__(self, kernel: Kernel, facts: Ranges, dialect: Dialect, placement: Placement) -> None:
        self.facts = facts
        self.dialect = dialect
        self.placement = placement
        self.names = Names()
        self.refs = {ref.name: ref for ref in kernel.refs}
        self.windows = Windows(facts, self.names)

    def window_shape(self, op: Write) -> Shape:
        return window(self.refs[op.ref], op.index)

    def iota(self, result: Value, start: Value, axis: int, slot: Slot) -> str:
        coordinate = self.placement.of(result).coordinate(axis, result.shape, slot)
        first = self.names[start]
        return coordinate if first == "0" else first if coordinate == "0" else f"{first} + {coordinate}"

    def load(self, op: Load, slot: Slot) -> str:
        ref = self.refs[op.ref]
        layout = self.placement.of(op.result)
        place = self.windows.place(ref, op.index, op.result.shape, layout, slot, write=False)
        if ref.dtype in NIBBLES:
            found = f"{ref.dtype}({place.element}, {place.last})"
        elif ref.dtype in ("i8", "u8"):
            found = f"int({place.element})"
        elif ref.dtype in ("f16", "bf16") and place.guards:
            found = f"({self.dialect.types[ref.dtype]}){place.element}"  # as the zero beside it
        else:
            found = place.element
        return place.guarded(found, self.literal(op.other, op.result.dtype))

    def literal(self, value: bool | int | float, dtype: DType) -> str:
        """A constant as a thread holds it."""
        if dtype in ("f16", "bf16") and value == 0:
            return self.dialect.zero(dtype)
        return literal(value, dtype)

    def write(self, op: Write, slot: Slot) -> str:
        ref = self.refs[op.ref]
        shape = self.window_shape(op)
        place = self.windows.place(ref, op.index, shape, self.placement.main, slot, write=True)
        value = self.names.element(op.value, slot)
        if isinstance(op, Store):
            statement = f"{place.element} = {self._narrowed(ref, value)};"
        else:
            statement = self.dialect.atomic(ref, place.element, value)
        return f"if ({' && '.join(place.guards)}) {statement}" if place.guards else statement

    def _narrowed(self, ref: RefType, value: str) -> str:
        return f"({self.dialect.types[ref.dtype]})({value})" if ref.dtype in ("i8", "u8") else value

    def elementwise(self, op: Op, slot: Slot) -> str:
        """Unary, Binary, Where or Cast."""
        at = [self.names.element(value, slot) for value in op.operands]
        match op:
            case Unary(kind="abs", operand=operand) if operand.dtype == "i32":
                return f"abs({at[0]})"
            case Unary(kind=kind):
                return self.dialect.functions[kind].format(*at)
            case Binary():
                return self._binary(op, at)
            case Where():
                return f"{at[0]} ? {at[1]} : {at[2]}"
            case Cast(result=result, operand=operand):
                return _cast(operand.dtype, result.dtype, at[0])
        raise TypeError(f"unknown op {type(op).__name__}")

    def _binary(self, op: Binary, at: list[str]) -> str:
        kind, dtype = op.kind, op.left.dtype
        if kind in ("max", "min"):
            return joined(self.dialect, kind, dtype, *at)
        if kind in ("idiv", "mod"):
            return f"floor_{'div' if kind == 'idiv' else 'mod'}({at[0]}, {at[1]})"
        if kind in _BITS:
            return f"{at[0]} {(_LOGIC if dtype == 'bool' else _BITS)[kind]} {at[1]}"
        if dtype == "i32" and kind in ("add", "sub", "mul") and not self._small(op.result):
            return f"int(unsigned({at[0]}) {_SIGNS[kind]} unsigned({at[1]}))"
        return f"{at[0]} {_SIGNS[kind]} {at[1]}"

    def _small(self, value: Value) -> bool:
        """True when an i32 surely does not wrap (signed overflow is undefined in C)."""
        if value.shape:
            return False
        low, high = self.facts.interval(value)
        return low is not None and high is not None and low >= -(2**31) and high < 2**31


def joined(dialect: Dialect, kind: str, dtype: str, a: str, b: str) -> str:
    """a + b, or the greater or lesser of them: the step of a reduction."""
    if kind == "sum":
        return f"{a} + {b}" if dtype == "f32" else f"int(unsigned({a}) + unsigned({b}))"
    return dialect.functions[kind].format(a, b) if dtype == "f32" else f"{kind}({a}, {b})"


def widened(dtype: str, x: str) -> str:
    """An element of a narrow float tile as a float; others as they are."""
    return f"from_{dtype}({x})" if dtype in ("f16", "bf16") else x


def _cast(old: str, new: str, x: str) -> str:
    wide = widened(old, x)
    if new == "bool":
        return f"{wide} != 0"
    if new == "i32":
        return f"int({wide})" if old == "bool" else f"truncate({wide})"
    if new in ("f16", "bf16"):
        return f"to_{new}({wide if old in FLOATS else f'float({wide})'})"
    return wide if old in FLOATS else f"float({wide})"

"""The C expression of one element of each op that stays within a thread."""

from dsl.ir.affine import Ranges
from dsl.ir.infer import window
from dsl.ir.ops import Binary, Cast, Kernel, Load, Op, Store, Unary, Where, Write
from dsl.ir.types import NIBBLES, RefType, Shape, Value
from dsl.lower.c.dialects import Dialect
from dsl.lower.c.layout import Layout
from dsl.lower.c.lines import Slot
from dsl.lower.c.names import Names, literal
from dsl.lower.c.windows import Windows

_SIGNS = {"add": "+", "sub": "-", "mul": "*", "div": "/", "ge": ">=", "lt": "<", "eq": "==", "shr": ">>"}
_BITS = {"and": "&", "or": "|", "xor": "^"}
_LOGIC = {"and": "&&", "or": "||", "xor": "!="}


class Expressions:
    """Expressions of one kernel in a dialect and a layout."""

    def __init__(self, kernel: Kernel, facts: Ranges, dialect: Dialect, layout: Layout) -> None:
        self.facts = facts
        self.dialect = dialect
        self.layout = layout
        self.names = Names()
        self.refs = {ref.name: ref for ref in kernel.refs}
        self.windows = Windows(facts, layout, self.names)

    def window_shape(self, op: Write) -> Shape:
        return window(self.refs[op.ref], op.index)

    def iota(self, result: Value, start: Value, axis: int, slot: Slot) -> str:
        coordinate = self.layout.coordinate(axis, result.shape, slot)
        first = self.names[start]
        return coordinate if first == "0" else first if coordinate == "0" else f"{first} + {coordinate}"

    def load(self, op: Load, slot: Slot) -> str:
        ref = self.refs[op.ref]
        place = self.windows.place(ref, op.index, op.result.shape, slot, write=False)
        if ref.dtype in NIBBLES:
            found = f"{ref.dtype}({place.element}, {place.last})"
        elif ref.dtype in ("f16", "bf16"):
            found = f"from_{ref.dtype}({place.element})"
        elif ref.dtype in ("i8", "u8"):
            found = f"int({place.element})"
        else:
            found = place.element
        return place.guarded(found, literal(op.other, op.result.dtype))

    def write(self, op: Write, slot: Slot) -> str:
        ref = self.refs[op.ref]
        shape = self.window_shape(op)
        place = self.windows.place(ref, op.index, shape, slot, write=True)
        value = self.names.element(op.value, slot)
        if isinstance(op, Store):
            statement = f"{place.element} = {self._narrowed(ref, value)};"
        else:
            statement = self.dialect.atomic(ref, place.element, value)
        return f"if ({' && '.join(place.guards)}) {statement}" if place.guards else statement

    def _narrowed(self, ref: RefType, value: str) -> str:
        if ref.dtype in ("f16", "bf16"):
            return f"to_{ref.dtype}({value})"
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


def _cast(old: str, new: str, x: str) -> str:
    if new == "bool":
        return f"{x} != 0"
    if new == "i32":
        return f"int({x})" if old == "bool" else f"truncate({x})"
    if new in ("f16", "bf16"):
        return f"from_{new}(to_{new}(float({x})))"
    return f"float({x})"

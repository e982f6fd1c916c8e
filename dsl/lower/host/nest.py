"""Loop nests over the elements of a tile: elementwise ops fused into the loop that needs them."""

from collections.abc import Callable

from dsl.ir.ops import Binary, Cast, Full, Iota, Load, Op, Unary, Where
from dsl.ir.types import NIBBLES, Value
from dsl.lower.host import names
from dsl.lower.host.windows import Window

LANES = 16
"""Columns are walked in chunks of this many where a reduction or nibbles need a fixed inner length."""


class Nest:
    """Statements for one element (`cells`) and for what is common to its row (`rows`), in order.

    `arrays` maps a value's id to the name of the array or scalar that holds it; `lazy` maps the ids of
    deferred ops to the op; `windows` gives the window and base pointer of a load.
    """

    def __init__(
        self,
        arrays: dict[int, str],
        lazy: dict[int, Op],
        windows: Callable[[Load], tuple[Window, str]],
    ) -> None:
        self._arrays = arrays
        self._lazy = lazy
        self._windows = windows
        self._known: dict[int, str] = {}
        self.rows: list[str] = []
        self.cells: list[str] = []

    def element(self, value: Value) -> str:
        """The C name of `value` at row r, column c, broadcast along axes of length 1."""
        if value.id in self._arrays:
            return self._stored(value)
        if value.id not in self._known:
            op = self._lazy[value.id]
            text = self.computed(op)
            name = f"e{value.id}"
            place = self.rows if not value.is_scalar and value.shape[1] == 1 else self.cells
            place.append(f"const {names.c_type(value.dtype)} {name} = {text};")
            self._known[value.id] = name
        return self._known[value.id]

    def _stored(self, value: Value) -> str:
        name = self._arrays[value.id]
        if value.is_scalar:
            return name
        rows, columns = value.shape
        terms = [f"r * {columns}" if columns > 1 else "r"] if rows > 1 else []
        terms += ["c"] if columns > 1 else []
        return f"{name}[{' + '.join(terms) or '0'}]"

    def computed(self, op: Op) -> str:
        match op:
            case Full(result=result, value=value):
                return names.constant(value, result.dtype)
            case Iota(result=result, start=start, axis=axis):
                place = f" + (int){'rc'[axis]}" if result.shape[axis] > 1 else ""
                return f"({self.element(start)}{place})"
            case Load():
                return self._loaded(op)
            case Unary(kind=kind, operand=operand):
                return names.unary(kind, operand.dtype, self.element(operand))
            case Binary(kind=binary_kind, left=left, right=right):
                return names.binary(binary_kind, self.element(left), self.element(right))
            case Where(condition=condition, left=left, right=right):
                return f"({self.element(condition)} ? {self.element(left)} : {self.element(right)})"
            case Cast(operand=operand, result=result):
                return names.cast(self.element(operand), operand.dtype, result.dtype)
        raise TypeError(f"{type(op).__name__} is not elementwise")

    def _loaded(self, op: Load) -> str:
        window, base = self._windows(op)
        if window.ref.dtype in NIBBLES:
            return self._nibble(window, base)
        return names.loaded(f"{base}[{offset(window)}]", window.ref.dtype)

    @staticmethod
    def _nibble(window: Window, base: str) -> str:
        """In chunks of 16 columns from c0, at c = c0 + lane: each chunk is one half of a group's bytes."""
        row = f"r * {window.strides[0] // 2} + " if window.sizes[0] > 1 else ""
        byte = f"{base}[{row}c0 / 32 * 16 + lane]"
        code = f"({byte} >> c0 / 16 % 2 * 4 & 15)"
        return f"(({code} ^ 8) - 8)" if window.ref.dtype == "i4" else code

    def has_nibbles(self, value: Value) -> bool:
        """True when computing `value` unpacks nibbles on the way."""
        if value.id in self._arrays:
            return False
        op = self._lazy[value.id]
        if isinstance(op, Load):
            return op.result.shape[1] > 1 and self._windows(op)[0].ref.dtype in NIBBLES
        return any(self.has_nibbles(operand) for operand in op.operands)


def offset(window: Window) -> str:
    """The distance of element (r, c) from the window's first, in elements; axes of length 1 broadcast."""
    terms = [
        f"{name} * {stride}L" if stride != 1 else name
        for name, size, stride in zip("rc", window.sizes, window.strides, strict=True)
        if size > 1
    ]
    return " + ".join(terms) or "0"

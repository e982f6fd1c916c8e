"""`Expr`, a traced scalar or tile, with Python's operators, and how numbers become values.

Arithmetic of f32 with i32 is f32; f16 and bf16 become f32; a Python number takes the other operand's
kind. `/` is always f32, `//` and `%` floor and are for i32. Axes of length 1 and scalars broadcast.
"""

from typing import Any, Literal, NoReturn, TypeAlias

import numpy as np

from dsl.ir.ops import BinaryKind, ReduceKind, UnaryKind
from dsl.ir.types import DTYPES, FLOATS, DType, Shape, Value
from dsl.lang.errors import KernelError, NoAttribute
from dsl.lang.scope import builder

Number: TypeAlias = bool | int | float
Operand: TypeAlias = "Expr | Number"
Axis: TypeAlias = Literal[0, 1]
FUNCTIONS = ("exp", "log", "tanh", "sqrt", "rsqrt", "erf", "popcount", "where", "dot", "maximum", "minimum")
_INSTEAD = {
    "T": "a tile is never transposed: dot(a, b, transpose_b=True) takes b as it lies, and x.column[r] "
    "reads a window as a column",
    "mean": "write t.sum(axis) * (1 / t.shape[axis])",
    "clip": "write minimum(maximum(t, low), high)",
    "round": "write dsl.round_(t)",
    "abs": "write abs(t)",
    "item": "its number is not known while the kernel is traced",
}
_NO_VALUE = {
    "NoneType": "nothing (None) is not a value of a kernel; does a function lack its `return`?",
    "tuple": "a tuple is not a value of a kernel; it takes one number or tile at a time",
    "list": "a list is not a value of a kernel; it takes one number or tile at a time",
    "Ref": "a Ref is an array, not a value; read a window of it, x[tile(start, size), :] or x[:, :]",
    "Tile": "a window is not a value; its positions are .rows() or .cols(), its first one .start",
}


class Expr:
    """A value of a kernel under trace: a scalar, shape (), or a tile, shape (rows, columns).

    Example:
        >>> t = x[rows, :].f32            # inside a kernel
        >>> o[rows, :] = exp(t - t.max(1))
    """

    __hash__ = None  # type: ignore[assignment]  # == builds an op, so two Exprs cannot be compared as keys

    def __init__(self, value: Value) -> None:
        self.value = value

    @property
    def shape(self) -> Shape:
        return self.value.shape

    @property
    def dtype(self) -> DType:
        return self.value.dtype

    def astype(self, dtype: str) -> "Expr":
        """The same numbers as f32, i32, bool, f16 or bf16; f32 -> i32 drops the fraction."""
        if dtype not in DTYPES:
            raise KernelError(f"there is no value dtype {dtype!r}; use one of {', '.join(DTYPES)}")
        return Expr(builder().cast(self.value, dtype))

    @property
    def f32(self) -> "Expr":
        return self.astype("f32")

    @property
    def i32(self) -> "Expr":
        return self.astype("i32")

    @property
    def f16(self) -> "Expr":
        return self.astype("f16")

    @property
    def bf16(self) -> "Expr":
        return self.astype("bf16")

    @property
    def boolean(self) -> "Expr":
        return self.astype("bool")

    def sum(self, axis: Axis) -> "Expr":
        """Sum along an axis of a tile, which stays with length 1."""
        return self._reduce("sum", axis)

    def max(self, axis: Axis) -> "Expr":
        return self._reduce("max", axis)

    def min(self, axis: Axis) -> "Expr":
        return self._reduce("min", axis)

    def _reduce(self, kind: ReduceKind, axis: Axis) -> "Expr":
        operand = builder().cast(self.value, _maths(self.dtype))
        return Expr(builder().reduce(kind, operand, axis))

    def __add__(self, other: Operand) -> "Expr":
        return binary("add", self, other)

    def __radd__(self, other: Number) -> "Expr":
        return binary("add", other, self)

    def __sub__(self, other: Operand) -> "Expr":
        return binary("sub", self, other)

    def __rsub__(self, other: Number) -> "Expr":
        return binary("sub", other, self)

    def __mul__(self, other: Operand) -> "Expr":
        return binary("mul", self, other)

    def __rmul__(self, other: Number) -> "Expr":
        return binary("mul", other, self)

    def __truediv__(self, other: Operand) -> "Expr":
        return binary("div", self, other)

    def __rtruediv__(self, other: Number) -> "Expr":
        return binary("div", other, self)

    def __floordiv__(self, other: Operand) -> "Expr":
        return binary("idiv", self, other)

    def __rfloordiv__(self, other: Number) -> "Expr":
        return binary("idiv", other, self)

    def __mod__(self, other: Operand) -> "Expr":
        return binary("mod", self, other)

    def __rmod__(self, other: Number) -> "Expr":
        return binary("mod", other, self)

    def __rshift__(self, other: Operand) -> "Expr":
        return binary("shr", self, other)

    def __rrshift__(self, other: Number) -> "Expr":
        return binary("shr", other, self)

    def __and__(self, other: Operand) -> "Expr":
        return binary("and", self, other)

    def __rand__(self, other: Number) -> "Expr":
        return binary("and", other, self)

    def __or__(self, other: Operand) -> "Expr":
        return binary("or", self, other)

    def __ror__(self, other: Number) -> "Expr":
        return binary("or", other, self)

    def __xor__(self, other: Operand) -> "Expr":
        return binary("xor", self, other)

    def __rxor__(self, other: Number) -> "Expr":
        return binary("xor", other, self)

    def __ge__(self, other: Operand) -> "Expr":
        return binary("ge", self, other)

    def __lt__(self, other: Operand) -> "Expr":
        return binary("lt", self, other)

    def __gt__(self, other: Operand) -> "Expr":
        return binary("lt", other, self)

    def __le__(self, other: Operand) -> "Expr":
        return binary("ge", other, self)

    def __eq__(self, other: Operand) -> "Expr":  # type: ignore[override]  # builds an op
        return binary("eq", self, other)

    def __ne__(self, other: Operand) -> "Expr":  # type: ignore[override]  # builds an op
        return ~binary("eq", self, other)

    def __neg__(self) -> "Expr":
        return binary("mul", self, -1)

    def __abs__(self) -> "Expr":
        return abs_(self)

    def __invert__(self) -> "Expr":
        return Expr(builder().unary("not", self.value)) if self.dtype == "bool" else binary("xor", self, -1)

    def __pow__(self, power: int) -> "Expr":
        if power not in (2, 3):
            raise KernelError(f"** {power} is not in the language; write a product, or exp(log(x) * {power})")
        return self * self if power == 2 else self * self * self

    def __rpow__(self, base: Number) -> NoReturn:
        raise KernelError(f"{base} ** t is not in the language; write exp(t * math.log({base}))")

    def __matmul__(self, other: object) -> NoReturn:
        raise KernelError("a @ b is written dot(a, b)")

    def __rmatmul__(self, other: object) -> NoReturn:
        raise KernelError("a @ b is written dot(a, b)")

    def __lshift__(self, other: object) -> NoReturn:
        raise KernelError("<< is not in the language; multiply by a power of two")

    def __rlshift__(self, other: object) -> NoReturn:
        raise KernelError("<< is not in the language; multiply by a power of two")

    def __divmod__(self, other: object) -> NoReturn:
        raise KernelError("divmod is not in the language; write a // b and a % b")

    def __round__(self, digits: int | None = None) -> NoReturn:
        raise KernelError("round() is written dsl.round_(t)")

    def __getattr__(self, name: str) -> NoReturn:
        told = f"write dsl.{name}(t)" if name in FUNCTIONS else _INSTEAD.get(name)
        has = "it has shape, dtype, astype, f32, i32, f16, bf16, boolean, sum, max and min"
        raise NoAttribute(f"a tile has no .{name}; {told or has}")

    def __format__(self, spec: str) -> str:
        if spec:
            raise KernelError("a traced value has no number to format yet; print it without a format")
        return repr(self)

    def __bool__(self) -> NoReturn:
        raise KernelError(
            "a traced value has no truth while the kernel is traced (Python `if`, `while`, `and`, "
            "`or`, `not`, "
            "`assert`); write where(condition, a, b), and & | ~ for logic"
        )

    def __index__(self) -> NoReturn:
        raise KernelError(
            "a traced value is not a Python integer (a size, a range, a list index); take it from x.shape or "
            "pass it as a keyword of the kernel, and use loop(lo, hi, body, init) to repeat"
        )

    def __int__(self) -> NoReturn:
        raise KernelError(
            "a traced value cannot become a Python int; write .i32 to cast it inside the kernel"
        )

    def __float__(self) -> NoReturn:
        raise KernelError(
            "a traced value cannot become a Python float; write .f32 to cast it inside the kernel"
        )

    def __iter__(self) -> NoReturn:
        raise KernelError(
            "a tile cannot be unpacked or iterated; use a reduction, or loop over smaller windows"
        )

    def __len__(self) -> NoReturn:
        raise KernelError("len() of a traced value; use .shape, which is static")

    def __getitem__(self, index: object) -> NoReturn:
        raise KernelError("a tile cannot be indexed; load a smaller window from the Ref instead")

    def __setitem__(self, index: object, value: object) -> NoReturn:
        raise KernelError(
            "a tile cannot be assigned to; build a new one with where(...), or store to an output"
        )

    def __array__(self, *args: object, **kwargs: object) -> NoReturn:
        raise KernelError(
            "NumPy and JAX functions do not take traced tiles; use those of dsl (dsl.exp, dsl.where, ...)"
        )

    def __repr__(self) -> str:
        return f"Expr(%{self.value.id}: {self.dtype}{list(self.shape)})"


def _maths(dtype: DType) -> DType:
    """The dtype in which arithmetic on `dtype` is done."""
    return "f32" if dtype in FLOATS else "i32"


def lift(x: Any, dtype: DType | None = None) -> Value:
    """An IR value from an Expr or a Python number, cast to `dtype` if given."""
    if isinstance(x, Expr):
        return builder().cast(x.value, dtype) if dtype else x.value
    if isinstance(x, bool | np.bool_):
        return builder().const(bool(x) if dtype in (None, "bool") else float(x), dtype or "bool")
    if isinstance(x, int | np.integer):
        if dtype in (None, "i32") and not -(2**31) <= int(x) < 2**31:
            raise KernelError(f"{x} does not fit i32; write it as a float")
        return builder().const(int(x), dtype or "i32")
    if isinstance(x, float | np.floating):
        return builder().const(float(x), dtype or "f32")
    raise KernelError(_NO_VALUE.get(type(x).__name__) or _no_value(x))


def _no_value(x: object) -> str:
    if hasattr(x, "dtype"):
        return (
            "an array is not a value of a kernel; pass it as an argument and read its Ref by windows, "
            "x[tile(start, size), :]; a number of its own by float(...)"
        )
    return f"{type(x).__name__} is not a value of a kernel; it takes Python numbers, tiles and scalars"


def _dtype_of(x: Operand) -> DType:
    if isinstance(x, Expr):
        return x.dtype
    if isinstance(x, bool | np.bool_):
        return "bool"
    return "f32" if isinstance(x, float | np.floating) else "i32"


def common(*operands: Operand) -> DType:
    """f32 if any is a float, else i32 if any is an integer, else bool."""
    found = {_dtype_of(x) for x in operands}
    if found & set(FLOATS):
        return "f32"
    return "i32" if "i32" in found else "bool"


def binary(kind: BinaryKind, a: Operand, b: Operand) -> Expr:
    """Any two-operand op; raises KernelError for dtypes and shapes that do not go together."""
    dtype = common(a, b)
    if kind == "div":
        dtype = "f32"
    elif dtype == "bool" and kind not in ("and", "or", "xor"):
        dtype = "i32"
    return Expr(builder().binary(kind, lift(a, dtype), lift(b, dtype)))


def unary(kind: UnaryKind, x: Operand) -> Expr:
    """Any one-operand op of f32."""
    return Expr(builder().unary(kind, lift(x, "f32")))


def abs_(x: Operand) -> Expr:
    return Expr(builder().unary("abs", lift(x, _maths(_dtype_of(x)))))

"""`Expr`, a traced scalar or tile, with Python's operators; and the free functions of the language.

Arithmetic of f32 with i32 is f32; f16 and bf16 become f32; a Python number takes the other operand's
kind. `/` is always f32, `//` and `%` floor and are for i32. Axes of length 1 and scalars broadcast.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NoReturn, TypeAlias, cast

import numpy as np

from dsl.ir.ops import BinaryKind, ReduceKind, UnaryKind
from dsl.ir.types import DTYPES, FLOATS, DType, Shape, Value
from dsl.lang.errors import KernelError
from dsl.lang.scope import builder

Number: TypeAlias = bool | int | float
Operand: TypeAlias = "Expr | Number"
Axis: TypeAlias = Literal[0, 1]


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
    raise KernelError(
        f"{type(x).__name__} is not a value of a kernel; arrays come in as Refs and are read by windows, "
        "x[tile(start, size), :]"
    )


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


def exp(x: Operand) -> Expr:
    return unary("exp", x)


def log(x: Operand) -> Expr:
    return unary("log", x)


def tanh(x: Operand) -> Expr:
    return unary("tanh", x)


def sqrt(x: Operand) -> Expr:
    return unary("sqrt", x)


def rsqrt(x: Operand) -> Expr:
    """1 / sqrt(x)."""
    return unary("rsqrt", x)


def erf(x: Operand) -> Expr:
    return unary("erf", x)


def round_(x: Operand) -> Expr:
    """The nearest whole number, halves to even; still f32."""
    return unary("round", x)


def abs_(x: Operand) -> Expr:
    return Expr(builder().unary("abs", lift(x, _maths(_dtype_of(x)))))


def popcount(x: Operand) -> Expr:
    """Number of set bits of an i32, as two's complement."""
    return Expr(builder().unary("popcount", lift(x)))


def maximum(a: Operand, b: Operand) -> Expr:
    return binary("max", a, b)


def minimum(a: Operand, b: Operand) -> Expr:
    return binary("min", a, b)


def where(condition: Operand, a: Operand, b: Operand) -> Expr:
    """`a` where the condition holds, else `b`; both are computed."""
    dtype = common(a, b)
    return Expr(builder().where(lift(condition), lift(a, dtype), lift(b, dtype)))


def dot(a: Expr, b: Expr, *, transpose_b: bool = False) -> Expr:
    """(M, K) @ (K, N), or with `transpose_b` (M, K) @ (N, K)^T -> f32 (M, N), summed in f32."""
    if not isinstance(a, Expr) or not isinstance(b, Expr):
        raise KernelError("dot takes two tiles; use * for a number")
    same = a.dtype == b.dtype and a.dtype in FLOATS
    left, right = (a.value, b.value) if same else (lift(a, "f32"), lift(b, "f32"))
    return Expr(builder().dot(left, right, transpose_b))


def full(shape: tuple[int, int], value: Number, dtype: str = "f32") -> Expr:
    """A tile of one Python number; `shape` is static."""
    if dtype not in ("f32", "i32", "bool"):
        raise KernelError(f"full makes f32, i32 or bool tiles, not {dtype!r}")
    if isinstance(cast(object, value), Expr):
        raise KernelError("full takes a Python number; write zeros(shape) + x to spread a traced scalar")
    return Expr(builder().full(static_shape(shape), value, dtype))  # type: ignore[arg-type]


def zeros(shape: tuple[int, int], dtype: str = "f32") -> Expr:
    return full(shape, 0, dtype)


def static_shape(shape: Any) -> Shape:
    """Two Python ints >= 1. Raises KernelError."""
    sizes = tuple(shape) if isinstance(shape, tuple | list) else (shape,)
    if len(sizes) != 2:
        raise KernelError(f"a tile has two axes, rows and columns, and {sizes!r} has {len(sizes)}")
    return tuple(static_size(size) for size in sizes)


def static_size(size: Any) -> int:
    """A Python int >= 1. Raises KernelError."""
    if isinstance(size, Expr):
        raise KernelError(
            "a window's size must be static, and this one is computed in the kernel; use a keyword or "
            "x.shape for the size, and mask the rest with where(tile.rows() < limit, ...)"
        )
    if not isinstance(size, int | np.integer) or isinstance(size, bool) or size < 1:
        raise KernelError(f"a window's size is a Python int >= 1, not {size!r}")
    return int(size)


def pid(axis: int) -> Expr:
    """This program's coordinate on a grid axis, an i32 scalar."""
    if isinstance(cast(object, axis), Expr):
        raise KernelError("pid takes a Python int, the number of a grid axis")
    return Expr(builder().pid(axis))


def cdiv(a: Any, b: int) -> Any:
    """a / b rounded up, of Python ints or traced i32 scalars."""
    return (a + (b - 1)) // b if isinstance(a, Expr) else -(-a // b)


LoopBody: TypeAlias = Callable[[Expr, Any], Any]


def loop(lo: Operand, hi: Operand, body: LoopBody, init: Any = (), *, max_trip: int | None = None) -> Any:
    """Repeats `body(j, carry) -> carry` for j = lo .. hi - 1 and returns the last carry.

    `init` is one value or a tuple of values; `body` gets and returns the same structure, each of the
    same shape and dtype. `max_trip` bounds the number of passes when `hi` is data; with it, or with
    bounds made of pids and constants, the kernel has a gradient and may store inside the loop.
    """
    single = not isinstance(init, tuple | list)
    start = tuple(lift(value) for value in ((init,) if single else init))
    for bound in (lo, hi):
        if isinstance(bound, float):
            raise KernelError("a loop's bounds are integers; use // instead of /")

    def traced(j: Value, carries: tuple[Value, ...]) -> Sequence[Value]:
        given = tuple(Expr(carry) for carry in carries)
        result = body(Expr(j), given[0] if single else given)
        if result is None and not start:
            return ()
        return _yielded(result, single, start)

    finals = tuple(Expr(value) for value in builder().loop(lift(lo), lift(hi), start, traced, max_trip))
    return finals[0] if single else finals


def _yielded(result: Any, single: bool, start: tuple[Value, ...]) -> tuple[Value, ...]:
    if not single and not isinstance(result, tuple | list):
        raise KernelError(
            f"the loop started with {len(start)} carries and its body returned one value; return a tuple"
        )
    if single and isinstance(result, tuple | list):
        raise KernelError("the loop started with one carry and its body returned a tuple; return one value")
    values = (result,) if single else tuple(result)
    if len(values) != len(start):
        raise KernelError(f"the loop started with {len(start)} carries and its body returned {len(values)}")
    return tuple(
        lift(value, None if isinstance(value, Expr) else like.dtype)
        for value, like in zip(values, start, strict=True)
    )

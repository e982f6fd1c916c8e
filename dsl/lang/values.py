"""The free functions of the language: elementwise functions, tiles of one number, `dot`, `pid`, `loop`."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, cast

import numpy as np

from dsl.ir.types import FLOATS, Shape, Value
from dsl.lang.errors import KernelError
from dsl.lang.expr import Expr, Number, Operand, abs_, binary, common, lift, unary
from dsl.lang.scope import builder

__all__ = [
    "Expr",
    "Number",
    "Operand",
    "abs_",
    "cdiv",
    "dot",
    "erf",
    "exp",
    "full",
    "lift",
    "log",
    "loop",
    "maximum",
    "minimum",
    "pid",
    "popcount",
    "round_",
    "rsqrt",
    "sqrt",
    "static_size",
    "tanh",
    "where",
    "zeros",
]


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
    for operand in (a, b):
        if not isinstance(cast(object, operand), Expr):
            kind = type(operand).__name__
            raise KernelError(
                f"dot takes two tiles, not {kind}; read windows of Refs, and use * for a number"
            )
    same = a.dtype == b.dtype and a.dtype in FLOATS
    left, right = (a.value, b.value) if same else (lift(a, "f32"), lift(b, "f32"))
    return Expr(builder().dot(left, right, transpose_b))


def full(shape: tuple[int, int], value: Number, dtype: str = "f32") -> Expr:
    """A tile of one Python number; `shape` is static."""
    if dtype not in ("f32", "i32", "bool"):
        raise KernelError(f"full makes f32, i32 or bool tiles, not {dtype!r}")
    if not isinstance(cast(object, value), bool | int | float | np.number | np.bool_):
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
        divide = "; divide with //" if isinstance(size, float) else ""
        raise KernelError(f"a window's size is a Python int >= 1, not {size!r}{divide}")
    return int(size)


def pid(axis: int) -> Expr:
    """This program's coordinate on a grid axis, an i32 scalar."""
    if not isinstance(cast(object, axis), int | np.integer):
        raise KernelError("pid takes a Python int, the number of a grid axis")
    return Expr(builder().pid(int(axis)))


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

    _check_loop(body, max_trip)

    def traced(j: Value, carries: tuple[Value, ...]) -> Sequence[Value]:
        given = tuple(Expr(carry) for carry in carries)
        result = body(Expr(j), given[0] if single else given)
        if result is None and not start:
            return ()
        return _yielded(result, single, start)

    finals = tuple(Expr(value) for value in builder().loop(lift(lo), lift(hi), start, traced, max_trip))
    return finals[0] if single else finals


def _check_loop(body: LoopBody, max_trip: object) -> None:
    if max_trip is not None and (isinstance(max_trip, bool) or not isinstance(max_trip, int | np.integer)):
        raise KernelError(
            "max_trip is a Python int, the largest number of passes; the end itself may be data"
        )
    if not callable(body):
        raise KernelError(f"a loop's body is a function (j, carry) -> carry, not {type(body).__name__}")
    try:
        inspect.signature(body).bind(None, None)
    except TypeError:
        raise KernelError("a loop's body takes two arguments, the index and the carry: (j, carry)") from None


def _yielded(result: Any, single: bool, start: tuple[Value, ...]) -> tuple[Value, ...]:
    if result is None:
        raise KernelError("the loop's body returned nothing; return the carry for the next pass")
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

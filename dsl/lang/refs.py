"""Refs, the arrays of a kernel, and tiles, the windows through which they are read and written."""

from collections.abc import Callable
from typing import Any, NoReturn, TypeAlias, TypeVar, cast

import numpy as np

from dsl.ir.ops import At, Span
from dsl.ir.types import RefType, Shape, Storage, Value
from dsl.lang.errors import KernelError, NoAttribute
from dsl.lang.scope import builder
from dsl.lang.values import Expr, Operand, lift, static_size

Key: TypeAlias = Any
"""A tile, a slice with static bounds, an i32 scalar, or a tuple of these."""


_C = TypeVar("_C")
_OPERATORS = (
    *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor", "lshift"),
    *("rshift", "radd", "rsub", "rmul", "rtruediv", "rfloordiv", "rmod", "rpow", "rmatmul", "rand", "ror"),
    *("rxor", "neg", "abs", "invert", "round", "lt", "le", "gt", "ge", "eq", "ne", "len", "iter", "bool"),
    *("index", "int", "float", "array"),
)


def _no_value(told: str) -> Callable[[type[_C]], type[_C]]:
    """Makes every operator of a class, and every name it lacks, an error that says what to write."""

    def refuse(self: object, *_: object) -> NoReturn:
        raise KernelError(told.format(self=self))

    def lacks(self: object, name: str) -> NoReturn:
        raise NoAttribute(f"no .{name} here: {told.format(self=self)}")

    def decorate(made: type[_C]) -> type[_C]:
        for name in _OPERATORS:
            setattr(made, f"__{name}__", refuse)
        setattr(made, "__getattr__", lacks)  # noqa: B010  # one way for all of them
        setattr(made, "__hash__", object.__hash__)  # noqa: B010
        return made

    return decorate


@_no_value(
    "a tile(...) is a window; its positions are r.rows() or r.cols(), its first one r.start; x[r, :] reads it"
)
class Tile:
    """`size` positions from `start` along some axis; where it leaves the axis, it is masked."""

    def __init__(self, start: Operand, size: int) -> None:
        self.size = static_size(size)
        self.start = Expr(_position(start))

    def rows(self) -> Expr:
        """The positions as a column, i32 (size, 1)."""
        return Expr(builder().iota(self.start.value, self.size, 0))

    def cols(self) -> Expr:
        """The positions as a row, i32 (1, size)."""
        return Expr(builder().iota(self.start.value, self.size, 1))


def tile(start: Operand, size: int) -> Tile:
    """A window: `start` is a Python int or an i32 scalar of the kernel, `size` is static."""
    return Tile(start, size)


def _position(start: Any) -> Value:
    if isinstance(start, Tile):
        raise KernelError("a tile starts at a scalar; use other.start + offset")
    value = lift(start)
    if value.shape:
        raise KernelError(
            f"a window starts at one i32 scalar, not at a tile of {value.shape}: gathers are not windows; "
            "load all and choose with where(...)"
        )
    if value.dtype != "i32":
        raise KernelError(
            f"a window starts at an i32 scalar, not at {value.dtype}; divide with //, or write .i32"
        )
    return value


@_no_value(
    "{self} is an array; read a window of it, x[tile(start, size), :] or x[:, :], its sizes in x.shape"
)
class Ref:
    """An array of the kernel: `x[tile, :]` reads a window of an input, `o[tile, :] = t` writes one.

    An index has one entry an axis (missing ones are `:`): i32 scalars, up to two windows (a tile, `:`
    or `a:b`). Two windows make a tile (rows, columns); one makes a row (1, n), or with `.column` a
    column (n, 1); none makes a scalar.
    """

    def __init__(self, spec: RefType, *, as_column: bool = False) -> None:
        self._spec = spec
        self._as_column = as_column

    @property
    def shape(self) -> Shape:
        return self._spec.shape

    @property
    def dtype(self) -> Storage:
        return self._spec.dtype

    @property
    def column(self) -> "Ref":
        """The same array; indices with one window are columns (n, 1)."""
        return Ref(self._spec, as_column=True)

    def __getitem__(self, key: Key) -> Expr:
        return self.load(key)

    def load(self, key: Key, *, other: float = 0) -> Expr:
        """As `self[key]`, with `other` in place of what is out of range."""
        if not isinstance(cast(object, other), int | float | np.number):
            raise KernelError("other is a Python number; use where(...) for a traced one")
        return Expr(builder().load(self._spec.name, self._index(key), other))

    def __setitem__(self, key: Key, value: Operand) -> None:
        builder().store(self._spec.name, self._index(key), self._converted(value))

    def _converted(self, value: Operand) -> Value:
        if not self._spec.is_written:
            raise KernelError(f"{self._spec.name} is an input and cannot be stored to; pass it as out=")
        if (
            isinstance(value, Expr)
            and value.dtype in ("f32", "f16", "bf16")
            and self._spec.value_dtype == "i32"
        ):
            raise KernelError(
                f"{self._spec.name} holds integers and the value is {value.dtype}; write .i32 to drop "
                "the fraction"
            )
        return lift(value, self._spec.value_dtype)

    def _index(self, key: Key) -> tuple[At | Span, ...]:
        entries = list(key) if isinstance(key, tuple) else [key]
        if len(entries) > len(self.shape):
            raise KernelError(
                f"{self._spec.name} has {len(self.shape)} axes and the index has {len(entries)} entries"
            )
        entries += [slice(None)] * (len(self.shape) - len(entries))
        found = [self._entry(entry, axis) for axis, entry in enumerate(entries)]
        windows = [axis for axis, entry in enumerate(found) if isinstance(entry, Span)]
        if len(windows) > 2:
            raise KernelError(
                f"{self._spec.name}: the index leaves {len(windows)} windows and a tile has two axes; "
                "index the others with scalars, such as pid(0)"
            )
        first = 1 if len(windows) == 1 and not self._as_column else 0
        places = {axis: first + number for number, axis in enumerate(windows)}
        return tuple(
            Span(entry.start, entry.size, places[axis]) if isinstance(entry, Span) else entry
            for axis, entry in enumerate(found)
        )

    def _entry(self, entry: Any, axis: int) -> At | Span:
        if isinstance(entry, Tile):
            return Span(entry.start.value, entry.size, 0)
        if isinstance(entry, slice):
            start, size = self._slice(entry, axis)
            return Span(lift(start), size, 0)
        if isinstance(entry, int | np.integer) and not isinstance(entry, bool):
            return At(lift(self._within(int(entry), axis)))
        if isinstance(entry, Expr):
            return At(_position(entry))
        raise KernelError(
            f"{self._spec.name}: {type(entry).__name__} is no index; use tile(start, size), a "
            "scalar, `:` or `a:b`"
        )

    def _within(self, position: int, axis: int) -> int:
        extent = self.shape[axis]
        if not -extent <= position < extent:
            raise KernelError(
                f"{self._spec.name}: {position} is out of range on axis {axis} of length {extent}"
            )
        return position % extent

    def _slice(self, part: slice, axis: int) -> tuple[int, int]:
        if any(isinstance(bound, Expr | Tile) for bound in (part.start, part.stop, part.step)):
            raise KernelError(f"{self._spec.name}: a slice has static bounds; write tile(start, size)")
        start, stop, step = part.indices(self.shape[axis])
        if step != 1 or stop <= start:
            raise KernelError(
                f"{self._spec.name}: the slice on axis {axis} is empty or has a step; use a:b with a < b"
            )
        return start, stop - start

    def __repr__(self) -> str:
        return f"Ref({self._spec.name}: {self.dtype}{list(self.shape)} {self._spec.role})"


def atomic_add(ref: Ref, key: Key, value: Operand) -> None:
    """Adds to a window of an f32 or i32 output; windows of several programs may overlap.

    Float sums come out in any order, so the last bits may change from run to run.
    """
    if not isinstance(cast(object, ref), Ref):
        raise KernelError(
            "atomic_add takes the output itself, then the index: atomic_add(o, (row, columns), t)"
        )
    builder().atomic_add(ref._spec.name, ref._index(key), ref._converted(value))

"""The type of each op's result, from its operands: one set of rules for the builder and the verifier.

Every function raises `TypeProblem` with a message that says what to write instead; the builder and
the verifier add the place.
"""

from dsl.ir.ops import (
    AtomicAdd,
    Binary,
    BinaryKind,
    Cast,
    Dot,
    Full,
    Index,
    Iota,
    Load,
    Loop,
    Op,
    Pid,
    Reduce,
    Span,
    Store,
    Unary,
    UnaryKind,
    Where,
)
from dsl.ir.types import FLOATS, NIBBLE_GROUP, NIBBLES, DType, RefType, Shape, Value

FLOAT_UNARY = ("exp", "log", "tanh", "rsqrt", "sqrt", "erf", "round")
_INT = ("i32",)
_MATHS = ("f32", "i32")
BINARY_DTYPES: dict[BinaryKind, tuple[DType, ...]] = {
    "add": ("f32", "i32"),
    "sub": ("f32", "i32"),
    "mul": ("f32", "i32"),
    "max": ("f32", "i32"),
    "min": ("f32", "i32"),
    "ge": ("f32", "i32"),
    "lt": ("f32", "i32"),
    "eq": ("f32", "i32"),
    "div": ("f32",),
    "idiv": ("i32",),
    "mod": ("i32",),
    "shr": ("i32",),
    "and": ("i32", "bool"),
    "or": ("i32", "bool"),
    "xor": ("i32", "bool"),
}
COMPARISONS = ("ge", "lt", "eq")
Type = tuple[DType, Shape]


class TypeProblem(Exception):
    """A rule that an op breaks; becomes a KernelError with the user's place."""


def show(shape: Shape) -> str:
    return "a scalar" if shape == () else f"({shape[0]}, {shape[1]})"


def broadcast(*shapes: Shape) -> Shape:
    """The common shape of scalars and tiles, where an axis of length 1 stretches."""
    tiles = [shape for shape in shapes if shape]
    if not tiles:
        return ()
    result = tiles[0]
    for shape in tiles[1:]:
        if any(a != b and 1 not in (a, b) for a, b in zip(result, shape, strict=True)):
            raise TypeProblem(
                f"shapes {show(result)} and {show(shape)} do not broadcast; "
                "each axis must be equal or 1 in both tiles"
            )
        result = (max(result[0], shape[0]), max(result[1], shape[1]))
    return result


def unary(kind: UnaryKind, x: Value) -> Type:
    wanted: tuple[str, ...] = ("f32",)
    if kind == "abs":
        wanted = _MATHS
    elif kind == "popcount":
        wanted = _INT
    elif kind == "not":
        wanted = ("bool",)
    if x.dtype not in wanted:
        raise TypeProblem(
            f"{kind} takes {' or '.join(wanted)}, not {x.dtype}; cast with .f32, .i32 or .boolean"
        )
    return x.dtype, x.shape


def binary(kind: BinaryKind, a: Value, b: Value) -> Type:
    wanted = BINARY_DTYPES[kind]
    if a.dtype != b.dtype or a.dtype not in wanted:
        raise TypeProblem(
            f"{kind} takes two {' or '.join(wanted)}, not {a.dtype} and {b.dtype}; cast with .f32, "
            ".i32 or .boolean"
        )
    return ("bool" if kind in COMPARISONS else a.dtype), broadcast(a.shape, b.shape)


def where(condition: Value, a: Value, b: Value) -> Type:
    if condition.dtype != "bool":
        raise TypeProblem(
            f"where takes a bool condition, not {condition.dtype}; write a comparison such as x >= 0"
        )
    if a.dtype != b.dtype or a.dtype in ("f16", "bf16"):
        raise TypeProblem(
            f"where takes two f32, i32 or bool, not {a.dtype} and {b.dtype}; cast one with .f32"
        )
    return a.dtype, broadcast(condition.shape, a.shape, b.shape)


def reduce(operand: Value, axis: int) -> Type:
    if len(operand.shape) != 2:
        raise TypeProblem("a reduction takes a tile, not a scalar; load a window first")
    if axis not in (0, 1):
        raise TypeProblem(f"a tile has axes 0 and 1, not {axis}")
    if operand.dtype not in _MATHS:
        raise TypeProblem(f"a reduction takes f32 or i32, not {operand.dtype}; cast with .f32 or .i32")
    rows, columns = operand.shape
    return operand.dtype, ((1, columns) if axis == 0 else (rows, 1))


def dot(a: Value, b: Value, transpose_b: bool) -> Type:
    if len(a.shape) != 2 or len(b.shape) != 2:
        raise TypeProblem("dot takes two tiles, not scalars; use * for a scalar")
    if a.dtype != b.dtype or a.dtype not in FLOATS:
        raise TypeProblem(
            f"dot takes two f32, two f16 or two bf16, not {a.dtype} and {b.dtype}; cast with .f32"
        )
    columns, depth = b.shape if transpose_b else b.shape[::-1]
    if a.shape[1] != depth:
        other = "(N, K) with transpose_b" if transpose_b else "(K, N)"
        raise TypeProblem(
            f"dot of {show(a.shape)} and {show(b.shape)}: the inner lengths {a.shape[1]} and {depth} differ; "
            f"the second tile must be {other}"
        )
    return "f32", (a.shape[0], columns)


def window(ref: RefType, index: Index) -> Shape:
    """The shape of the tile that a window of `ref` is; () when there is no Span."""
    if len(index) != len(ref.shape):
        raise TypeProblem(f"{ref.name} has {len(ref.shape)} axes and the index has {len(index)} entries")
    for entry in index:
        if entry.start.dtype != "i32" or not entry.start.is_scalar:
            raise TypeProblem(
                f"{ref.name}: a window starts at an i32 scalar, not at {entry.start.dtype} "
                f"{show(entry.start.shape)}; "
                "gathers are not windows"
            )
    spans = [entry for entry in index if isinstance(entry, Span)]
    axes = [span.tile_axis for span in spans]
    if len(set(axes)) != len(axes) or not set(axes) <= {0, 1} or any(span.size < 1 for span in spans):
        raise TypeProblem(
            f"{ref.name}: an index leaves at most two tile axes, of length >= 1; index the others "
            "with scalars"
        )
    if not spans:
        return ()
    lengths = {span.tile_axis: span.size for span in spans}
    return (lengths.get(0, 1), lengths.get(1, 1))


def stored(ref: RefType, index: Index, value: Value, *, atomic: bool) -> None:
    """Checks a store or an atomic add."""
    if not ref.is_written:
        raise TypeProblem(f"{ref.name} is an input and cannot be stored to; pass it as out=")
    if atomic and ref.dtype not in ("f32", "i32"):
        raise TypeProblem(f"atomic_add takes an f32 or i32 Ref, and {ref.name} is {ref.dtype}")
    if value.dtype != ref.value_dtype:
        raise TypeProblem(f"{ref.name} stores {ref.value_dtype}, not {value.dtype}; cast the value")
    shape = window(ref, index)
    if not shape and value.shape:
        raise TypeProblem(f"{ref.name}: the index is one element and the value a tile {show(value.shape)}")
    if value.shape and any(n not in (1, extent) for n, extent in zip(value.shape, shape, strict=True)):
        raise TypeProblem(
            f"{ref.name}: the window is {show(shape)} and the value {show(value.shape)}; "
            "store a value of the window's shape, or one that broadcasts to it"
        )


def cast(operand: Value, dtype: DType) -> Type:
    return dtype, operand.shape


def loaded(ref: RefType, index: Index) -> Type:
    if ref.role != "in":
        raise TypeProblem(f"{ref.name} is an output and cannot be read; pass the array as an input as well")
    return ref.value_dtype, window(ref, index)


def check_ref(ref: RefType) -> None:
    if not ref.shape or any(extent < 1 for extent in ref.shape):
        raise TypeProblem(
            f"{ref.name} has shape {ref.shape}; a Ref has one axis or more, each of length >= 1"
        )
    if ref.dtype in NIBBLES and (ref.is_written or ref.shape[-1] % NIBBLE_GROUP):
        raise TypeProblem(
            f"{ref.name}: {ref.dtype} is for inputs whose last axis is a multiple of {NIBBLE_GROUP}"
        )


def loop(op: Loop) -> None:
    """Checks bounds, carries and yields; the body is checked op by op."""
    for bound in (op.lo, op.hi, op.induction):
        if bound.dtype != "i32" or not bound.is_scalar:
            raise TypeProblem(
                f"a loop runs from an i32 scalar to an i32 scalar, not {bound.dtype} {show(bound.shape)}"
            )
    lists = (op.finals, op.carries, op.init, op.yields)
    if len({len(values) for values in lists}) != 1:
        raise TypeProblem(f"a loop with {len(op.init)} carries must return as many, not {len(op.yields)}")
    for position, group in enumerate(zip(*lists, strict=True)):
        carry, out = group[1], group[3]
        if len({(value.dtype, value.shape) for value in group}) != 1:
            raise TypeProblem(
                f"loop carry {position} starts as {carry.dtype} {show(carry.shape)} and comes back as "
                f"{out.dtype} {show(out.shape)}; start it with the shape and dtype that the body returns"
            )
    if op.max_trip is not None and op.max_trip < 0:
        raise TypeProblem(f"max_trip is {op.max_trip}; give the largest number of passes, 0 or more")


def check(op: Op, refs: dict[str, RefType], grid: tuple[int, ...]) -> None:
    """Raises TypeProblem when `op`'s stated results are not what its operands give."""
    expected: Type | None = None
    match op:
        case Unary():
            expected = unary(op.kind, op.operand)
        case Binary():
            expected = binary(op.kind, op.left, op.right)
        case Where():
            expected = where(op.condition, op.left, op.right)
        case Reduce():
            expected = reduce(op.operand, op.axis)
        case Dot():
            expected = dot(op.left, op.right, op.transpose_b)
        case Load():
            expected = loaded(refs[op.ref], op.index)
        case Store() | AtomicAdd():
            stored(refs[op.ref], op.index, op.value, atomic=isinstance(op, AtomicAdd))
        case Loop():
            loop(op)
        case Cast():
            expected = cast(op.operand, op.result.dtype)
        case _:
            _check_source(op, grid)
    if expected is not None and (op.results[0].dtype, op.results[0].shape) != expected:
        found = op.results[0]
        raise TypeProblem(
            f"{type(op).__name__.lower()} gives {expected[0]} {show(expected[1])}, and the IR says "
            f"{found.dtype} {show(found.shape)}"
        )


def _check_source(op: Op, grid: tuple[int, ...]) -> None:
    """Const, Full, Pid and Iota: what has no tile operands."""
    result = op.results[0]
    if isinstance(op, Iota):
        lengths = result.shape[::-1] if op.axis == 0 else result.shape
        if (
            len(lengths) != 2
            or lengths[0] != 1
            or result.dtype != "i32"
            or op.start.shape
            or op.start.dtype != "i32"
        ):
            raise TypeProblem(f"iota along axis {op.axis} is an i32 row or column, not {show(result.shape)}")
    elif isinstance(op, Full):
        if len(result.shape) != 2 or min(result.shape) < 1:
            raise TypeProblem(f"a tile is (rows, columns) with both >= 1, not {result.shape}")
    elif result.shape:
        raise TypeProblem(f"{type(op).__name__.lower()} is a scalar")
    elif isinstance(op, Pid) and not 0 <= op.axis < len(grid):
        raise TypeProblem(f"pid({op.axis}): the grid has {len(grid)} axes; count from 0")

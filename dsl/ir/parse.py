"""Reads the text form of `dsl.ir.text` back: a line is one op, a block ends with `}`."""

import re
from typing import cast, get_args

from dsl.ir.ops import (
    At,
    AtomicAdd,
    Binary,
    BinaryKind,
    Cast,
    Const,
    Dot,
    Full,
    Index,
    Iota,
    Kernel,
    Load,
    Loop,
    Op,
    Pid,
    Reduce,
    ReduceKind,
    Span,
    Store,
    Unary,
    UnaryKind,
    Where,
    renumber,
)
from dsl.ir.types import DTYPES, STORAGES, DType, RefType, Role, Shape, Storage, Value
from dsl.lang.errors import ParseError

_HEAD = re.compile(r"kernel (\w+) grid\(([\d, ]+)\) \{")
_REF = re.compile(r"ref (\w+): (\w+)\[([\d, ]+)\] (in|out|inout)")
_RESULT = re.compile(r"%(\d+): (\w+)(?:\[(\d+), (\d+)\])?")
_LOOP = re.compile(r"loop %(\d+) in %(\d+)\.\.%(\d+)(?: carry (.*?))?(?: max_trip (\d+))? \{")
_ACCESS = re.compile(r"(\w+)\[(.*?)\](?:, %(\d+)| other (\S+))")
_ENTRY = re.compile(r"%(\d+)(?::(\d+)@([01]))?")
_NUMBER = re.compile(r"%(\d+)")
_NAMES = re.compile(r"%\d+(?:, %\d+)*")
_TYPED = re.compile(rf"{_RESULT.pattern}(?:, {_RESULT.pattern})*")
_CARRIES = re.compile(r"%\d+ = %\d+(?:, %\d+ = %\d+)*")
_ALONG = re.compile(r"(?:(\w+) )?%(\d+) axis ([01])")


def parse_kernel(text: str) -> Kernel:
    """The kernel that `text` stands for, renumbered, not verified. Raises ParseError."""
    return _Parser(text).kernel()


class _Parser:
    def __init__(self, text: str) -> None:
        numbered = [(n, line.split(";")[0].strip()) for n, line in enumerate(text.splitlines(), 1)]
        self.lines = [(n, line) for n, line in numbered if line]
        self.position = 0
        self.values: dict[int, Value] = {}

    def fail(self, message: str) -> ParseError:
        number = self.lines[min(self.position, len(self.lines) - 1)][0] if self.lines else 1
        return ParseError(message, number)

    def next(self) -> str:
        if self.position >= len(self.lines):
            raise self.fail("the text ends inside a block; a `}` is missing")
        self.position += 1
        return self.lines[self.position - 1][1]

    def kernel(self) -> Kernel:
        line = self.next()
        head = _HEAD.fullmatch(line)
        if not head:
            raise self.fail("expected `kernel name grid(n, ...) {`")
        grid = self.ints(head[2])
        refs = []
        while self.position < len(self.lines) and self.lines[self.position][1].startswith("ref "):
            refs.append(self.ref(self.next()))
        body, _ = self.block()
        if self.position != len(self.lines):
            raise self.fail("text after the end of the kernel")
        return renumber(Kernel(head[1], tuple(refs), grid, body))

    def ref(self, line: str) -> RefType:
        found = _REF.fullmatch(line)
        if not found or found[2] not in STORAGES:
            raise self.fail(f"expected `ref name: dtype[shape] in|out|inout` with a dtype of {STORAGES}")
        return RefType(found[1], cast(Storage, found[2]), self.ints(found[3]), cast(Role, found[4]))

    def ints(self, text: str) -> tuple[int, ...]:
        try:
            return tuple(int(part) for part in text.split(","))
        except ValueError:
            raise self.fail(f"`{text}` is no list of integers, `n, m`") from None

    def block(self) -> tuple[tuple[Op, ...], tuple[Value, ...]]:
        """Ops up to `}`, and the values of its `yield`."""
        ops: list[Op] = []
        yields: tuple[Value, ...] = ()
        while (line := self.next()) != "}":
            if line == "yield" or line.startswith("yield "):
                yields = self.names(line[5:])
            else:
                ops.append(self.op(line))
        return tuple(ops), yields

    def op(self, line: str) -> Op:
        left, equals, right = line.partition(" = ") if line.startswith("%") else ("", "=", line)
        if not equals:
            raise self.fail("expected `%n: type = op ...`")
        try:
            op = self.right(self.results(left), right)
        except (ValueError, IndexError, KeyError, TypeError):
            raise self.fail(f"cannot read `{line}`") from None
        return op

    def results(self, text: str) -> tuple[Value, ...]:
        if text and not _TYPED.fullmatch(text):
            raise self.fail(
                f"cannot read the results `{text}`; write `%n: dtype` or `%n: dtype[rows, columns]`"
            )
        found = list(_RESULT.finditer(text))
        for match in found:
            if match[2] not in DTYPES:
                raise self.fail(f"{match[2]} is no dtype; there are {DTYPES}")
        return tuple(self.define(int(m[1]), cast(DType, m[2]), _shape(m)) for m in found)

    def define(self, number: int, dtype: DType, shape: Shape = ()) -> Value:
        if number in self.values:
            raise self.fail(f"%{number} is defined twice")
        self.values[number] = Value(number, dtype, shape)
        return self.values[number]

    def value(self, number: str) -> Value:
        if int(number) not in self.values:
            raise self.fail(f"%{number} is used before it is defined")
        return self.values[int(number)]

    def names(self, text: str) -> tuple[Value, ...]:
        if text.strip() and not _NAMES.fullmatch(text.strip()):
            raise self.fail(f"`{text.strip()}` is no list of values, `%a, %b`")
        return tuple(self.value(number) for number in _NUMBER.findall(text))

    def operands(self, text: str, count: int) -> tuple[Value, ...]:
        found = self.names(text)
        if len(found) != count:
            raise self.fail(f"expected {count} values and there are {len(found)}")
        return found

    def right(self, results: tuple[Value, ...], text: str) -> Op:
        name, _, rest = text.partition(" ")
        if not results and name not in ("loop", "store", "atomic_add"):
            raise self.fail(f"expected `%n: type = op ...`, a loop, a store or a `}}`, not `{text}`")
        if name == "loop":
            return self.loop(results, text)
        if name in ("store", "atomic_add"):
            ref, index, value, _ = self.access(rest)
            return (Store if name == "store" else AtomicAdd)(ref, index, self.value(value))
        result = results[0]
        if name == "load":
            ref, index, _, other = self.access(rest)
            return Load(result, ref, index, _literal(other, "f32" if result.dtype != "i32" else "i32"))
        return self.plain(result, name, rest)

    def plain(self, result: Value, name: str, rest: str) -> Op:
        """Every op that is a name, some values and perhaps a word or a number."""
        if name in ("const", "full"):
            value = _literal(rest, result.dtype)
            return Const(result, value) if name == "const" else Full(result, value)
        if name == "pid":
            return Pid(result, int(rest))
        if name in ("iota", "reduce"):
            return self.along(result, name, rest)
        if name == "dot":
            listed = rest.removesuffix(" transpose_b")
            left, right = self.operands(listed, 2)
            return Dot(result, left, right, listed != rest)
        if name == "where":
            return Where(result, *self.operands(rest, 3))
        if name == "cast":
            return Cast(result, *self.operands(rest, 1))
        if name in get_args(UnaryKind):
            return Unary(result, cast(UnaryKind, name), *self.operands(rest, 1))
        if name in get_args(BinaryKind):
            return Binary(result, cast(BinaryKind, name), *self.operands(rest, 2))
        raise self.fail(f"{name} is no op")

    def along(self, result: Value, name: str, rest: str) -> Op:
        found = _ALONG.fullmatch(rest)
        if not found or (name == "iota") != (found[1] is None):
            raise self.fail("expected `iota %start axis n` or `reduce sum|max|min %tile axis n`")
        operand, axis = self.value(found[2]), int(found[3])
        if name == "iota":
            return Iota(result, operand, axis)
        if found[1] not in get_args(ReduceKind):
            raise self.fail(f"{found[1]} is no reduction; there are {get_args(ReduceKind)}")
        return Reduce(result, cast(ReduceKind, found[1]), operand, axis)

    def access(self, text: str) -> tuple[str, Index, str, str]:
        found = _ACCESS.fullmatch(text)
        if not found:
            raise self.fail(f"cannot read the window `{text}`")
        entries = [_ENTRY.fullmatch(part) for part in found[2].split(", ")]
        return found[1], tuple(self.entry(entry) for entry in entries), found[3], found[4]

    def entry(self, found: re.Match[str] | None) -> At | Span:
        if found is None:
            raise self.fail("a window entry is `%start` or `%start:size@tile_axis`")
        start = self.value(found[1])
        return Span(start, int(found[2]), int(found[3])) if found[2] else At(start)

    def loop(self, finals: tuple[Value, ...], text: str) -> Op:
        found = _LOOP.fullmatch(text)
        if not found:
            raise self.fail("expected `loop %i in %lo..%hi carry %c = %init max_trip n {`")
        if found[4] and not _CARRIES.fullmatch(found[4]):
            raise self.fail(f"cannot read the carries `{found[4]}`; they are `%carry = %init, ...`")
        lo, hi = self.value(found[2]), self.value(found[3])
        induction = self.define(int(found[1]), "i32")
        pairs = re.findall(r"%(\d+) = %(\d+)", found[4] or "")
        init = tuple(self.value(start) for _, start in pairs)
        carries = tuple(
            self.define(int(number), start.dtype, start.shape)
            for (number, _), start in zip(pairs, init, strict=True)
        )
        body, yields = self.block()
        return Loop(
            finals, induction, lo, hi, carries, init, body, yields, int(found[5]) if found[5] else None
        )


def _shape(found: re.Match[str]) -> Shape:
    return (int(found[3]), int(found[4])) if found[3] else ()


def _literal(text: str, dtype: DType) -> bool | int | float:
    if dtype == "bool":
        return {"true": True, "false": False}[text]
    return int(text) if dtype == "i32" else float(text)

"""Lines of emitted code: indentation, declarations, and nests over the register slots of a tile."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from dsl.ir.types import DType, Shape, Value
from dsl.lower.c.layout import Layout

Slot = tuple[str, str]
"""The C expressions of a register slot: row and column index, "i" or "0" and "j" or "0"."""


class Lines:
    """The text so far; `mark` and `rewind` take back what followed.

    `types` says what a thread holds an element as.
    """

    def __init__(self, types: Mapping[DType, str]) -> None:
        self.types = types
        self._lines: list[str] = []
        self._depth = 1

    def text(self) -> str:
        return "".join(f"{line}\n" for line in self._lines)

    def add(self, line: str) -> None:
        self._lines.append("  " * self._depth + line)

    def mark(self) -> int:
        return len(self._lines)

    def rewind(self, mark: int) -> None:
        del self._lines[mark:]

    @contextmanager
    def indented(self) -> Iterator[None]:
        self._depth += 1
        yield
        self._depth -= 1

    def nest(self, layout: Layout, shape: Shape, statement: Callable[[Slot], str]) -> None:
        """One statement for each slot of a tile of `shape`, or for a scalar."""
        counts = layout.slots(shape) if shape else (1, 1)
        self.add(slots(*counts, statement))

    def define(
        self,
        layout: Layout,
        result: Value,
        value: Callable[[Slot], str],
        *,
        name: str | None = None,
        constant: bool = True,
    ) -> None:
        """Declares `result` and gives each of its elements a value."""
        name, kind = name or f"v{result.id}", self.types[result.dtype]
        if result.is_scalar:
            self.add(f"{'const ' if constant else ''}{kind} {name} = {value(('0', '0'))};")
            return
        self.declare(layout, result, name)
        self.nest(layout, result.shape, lambda slot: f"{name}[{slot[0]}][{slot[1]}] = {value(slot)};")

    def declare(self, layout: Layout, result: Value, name: str | None = None) -> None:
        rows, columns = layout.slots(result.shape)
        self.add(f"{self.types[result.dtype]} {name or f'v{result.id}'}[{rows}][{columns}];")

    def assign(self, layout: Layout, target: Value, source: str) -> None:
        """Copies a scalar, or all slots of a tile of the same shape."""
        name = f"v{target.id}"
        if target.is_scalar:
            self.add(f"{name} = {source};")
        else:
            self.nest(layout, target.shape, lambda s: f"{name}[{s[0]}][{s[1]}] = {source}[{s[0]}][{s[1]}];")


def slots(rows: int, columns: int, statement: Callable[[Slot], str]) -> str:
    """`statement` under loops over (i, j); an axis with one slot has none and is "0"."""
    heads = (f"EACH(i, {rows}) " if rows > 1 else "") + (f"EACH(j, {columns}) " if columns > 1 else "")
    return heads + statement(("i" if rows > 1 else "0", "j" if columns > 1 else "0"))


def scaled(slot: str, factor: int) -> str:
    """`factor` times a slot's number."""
    return slot if factor == 1 else str(int(slot) * factor) if slot.isdigit() else f"{factor} * {slot}"


def shifted(slot: str, by: int) -> str:
    """A slot's number plus `by`."""
    return str(int(slot) + by) if slot.isdigit() else f"{slot} + {by}" if by else slot
